"""How long an engine's node waits for successors: while there is room, and no longer than that."""

from __future__ import annotations

from typing import Any

import pytest
from ray.core.generated.autoscaler_pb2 import AutoscalingState

from tradewind.serve.successors import ROOM_S, SUCCESSOR_S, Leaving, Seen, look, pods_come

HERE, THERE = "a" * 56, "b" * 56


def answer(*replicas: tuple[str, str | None], drain_s: float = 300) -> dict[str, Any]:
    """Serve's REST answer for one application with these replicas' states and nodes."""
    found = [{"state": state, "node_id": node} for state, node in replicas]
    deployment = {"deployment_config": {"graceful_shutdown_timeout_s": drain_s}, "replicas": found}
    return {
        "controller_info": {"node_id": THERE},
        "applications": {"llama": {"deployments": {"engine": deployment}}},
    }


def seen(*, successors: bool = False, pods: bool = False, replicas: int = 1) -> Seen:
    return Seen(replicas=replicas, stopping=0, drain_s=300, has_successors=successors, pods_come=pods)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([("PENDING_MIGRATION", HERE), ("STARTING", None)], (1, 0, False)),
        ([("PENDING_MIGRATION", HERE), ("STARTING", THERE)], (1, 0, True)),
        ([("PENDING_MIGRATION", HERE), ("PENDING_MIGRATION", HERE), ("STARTING", THERE)], (2, 0, False)),
        ([("PENDING_MIGRATION", HERE), ("RUNNING", THERE)], (1, 0, False)),
        ([("STOPPING", HERE), ("RUNNING", THERE)], (0, 1, False)),
        ([("RUNNING", THERE)], (0, 0, False)),
    ],
    ids=["nowhere to go", "placed", "one of two placed", "another replica is no successor", "ends", "empty"],
)
def test_what_is_seen_of_a_node(replicas: list[Any], expected: tuple[int, int, bool]) -> None:
    found = look(answer(*replicas), HERE, pods_come=False)
    assert (found.replicas, found.stopping, found.has_successors) == expected
    assert found.drain_s == (300 if any(node == HERE for _, node in replicas) else 0)


def test_a_full_pool_shortens_the_wait_to_the_drain_time_out() -> None:
    leaving = Leaving(started=0)
    assert leaving.deadline(seen(), 1) is None
    assert leaving.deadline(seen(), ROOM_S) is None
    found = leaving.deadline(seen(), 1 + ROOM_S)
    assert found is not None
    assert found[0] == 1 + ROOM_S + 300
    assert "no room" in found[1]
    assert leaving.deadline(seen(), 2 + ROOM_S) is None  # said once


@pytest.mark.parametrize("room", [{"successors": True}, {"pods": True}], ids=["placed", "a pod comes"])
def test_room_that_comes_late_is_waited_for(room: dict[str, bool]) -> None:
    leaving = Leaving(started=0)
    assert leaving.deadline(seen(), 0) is None
    assert leaving.deadline(seen(**room), ROOM_S - 1) is None
    assert leaving.deadline(seen(), ROOM_S) is None  # the count begins anew
    assert leaving.deadline(seen(**room), 10 * ROOM_S) is None


def test_a_successor_that_never_gets_ready_is_not_waited_for_for_ever() -> None:
    leaving = Leaving(started=100)
    assert leaving.deadline(seen(successors=True), 99 + SUCCESSOR_S) is None
    found = leaving.deadline(seen(successors=True), 100 + SUCCESSOR_S)
    assert found is not None
    assert found[0] == 100 + SUCCESSOR_S + 300
    assert "no successor was ready" in found[1]


def test_a_node_that_only_ends_what_it_has_gets_no_new_deadline() -> None:
    assert Leaving(started=0).deadline(seen(replicas=0), 10 * SUCCESSOR_S) is None


@pytest.mark.parametrize(
    ("state", "come"),
    [
        ({}, False),
        ({"pending_instance_requests": [("pool-a", 1_000)]}, True),
        ({"pending_instance_requests": [("pool-b", 1_000)]}, False),
        ({"pending_instances": ["pool-a"]}, True),
        ({"pending_instances": ["pool-b"]}, False),
        # What a full pool looks like: KubeRay refuses, and the autoscaler asks again with every look.
        ({"pending_instance_requests": [("pool-a", 1_005)], "failed": [("pool-a", 1_005)]}, False),
        ({"pending_instance_requests": [("pool-a", 1_005)], "failed": [("pool-a", 1_000), ("pool-a", 1_005)]},
         False),
        # Refused a while ago; meanwhile there is room.
        ({"pending_instance_requests": [("pool-a", 1_100)], "failed": [("pool-a", 1_000)]}, True),
        ({"pending_instance_requests": [("pool-a", 1_005)], "failed": [("pool-b", 1_005)]}, True),
        ({"pending_instances": ["pool-a"], "failed": [("pool-a", 1_005)]}, True),
    ],
    ids=["nothing", "asked", "for another", "on its way", "another is", "refused", "again and again",
         "once", "another was", "but one comes"],
)  # fmt: skip
def test_a_pod_comes_while_the_autoscaler_is_not_refused(state: dict[str, Any], come: bool) -> None:
    found = AutoscalingState()
    for kind, at in state.get("pending_instance_requests", ()):
        found.pending_instance_requests.add(ray_node_type_name=kind, count=1, request_ts=at)
    for kind in state.get("pending_instances", ()):
        found.pending_instances.add(ray_node_type_name=kind)
    for kind, at in state.get("failed", ()):
        found.failed_instance_requests.add(ray_node_type_name=kind, count=1, failed_ts=at)
    assert pods_come(found, "pool-a") is come


def test_replicas_that_serve_takes_up_again_are_not_taken_for_gone() -> None:
    found = look(answer(("RECOVERING", None), ("RECOVERING", THERE)), HERE, pods_come=False)
    assert (found.replicas, found.stopping, found.unknown) == (0, 0, 1)


def test_an_answer_without_a_controller_says_nothing_of_replicas() -> None:
    with pytest.raises(ValueError, match="no controller"):
        look({"controller_info": {}, "applications": {}}, HERE, pods_come=False)


def test_that_there_was_no_room_is_forgotten_while_the_head_is_away() -> None:
    leaving = Leaving(started=0)
    assert leaving.deadline(seen(), 0) is None
    leaving.forget()
    assert leaving.deadline(seen(), ROOM_S + 1) is None
    assert leaving.deadline(seen(), 2 * ROOM_S + 1) is not None
