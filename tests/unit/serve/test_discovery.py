"""The adapter to Serve's private interface, held to the installed Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve._private.common import RequestProtocol
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace, UpdatedObject
from ray.serve.schema import Target, TargetGroup

from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.serve import discovery
from tradewind.serve.discovery import HOLD_S, RECOVERY_S, Address, Held, _Listener, addresses_by_app


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


def test_the_installed_ray_has_what_discovery_listens_to() -> None:
    assert LongPollNamespace.TARGET_GROUPS.name == "TARGET_GROUPS"
    parameters = LongPollClient.__init__.__annotations__
    assert {"host_actor", "key_listeners", "call_in_event_loop", "client_id"} <= parameters.keys()


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


class Listening:
    """A listener of the installed Ray's on a controller that answers what it is told."""

    def __init__(self) -> None:
        self.new = 0
        self.told: list[Any] = []
        self.client = _Listener(
            self, {"groups": self.told.append}, asyncio.get_running_loop(), client_id="g", on_new=self._count
        )

    def _count(self) -> None:
        self.new += 1

    @property
    def listen_for_change(self) -> Listening:
        return self

    def remote(self, snapshot_ids: dict[str, int]) -> Listening:
        self.asked = dict(snapshot_ids)
        return self

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        self.answer = callback

    async def tell(self, number: int) -> None:
        await asyncio.sleep(0)  # it polls in the event loop
        self.answer({"groups": UpdatedObject(number, number, 0.0)})
        await asyncio.sleep(0.01)


async def test_another_controller_is_told_by_the_number_of_its_change() -> None:
    listening = Listening()
    for number in (500, 501, 510):
        await listening.tell(number)
    assert (listening.told, listening.new, listening.asked) == ([500, 501, 510], 0, {"groups": 510})
    await listening.tell(7)
    assert (listening.told[-1], listening.new) == (7, 1)
    await listening.tell(900_000)
    assert listening.new == 2


@pytest.mark.parametrize("error", [ActorUnavailableError("away", None), ConnectionError("away")])
async def test_it_listens_again_when_the_controller_was_away(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_AGAIN_S", 0.0)
    listening = Listening()
    await listening.tell(1)
    listening.asked = {}
    listening.answer(error)
    await asyncio.sleep(0.05)
    assert listening.asked == {"groups": 1}
    await listening.tell(2)
    assert listening.told == [1, 2]
    listening.client.stop()
