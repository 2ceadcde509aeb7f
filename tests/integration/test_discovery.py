"""Discovery on a real Ray: a controller that is killed in a poll, and one that is gone for good."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve._private.common import (
    DeploymentID,
    DeploymentTargetInfo,
    EndpointInfo,
    ReplicaID,
    RunningReplicaInfo,
)
from ray.serve._private.long_poll import LongPollHost

from tradewind.serve.discovery import ROUTES, Address, ReplicaDiscovery, replicas_of

pytestmark = pytest.mark.engine

NAME = "teller"
ENGINE = DeploymentID(name="engine", app_name="a")


class Teller:
    """What Serve's controller is to a gateway, made of Serve's own long-poll host."""

    def __init__(self, port: int) -> None:
        self._host = LongPollHost()
        self._host.notify_changed({ROUTES: {ENGINE: EndpointInfo(route="/a")}})
        self.tell(port)

    def tell(self, port: int) -> None:
        replica = RunningReplicaInfo(
            replica_id=ReplicaID(f"r{port}", ENGINE),
            node_id="n",
            node_ip="10.0.0.1",
            availability_zone=None,
            actor_name=f"r{port}",
            max_ongoing_requests=1,
            backend_http_port=port,
        )
        told = DeploymentTargetInfo(is_available=True, running_replicas=[replica])
        self._host.notify_changed({replicas_of(ENGINE): told})

    async def listen_for_change(self, keys_to_snapshot_ids: dict[Any, int]) -> Any:
        return await self._host.listen_for_change(keys_to_snapshot_ids)

    async def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory: Path = tmp_path_factory.mktemp("r")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        namespace="serve",
        _temp_dir=str(directory),
    )
    yield
    ray.shutdown()


def teller(port: int) -> Any:
    """Begins again by itself, with what it first had, when its process dies."""
    return (
        ray.remote(Teller).options(name=NAME, max_restarts=-1, num_cpus=0, max_concurrency=100).remote(port)
    )


async def test_it_hears_the_next_controller_whatever_becomes_of_the_one_before(cluster: None) -> None:
    told: asyncio.Queue[Sequence[Address]] = asyncio.Queue()

    def take(found: Mapping[str, Sequence[Address]]) -> None:
        told.put_nowait(found["a"])

    async def until(port: int) -> None:
        async with asyncio.timeout(120):
            while await told.get() != [Address("10.0.0.1", port, f"r{port}")]:
                pass

    first = teller(1)
    discovery = ReplicaDiscovery(take, lambda: ray.get_actor(NAME))
    discovery.start()
    await until(1)
    first.tell.remote(2)
    await until(2)
    os.kill(await first.pid.remote(), signal.SIGKILL)
    await until(1)  # the next process of the same actor
    first.tell.remote(3)
    await until(3)
    ray.kill(first)  # for good; another actor takes the name
    second = teller(4)
    await until(4)
    second.tell.remote(5)
    await until(5)
    assert discovery.age() < 60
    discovery.stop()
