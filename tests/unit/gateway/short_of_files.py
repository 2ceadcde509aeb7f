"""A gateway in a process that has no file descriptor left; `test_shortage.py` runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
from typing import Any

from tests.fakes.engine import FakeEngine
from tests.unit.gateway.asgi import TOKEN, config
from tests.unit.gateway.ways import until, way


async def main() -> dict[str, Any]:
    async with FakeEngine(token=TOKEN, prefix="/engines/llama") as engine, way(config(), engine.port) as here:
        (view,) = here.views
        await until(lambda: view.fresh_until > 0, 2)
        whole = (await here.client.chat()).status  # what is imported late is imported now
        for peer in tuple(engine.open):
            peer.abort()
        await until(lambda: not here.upstream.open_connections, 2)
        seen: dict[str, Any] = {"before": whole, "seen": len(engine.seen)}
        taken = take_all_files()
        try:
            replies = [await here.client.chat() for _ in range(20)]
            await asyncio.sleep(1.0)  # twenty probes that cannot be made
            replies += [await here.client.chat()]
            seen["during"] = sorted({(each.status, each.code) for each in replies})
            seen["retry_after"] = replies[0].header("retry-after")
            seen["ready"] = view.ready
            seen["asked"] = len(engine.seen) - seen["seen"]
        finally:
            for number in taken:
                os.close(number)
        seen["after"] = (await here.client.chat()).status
        seen["outstanding"] = view.outstanding
        return seen


def take_all_files() -> list[int]:
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    while True:
        try:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return taken


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    print(json.dumps(asyncio.run(main())))
