"""The adapter to Serve's private interface, held to the installed Ray."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import RequestProtocol
from ray.serve._private.controller import ServeController
from ray.serve._private.long_poll import (
    LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S,
    LongPollHost,
    LongPollNamespace,
    LongPollState,
    UpdatedObject,
)
from ray.serve.schema import Target, TargetGroup

from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.serve import discovery
from tradewind.serve.discovery import (
    HOLD_S,
    RECOVERY_S,
    SILENCE_S,
    Address,
    Controller,
    Held,
    ReplicaDiscovery,
    addresses_by_app,
)
from tradewind.serve.listening import Update


def group(app: str, protocol: RequestProtocol, *targets: Target) -> TargetGroup:
    return TargetGroup(targets=list(targets), route_prefix="/", protocol=protocol, app_name=app)


def target(port: int, name: str) -> Target:
    return Target(ip="10.0.0.1", port=port, instance_id="i", name=name)


def test_addresses_come_per_application_with_the_replicas_own_name() -> None:
    groups = [
        group("a", RequestProtocol.HTTP, target(30000, "r1"), target(30001, "r2")),
        group("a", RequestProtocol.GRPC, target(40000, "r1")),
        group("b", RequestProtocol.HTTP),
    ]
    assert addresses_by_app(groups) == {
        "a": [Address("10.0.0.1", 30000, "r1"), Address("10.0.0.1", 30001, "r2")],
        "b": [],
    }


async def test_the_installed_ray_has_what_discovery_listens_to() -> None:
    assert list(inspect.signature(ServeController.listen_for_change).parameters)[1:] == [
        "keys_to_snapshot_ids"
    ]
    host = LongPollHost(listen_for_change_request_timeout_s=(0.0, 0.0))
    host.notify_changed({LongPollNamespace.TARGET_GROUPS: ["groups"]})
    answer = await host.listen_for_change({LongPollNamespace.TARGET_GROUPS: -1})
    change = answer[LongPollNamespace.TARGET_GROUPS]
    assert change.object_snapshot == ["groups"]
    number = {LongPollNamespace.TARGET_GROUPS: change.snapshot_id}
    assert change.snapshot_id >= 0
    assert await host.listen_for_change(number) == LongPollState.TIME_OUT


def test_a_controller_that_lives_answers_before_its_silence_counts() -> None:
    assert max(LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S) + 10 < SILENCE_S


ONE, TWO = (Address("10.0.0.1", port, f"r{port}") for port in (1, 2))


class Alarm:
    """A timer that goes off when told."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.ring: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.ring = None


class Watch:
    """What a Held told, and its timers."""

    def __init__(self) -> None:
        self.told: list[dict[str, list[Address]]] = []
        self.alarms: list[Alarm] = []
        self.held = Held(self._tell, self._later)

    def _tell(self, found: Mapping[str, Sequence[Address]]) -> None:
        self.told.append({app: list(addresses) for app, addresses in found.items()})

    def _later(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        self.alarms.append(Alarm(seconds, callback))
        return self.alarms[-1]

    @property
    def armed(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if alarm.ring is not None]


def test_the_only_replica_that_takes_over_a_configuration_is_never_gone() -> None:
    watch = Watch()
    for found in ([ONE], [], [], [ONE]):
        watch.held.changed({"a": found, "b": [TWO]})
    assert watch.told == [{"a": [ONE], "b": [TWO]}] * 4
    assert ([alarm.seconds for alarm in watch.alarms], watch.armed) == ([HOLD_S], [])


def test_the_last_replica_that_stays_away_is_gone_after_a_while() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE]})
    watch.held.changed({"a": []})
    (alarm,) = watch.armed
    assert alarm.ring is not None
    alarm.ring()
    assert watch.told[-1] == {"a": []}
    watch.held.changed({"a": []})
    assert watch.told[-1] == {"a": []}
    assert len(watch.alarms) == 1


def test_one_of_several_and_what_was_removed_are_gone_at_once() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE, TWO], "b": [ONE]})
    watch.held.changed({"a": [TWO], "b": []})
    assert watch.told[-1] == {"a": [TWO], "b": [ONE]}
    watch.held.changed({"a": [TWO]})
    assert watch.told[-1] == {"a": [TWO]}
    assert watch.armed == []


def test_a_gateway_that_stops_holds_nothing() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE]})
    watch.held.changed({"a": []})
    watch.held.stop()
    assert watch.armed == []


def test_a_replica_that_stops_takes_requests_for_longer_than_it_is_held() -> None:
    environment = ray_environment(token_file=None, run_dir=Path("/run"), ingress="x", ports=Ports())
    assert float(environment["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]) > HOLD_S


def test_a_new_controller_that_knows_no_replica_yet_takes_none_away() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE], "b": [ONE, TWO]})
    watch.held.new_controller()
    (alarm,) = watch.armed
    assert alarm.seconds == RECOVERY_S
    for found in ({}, {"a": []}, {"a": [], "b": [TWO]}):
        watch.held.changed(found)
    assert watch.told[1:] == [{"a": [ONE], "b": [ONE, TWO]}] * 2 + [{"a": [ONE], "b": [TWO]}]
    watch.held.changed({"a": [TWO], "b": [TWO]})
    assert watch.told[-1] == {"a": [TWO], "b": [TWO]}


def test_what_a_new_controller_does_not_find_in_time_is_gone() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE], "b": [TWO]})
    watch.held.new_controller()
    watch.held.changed({"b": [TWO]})
    (alarm,) = watch.armed
    assert alarm.ring is not None
    alarm.ring()
    assert watch.told[-1] == {"b": [TWO]}
    watch.held.new_controller()
    watch.held.stop()
    assert watch.armed[1:] == []


class Actor:
    """Serve's controller as an actor: what `listen_for_change.remote` is given, and what comes of it."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[Any] = []

    @property
    def listen_for_change(self) -> Actor:
        return self

    def remote(self, snapshot_ids: Mapping[Any, int]) -> asyncio.Future[Any]:
        self.asked.append(dict(snapshot_ids))
        future = asyncio.get_running_loop().create_future()
        if not self._answers:
            return future
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


GROUPS = LongPollNamespace.TARGET_GROUPS


async def test_a_controller_tells_its_target_groups_or_that_nothing_changed() -> None:
    change = UpdatedObject(["groups"], 7, 0.0)
    actor = Actor({GROUPS: change}, LongPollState.TIME_OUT, {})
    controller = Controller(lambda: actor)
    assert await controller.newer(-1) == Update(7, ["groups"])
    assert await controller.newer(7) is None
    assert await controller.newer(7) is None
    assert actor.asked == [{GROUPS: -1}, {GROUPS: 7}, {GROUPS: 7}]


async def test_one_that_is_away_is_asked_again_and_one_that_died_is_looked_for_anew() -> None:
    first = Actor(ActorUnavailableError("away", None), ActorDiedError())
    second = Actor(LongPollState.TIME_OUT)
    found = [first, second]
    controller = Controller(lambda: found.pop(0))
    with pytest.raises(ActorUnavailableError):
        await controller.newer(1)
    assert found == [second]
    with pytest.raises(ActorDiedError):
        await controller.newer(1)
    assert await controller.newer(1) is None
    assert found == []


async def test_one_that_says_nothing_is_looked_for_anew() -> None:
    silent, second = Actor(), Actor(LongPollState.TIME_OUT)
    found = [silent, second]
    controller = Controller(lambda: found.pop(0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.newer(1), 0.01)
    assert await controller.newer(1) is None


async def test_a_search_that_blocks_blocks_neither_the_loop_nor_a_second_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "FIND_S", 0.01)
    free, searches = threading.Event(), []

    def find() -> Actor:
        searches.append(1)
        assert free.wait(5)
        return Actor(LongPollState.TIME_OUT)

    controller = Controller(find)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await controller.newer(1)
    free.set()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(TimeoutError):
                assert await controller.newer(1) is None
                break
    assert len(searches) == 1


async def test_a_search_that_fails_is_made_again() -> None:
    found: list[Any] = [ValueError("no actor"), Actor(LongPollState.TIME_OUT)]

    def find() -> Any:
        if isinstance(one := found.pop(0), Exception):
            raise one
        return one

    controller = Controller(find)
    with pytest.raises(ValueError, match="no actor"):
        await controller.newer(1)
    assert await controller.newer(1) is None


async def test_replicas_come_from_the_controller_to_who_listens() -> None:
    groups = [group("a", RequestProtocol.HTTP, target(30000, "r1"))]
    told: list[Any] = []
    arrived = asyncio.Event()

    def take(found: Mapping[str, Sequence[Address]]) -> None:
        told.append(found)
        arrived.set()

    actor = Actor(ActorUnavailableError("away", None), {GROUPS: UpdatedObject(groups, 7, 0.0)})
    listening = ReplicaDiscovery(take, lambda: actor)
    listening.start()
    async with asyncio.timeout(10):
        await arrived.wait()
    assert told == [{"a": [Address("10.0.0.1", 30000, "r1")]}]
    assert listening.age() < 1.0
    listening.stop()
