"""The fake engine behind every way: one process, two ports, told between measurements how to answer.

`python -m tests.bench.peers.engine` prints its ports as JSON, then answers each line on its stdin, an
`Order`, with how many streams are under way. It ends when stdin does, and so with whoever started it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec
import uvloop

from tests.bench.peers.peer import MODEL
from tests.fakes.engine import FakeEngine, Script, stats

DEPLOYMENTS = ("control", "candidate")
"""What our gateway calls the two; it asks under `/engines/<deployment>`, everybody else without."""
_STEP_S = 0.05


class Order(msgspec.Struct):
    """How to answer from now on; without `tokens`, as before."""

    tokens: int | None = None
    interval_s: float = 0.0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin.fileno(), lambda: lines.put_nowait(sys.stdin.readline()))
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(FakeEngine(prefix=f"/engines/{name}", stats=stats(model=MODEL)))
            for name in DEPLOYMENTS
        ]
        print(msgspec.json.encode([engine.port for engine in engines]).decode(), flush=True)
        while line := await lines.get():
            order = msgspec.json.decode(line, type=Order)
            for engine in engines:
                engine.seen.clear()
                if order.tokens is not None:
                    engine.script = Script(order.tokens, order.interval_s)
            print(sum(engine.running for engine in engines), flush=True)


class Engine:
    """Handle of the process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.peers.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ports: tuple[int, int] = msgspec.json.decode(self._line(), type=tuple[int, int])

    def answer(self, tokens: int, interval_s: float = 0.0) -> None:
        """Each answer that begins from now on has so many tokens, so far apart."""
        self._order(Order(tokens, interval_s))

    def streams(self) -> int:
        """Streams under way."""
        return self._order(Order())

    def until_streams(self, count: int, timeout_s: float) -> bool:
        """Whether so many streams were under way in time."""
        deadline = time.monotonic() + timeout_s
        while self.streams() != count:
            if time.monotonic() > deadline:
                return False
            time.sleep(_STEP_S)
        return True

    def _order(self, order: Order) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the fake engine's process has ended")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
