"""Deployments of the configuration and replicas of discovery come together, in whatever order they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.unit.gateway.asgi import config, deployment
from tradewind.api.steps import Steps, at_once
from tradewind.api.wire import DeploymentEntry
from tradewind.gateway.membership import Membership
from tradewind.routing.replica import ReplicaAddress


class At(NamedTuple):
    """Where discovery finds a replica."""

    host: str
    port: int
    replica: str


ONE, TWO = At("10.0.0.1", 1, "r1"), At("10.0.0.2", 2, "r2")
BOTH = config(deployments=[deployment("a"), deployment("b")])


class Rotation:
    """What it was told last."""

    def __init__(self) -> None:
        self.told: list[dict[str, list[ReplicaAddress]]] = []
        self.members = Membership(self._take, lambda host: host.replace("10.0.0.1", "127.0.0.1"))

    def _take(self, found: Mapping[DeploymentEntry, Sequence[ReplicaAddress]]) -> Steps[None]:
        yield
        yield
        self.told.append({entry.name: list(addresses) for entry, addresses in found.items()})


JOINED = {"a": [ReplicaAddress("127.0.0.1", 1, "r1")], "b": [ReplicaAddress("10.0.0.2", 2, "r2")]}


def test_replicas_that_were_found_first_wait_for_the_configuration() -> None:
    rotation = Rotation()
    rotation.members.found({"a": [ONE], "b": [TWO], "gone": [TWO]})
    assert rotation.told == []
    at_once(rotation.members.configured(BOTH))
    assert rotation.told == [JOINED]


def test_every_change_of_either_is_told_whole() -> None:
    rotation = Rotation()
    at_once(rotation.members.configured(BOTH))
    rotation.members.found({"a": [ONE], "b": [TWO]})
    rotation.members.found({"a": [ONE]})
    assert rotation.told == [{"a": [], "b": []}, JOINED, {"a": JOINED["a"], "b": []}]


@pytest.mark.parametrize("steps", range(1, 5))
def test_replicas_that_change_between_two_steps_are_told_as_they_are_in_the_end(steps: int) -> None:
    rotation = Rotation()
    rotation.members.found({"a": [ONE]})
    joining = rotation.members.configured(BOTH)
    for _ in range(steps):
        next(joining)
    rotation.members.found({"a": [ONE], "b": [TWO]})
    assert rotation.told == []
    at_once(joining)
    assert rotation.told == [JOINED]
    rotation.members.found({"a": [ONE]})
    assert rotation.told[-1] == {"a": JOINED["a"], "b": []}


def test_a_change_after_one_that_was_given_up_is_told() -> None:
    rotation = Rotation()
    joining = rotation.members.configured(BOTH)
    next(joining)
    joining.close()
    rotation.members.found({"a": [ONE], "b": [TWO]})
    assert rotation.told == [JOINED]
