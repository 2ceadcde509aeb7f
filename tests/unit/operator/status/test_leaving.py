"""Status tells which pods leave, and that a full pool has no room for a successor before they are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.policy.objects import decided, platform
from tests.unit.operator.status.scenes import ACTIVE, condition, live, ray, seen, statuses, text
from tradewind_operator.planning.moves import Moves
from tradewind_operator.status.leaving import LeavingGroup, leaving_of, leaving_said
from tradewind_operator.status.pods import PodSeen
from tradewind_operator.status.raycluster import RayClusterState

GROUP, GATEWAYS = "pool-cpu-0a1b2c3d", "gateway-0a1b2c3d"


def pod(name: str, *models: str, group: str = GROUP, ending: bool = False, ready: bool = True) -> PodSeen:
    return PodSeen(name, ACTIVE, group, "", ready, ending, frozenset(models))


def going(name: str, *models: str, **more: Any) -> PodSeen:
    return pod(name, *models, ending=True, **more)


def cluster(**sizes: int) -> dict[str, Any]:
    groups = [{"groupName": f"{name}-0a1b2c3d", "maxReplicas": most} for name, most in sizes.items()]
    return {"metadata": {"name": ACTIVE}, "spec": {"workerGroupSpecs": groups}}


def only(pods: list[PodSeen], most: int) -> LeavingGroup:
    manifest = cluster(**{"pool-cpu": most, "gateway": 2})
    (found,) = leaving_of(manifest, pods)
    return found


@pytest.mark.parametrize(
    ("pods", "most", "full"),
    [
        ([going("a", "llama")], 1, True),
        ([going("a", "llama"), pod("b", "mistral")], 2, True),
        ([going("a", "llama"), pod("b", "mistral")], 3, False),
        ([going("a", "llama"), pod("b", ready=False)], 2, False),
        ([going("a", "llama"), going("b", ready=False)], 2, True),
        ([going("a"), pod("b", "mistral")], 2, False),
        ([going("a", "llama")], 0, False),
        ([going("g", group=GATEWAYS), pod("h", group=GATEWAYS)], 2, False),
        ([going("a", "llama"), replace(pod("b"), ray_cluster="another")], 2, False),
    ],
    ids=["the only one", "one of two", "room for a third", "a successor's pod comes", "another goes, too",
         "nothing runs on it", "a pool that is emptied", "a gateway", "another cluster's pods"],
)  # fmt: skip
def test_a_pool_is_full_when_no_pod_can_come_before_this_one_is_gone(
    pods: list[PodSeen], most: int, full: bool
) -> None:
    assert only(pods, most).has_no_room is full


def test_a_group_without_pods_that_leave_is_not_told_of() -> None:
    assert leaving_of(cluster(**{"pool-cpu": 1}), [pod("a", "llama")]) == ()
    assert leaving_said((), {}) == ""


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        (
            [going("a", "llama")],
            "On their way out: a of pool cpu. Answers that have begun end first. "
            "Pool cpu is full (pods: 1, maxNodes: 1): no successor of llama can start before a is gone. "
            "Without a successor a replica soon takes nothing new, and ends what it has within 120 s, "
            "the drain.timeout.",
        ),
        (
            [going("b", "mistral"), going("a", "llama")],
            "On their way out: a, b of pool cpu. Answers that have begun end first. "
            "Pool cpu is full (pods: 2, maxNodes: 2): no successor of llama, mistral can start before "
            "those 2 are gone. Without a successor a replica soon takes nothing new, and ends what it has "
            "within 600 s, the drain.timeout.",
        ),
        (
            [going("a", "gone"), pod("b")],
            "On their way out: a of pool cpu. Answers that have begun end first. "
            "Pool cpu is full (pods: 2, maxNodes: 2): a successor of gone that fits on none of its other "
            "pods cannot start before a is gone. Without a successor a replica soon takes nothing new, and "
            "ends what it has within the drain.timeout of its model.",
        ),
        (
            [going("g", group=GATEWAYS), going("h", group="headgroup")],
            "On their way out: g of the gateways; h of the head. Answers that have begun end first.",
        ),
    ],
    ids=["the only pod", "the longest drain", "a model that nobody knows", "no engines"],
)
def test_what_is_said_of_them(pods: list[PodSeen], said: str) -> None:
    engines = sum(one.group == GROUP for one in pods)
    groups = leaving_of(cluster(**{"pool-cpu": engines}), pods)
    assert leaving_said(groups, {"llama": 120, "mistral": 600, "another": 3_600}) == said


def test_where_there_is_room_a_replica_waits_for_its_successor() -> None:
    manifest = cluster(**{"pool-a": 1, "pool-b": 2})
    pods = [going("a", "llama", group="pool-a-0a1b2c3d"), going("b", "llama", group="pool-b-0a1b2c3d")]
    said = leaving_said(leaving_of(manifest, pods), {})
    assert said.startswith("On their way out: a of pool a; b of pool b.")
    assert "Pool a is full" in said
    assert "Pool b" not in said
    assert said.endswith("Where its pool has room, a replica waits for its successor.")


def status(moves: Moves, pods: list[PodSeen]) -> Mapping[str, Any]:
    decision = decided(*platform())
    leaving = RayClusterState.of(cluster(**{"pool-cpu": 1}), pods).leaving
    observation = seen(decision, replace(live(decision), moves=moves), ray(leaving=leaving))
    return statuses(observation)["ServingCluster", "default"]


@pytest.mark.parametrize(
    ("moves", "expected", "begins"),
    [
        (
            Moves(),
            ("True", "Leaving"),
            "Everything runs on pods as they are wanted now. On their way out: a ",
        ),
        (Moves(moving=("llama",)), ("False", "Moving"), "The pods have changed. On their way to new ones: "),
        (Moves(failed=("llama",), waiting=("mistral",)), ("False", "MoveFailed"), "llama cannot start on "),
    ],
    ids=["nothing else", "models move", "a model cannot move"],
)
def test_a_full_pool_is_told_whatever_models_do(moves: Moves, expected: tuple[str, str], begins: str) -> None:
    decision = decided(*platform())
    assert decision.compiled is not None
    model, settings = next(iter(decision.compiled.engines.items()))
    found = status(moves, [going("a", model)])
    assert condition(found, "PodsCurrent") == expected
    said = text(found, "PodsCurrent")
    assert said.startswith(begins)
    assert f"Pool cpu is full (pods: 1, maxNodes: 1): no successor of {model} can start before a is" in said
    assert said.endswith(f"within {settings.drain_timeout_s:g} s, the drain.timeout.")
    assert condition(status(moves, [pod("a", model)]), "PodsCurrent")[1] == (
        "Current" if expected[1] == "Leaving" else expected[1]
    )
