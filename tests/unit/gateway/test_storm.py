"""Many requests at once, with engines that fail and clients that leave: nothing is left behind."""

from __future__ import annotations

import asyncio
import random

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import Stage, config, deployment, route, stage
from tradewind.api.wire import RetryEntry

FAULTS = [
    Script(tokens=5, interval_s=0.001),
    Script(tokens=5, interval_s=0.001),
    Script(fault=Fault.RESET_BEFORE_HEAD),
    Script(fault=Fault.UNAVAILABLE),
    Script(fault=Fault.GARBAGE),
    Script(fault=Fault.RESET_MID_STREAM, interval_s=0.001),
    Script(fault=Fault.STALL, interval_s=0.001),
    Script(fault=Fault.NO_HEAD),
]


async def one(scene: Stage, rng: random.Random) -> None:
    """A request whose client may leave, whose task may be cancelled, or that runs to its end."""
    gone = asyncio.Event()
    task = asyncio.create_task(scene.client.chat(stream=rng.random() < 0.7, gone=gone))
    await asyncio.wait([task], timeout=rng.random() * 0.1)
    match rng.randrange(3):
        case 0:
            gone.set()
        case 1:
            task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def test_after_a_storm_nothing_is_held() -> None:
    rng = random.Random(7)
    settings = config(
        deployments=[deployment(max_ongoing_requests=8), deployment("spare")],
        routes=[
            route(
                fallback=("spare",),
                retry=RetryEntry(attempts=3, budget_percent=50),
                first_token_timeout_s=0.1,
                total_timeout_s=0.3,
            )
        ],
    )
    async with stage(settings, replicas={"llama": 3, "spare": 1}) as s:
        for replicas in s.engines.values():
            for engine in replicas:
                engine.next.extend(rng.choices(FAULTS, k=60))
        await asyncio.gather(*(one(s, rng) for _ in range(120)))
        assert s.gateway.active == 0
        assert not s.gateway.admission.loads()
        started = len(s.records.items)
        assert started <= 120
        assert {record.outcome for record in s.records.items} >= {"ok", "cancelled"}
        assert all(view.outstanding == 0 for name in s.engines for view in s.gateway.directory.views(name))
        for replicas in s.engines.values():
            for engine in replicas:
                await engine.until(lambda engine=engine: not engine.running)  # type: ignore[misc]
        s.discover()
        for replicas in s.engines.values():
            for engine in replicas:
                engine.next.clear()
        assert (await s.client.chat()).status == 200
