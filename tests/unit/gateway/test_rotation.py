"""Replicas in rotation while a configuration is taken over in steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.unit.gateway.asgi import config, deployment, make_gateway, route
from tradewind.api.steps import at_once
from tradewind.api.wire import VariantEntry
from tradewind.gateway.prober import EngineStats, Pace, Target
from tradewind.gateway.rotation import Rotation
from tradewind.routing.replica import ReplicaAddress

A, B = deployment("a", context_length=None), deployment("b", context_length=None)
ROUTE = route("chat", VariantEntry(name="v", deployment="a"))
BOTH, ONE = config(deployments=[A, B], routes=[ROUTE]), config(deployments=[A], routes=[ROUTE])
AT_A, AT_B = ReplicaAddress("127.0.0.1", 1, "r1"), ReplicaAddress("127.0.0.1", 2, "r2")


class Scene:
    """A gateway's rotation, and a round of probes when it is asked for one."""

    def __init__(self) -> None:
        self.gateway, _, self.metrics, self.upstream = make_gateway()
        self.rotation = Rotation(self.gateway, self.metrics, self._fetch, pace=Pace(interval_s=0.01))
        self.probed: Counter[str] = Counter()
        self._again = asyncio.Event()

    async def _fetch(self, target: Target, _seconds: float, _wants: int) -> EngineStats:
        await asyncio.sleep(0)
        self.probed[target.id] += 1
        self._again.set()
        return EngineStats(model="m", context_length=4096, running=1)

    def ready(self) -> dict[str, int]:
        return {
            name: sum(view.ready for view in self.gateway.directory.views(name))
            for name in self.gateway.directory.deployments()
        }

    async def rounds(self, number: int, *replicas: str) -> None:
        """Until each of these has been probed so many times more."""
        before = self.probed.copy()
        async with asyncio.timeout(10):
            while any(self.probed[each] < before[each] + number for each in replicas):
                self._again.clear()
                await self._again.wait()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    scene.gateway.configure(BOTH)
    at_once(scene.rotation.updating({A: [AT_A], B: [AT_B]}))
    yield scene
    await scene.rotation.stop()
    await scene.upstream.close()


async def test_a_probe_of_a_deployment_that_has_just_gone_is_answered_in_vain(scene: Scene) -> None:
    await scene.rounds(1, "127.0.0.1:1", "127.0.0.1:2")
    assert scene.ready() == {"a": 1, "b": 1}
    scene.gateway.configure(ONE)  # and rotation has not heard of it yet
    await scene.rounds(2, "127.0.0.1:1", "127.0.0.1:2")
    assert scene.ready() == {"a": 1}
    assert scene.gateway.context_lengths == {"a": 4096}
    at_once(scene.rotation.updating({A: [AT_A]}))
    before = scene.probed["127.0.0.1:2"]
    await scene.rounds(1, "127.0.0.1:1")
    assert scene.probed["127.0.0.1:2"] == before


async def test_probes_go_on_between_two_steps(scene: Scene) -> None:
    steps = scene.rotation.updating({A: [AT_A], B: []})
    next(steps)
    await scene.rounds(1, "127.0.0.1:1", "127.0.0.1:2")
    assert scene.ready() == {"a": 1, "b": 1}
    at_once(steps)
    assert scene.ready() == {"a": 1, "b": 0}
    await scene.rounds(1, "127.0.0.1:1")
