"""An engine's process that is stopped for a while and goes on, as after a long pause of memory or disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.gateway.asgi import TOKEN, config, deployment, route
from tests.unit.gateway.ways import QUICK, until, way

ROOT = Path(__file__).parents[3]
# Wide enough for a busy machine, which a tenth of two seconds and of one would not be.
OUT_S = 5 * QUICK.silence_s
IN_AGAIN_S = 10 * QUICK.interval_s


@pytest.fixture
async def engine() -> AsyncIterator[tuple[int, int]]:
    """A process that takes two requests at a time for 0.6 s each: its id and its port."""
    arguments = ("--token", TOKEN, "--prefix", "/engines/llama", "--bound", "2", "--hold-s", "0.6")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.guarded_engine", *arguments,
        stdout=asyncio.subprocess.PIPE, env=env, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    yield process.pid, port
    process.kill()
    await process.wait()


@pytest.mark.parametrize("gone", [0, 1])
async def test_it_is_out_while_it_is_silent_and_serves_who_waited_as_soon_as_it_goes_on(
    engine: tuple[int, int], gone: int
) -> None:
    """`gone` of the two callers that it had leave meanwhile, and take their slots with them."""
    pid, port = engine
    settings = config(
        deployments=[deployment(max_ongoing_requests=2)], routes=[route(first_token_timeout_s=10)]
    )
    async with way(settings, port) as here:
        (view,) = here.views
        left = asyncio.Event()
        held = [asyncio.create_task(here.client.chat(gone=left if n < gone else None)) for n in range(2)]
        await until(lambda: view.outstanding == 2 and view.fresh_until > 0, 2)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await until(lambda: view.down, 2) < OUT_S
            waiting = [asyncio.create_task(here.client.chat()) for _ in range(2)]
            left.set()
            await until(lambda: here.gateway.admission.load("llama").waiting == 2, 2)
            await until(lambda: view.outstanding == 2 - gone, 2)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await until(lambda: view.ready, 2) < IN_AGAIN_S
        assert {(await task).status for task in (*held[gone:], *waiting)} == {200}
        assert view.outstanding == 0
        await asyncio.gather(*held)
        assert not here.gateway.admission.loads()
