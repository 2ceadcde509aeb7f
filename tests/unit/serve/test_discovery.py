"""The adapter to Serve's private interface, held to the installed Ray."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.common import (
    DeploymentID,
    DeploymentTargetInfo,
    EndpointInfo,
    ReplicaID,
    RunningReplicaInfo,
)
from ray.serve._private.controller import ServeController
from ray.serve._private.deployment_state import DeploymentState
from ray.serve._private.endpoint_state import EndpointState
from ray.serve._private.long_poll import (
    LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S,
    LongPollHost,
    LongPollState,
    UpdatedObject,
)

from tradewind.compiler.ray_environment import ray_environment
from tradewind.serve import discovery
from tradewind.serve.discovery import (
    HOLD_S,
    RECOVERY_S,
    ROUTES,
    SILENCE_S,
    Address,
    Controller,
    Held,
    Picture,
    ReplicaDiscovery,
    addresses,
    replicas_of,
)
from tradewind.serve.listening import Update

A, B = (DeploymentID(name="engine", app_name=app) for app in "ab")


def running(port: int | None, name: str, ip: str | None = "10.0.0.1") -> RunningReplicaInfo:
    return RunningReplicaInfo(
        replica_id=ReplicaID(name, A),
        node_id="n",
        node_ip=ip,
        availability_zone=None,
        actor_name=name,
        max_ongoing_requests=1,
        backend_http_port=port,
    )


def targets(*replicas: RunningReplicaInfo) -> DeploymentTargetInfo:
    return DeploymentTargetInfo(is_available=True, running_replicas=list(replicas))


def test_addresses_come_per_application_with_the_replicas_own_name() -> None:
    picture = Picture()
    assert picture.take({ROUTES: {A: EndpointInfo(route="/a"), B: EndpointInfo(route="/b")}}) == {
        "a": (),
        "b": (),
    }
    assert picture.topics() == [ROUTES, replicas_of(A), replicas_of(B)]
    # A replica that has no port yet has no address.
    replicas = targets(running(30000, "r1"), running(30001, "r2"), running(None, "r3"))
    assert picture.take({replicas_of(A): replicas}) == {
        "a": [Address("10.0.0.1", 30000, "r1"), Address("10.0.0.1", 30001, "r2")],
        "b": (),
    }


def test_a_piece_that_is_told_anew_leaves_the_others_and_what_has_no_route_is_gone() -> None:
    picture = Picture()
    picture.take({ROUTES: {A: EndpointInfo(route="/a"), B: EndpointInfo(route="/b")}})
    picture.take({replicas_of(A): targets(running(1, "r1")), replicas_of(B): targets(running(2, "r2"))})
    assert picture.take({replicas_of(A): targets()}) == {"a": [], "b": [Address("10.0.0.1", 2, "r2")]}
    assert picture.take({ROUTES: {A: EndpointInfo(route="/a")}}) == {"a": []}
    # What went with its route is not there again when the route is: another deployment has the name.
    assert picture.take({ROUTES: {B: EndpointInfo(route="/b")}}) == {"b": ()}


async def test_the_installed_ray_has_what_discovery_listens_to() -> None:
    assert list(inspect.signature(ServeController.listen_for_change).parameters)[1:] == [
        "keys_to_snapshot_ids"
    ]
    host = LongPollHost(listen_for_change_request_timeout_s=(0.0, 0.0))
    host.notify_changed({ROUTES: {A: EndpointInfo(route="/a")}})
    first = await host.listen_for_change({ROUTES: -1})
    assert list(first[ROUTES].object_snapshot) == [A]
    host.notify_changed({replicas_of(A): targets(running(1, "r1"))})
    numbers = {ROUTES: first[ROUTES].snapshot_id, replicas_of(A): -1, replicas_of(B): -1}
    answer = await host.listen_for_change(numbers)
    assert list(answer) == [replicas_of(A)], "and leaves out what it does not know"
    change = answer[replicas_of(A)]
    assert change.snapshot_id >= 0
    assert addresses(change.object_snapshot) == [Address("10.0.0.1", 1, "r1")]
    assert await host.listen_for_change({**numbers, replicas_of(A): change.snapshot_id}) == (
        LongPollState.TIME_OUT
    )


def test_the_installed_controller_tells_the_routes_and_replicas_whatever_the_way_in_is() -> None:
    told = inspect.getsource(DeploymentState.broadcast_running_replicas_if_changed)
    assert "HA_PROXY" not in told
    assert "DEPLOYMENT_TARGETS" in told
    assert "ROUTE_TABLE" in inspect.getsource(EndpointState._notify_route_table_changed)


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
    environment = ray_environment(token_file=None)
    assert float(environment["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]) > HOLD_S


def test_a_new_controller_that_knows_no_replica_yet_takes_none_away() -> None:
    watch = Watch()
    watch.held.changed({"a": [ONE], "b": [ONE, TWO]})
    watch.held.new_controller()
    (alarm,) = watch.armed
    assert alarm.seconds == RECOVERY_S
    pictures: tuple[dict[str, list[Address]], ...] = ({}, {"a": []}, {"a": [], "b": [TWO]})
    for found in pictures:
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


ONCE = {ROUTES: 1}


async def test_a_controller_tells_what_has_changed_or_that_nothing_did() -> None:
    change = UpdatedObject("routes", 7, 0.0)
    actor = Actor({ROUTES: change}, LongPollState.TIME_OUT, {})
    controller = Controller(lambda: actor)
    assert await controller.newer({ROUTES: -1}) == {ROUTES: Update(7, "routes")}
    assert await controller.newer({ROUTES: 7}) == {}
    assert await controller.newer({ROUTES: 7}) == {}
    assert actor.asked == [{ROUTES: -1}, {ROUTES: 7}, {ROUTES: 7}]


async def test_one_that_is_away_is_asked_again_and_one_that_died_is_looked_for_anew() -> None:
    first = Actor(ActorUnavailableError("away", None), ActorDiedError())
    second = Actor(LongPollState.TIME_OUT)
    found = [first, second]
    controller = Controller(lambda: found.pop(0))
    with pytest.raises(ActorUnavailableError):
        await controller.newer(ONCE)
    assert found == [second]
    with pytest.raises(ActorDiedError):
        await controller.newer(ONCE)
    assert await controller.newer(ONCE) == {}
    assert found == []


async def test_one_that_says_nothing_is_looked_for_anew() -> None:
    silent, second = Actor(), Actor(LongPollState.TIME_OUT)
    found = [silent, second]
    controller = Controller(lambda: found.pop(0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(controller.newer(ONCE), 0.01)
    assert await controller.newer(ONCE) == {}


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
            await controller.newer(ONCE)
    free.set()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(TimeoutError):
                assert await controller.newer(ONCE) == {}
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
        await controller.newer(ONCE)
    assert await controller.newer(ONCE) == {}


async def test_replicas_come_from_the_controller_to_who_listens() -> None:
    told: list[Any] = []
    arrived = asyncio.Event()

    def take(found: Mapping[str, Sequence[Address]]) -> None:
        told.append(found)
        if found["a"]:
            arrived.set()

    told_in_turn = [
        {ROUTES: UpdatedObject({A: EndpointInfo(route="/a")}, 7, 0.0)},
        {replicas_of(A): UpdatedObject(targets(running(30000, "r1")), 7, 0.0)},
    ]
    actor = Actor(ActorUnavailableError("away", None), *told_in_turn)
    listening = ReplicaDiscovery(take, lambda: actor)
    listening.start()
    async with asyncio.timeout(10):
        await arrived.wait()
    assert told == [{"a": ()}, {"a": [Address("10.0.0.1", 30000, "r1")]}]
    assert listening.age() < 1.0
    listening.stop()
