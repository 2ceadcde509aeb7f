"""A model on its way says what it waits for, and KubeRay's half sentences are made whole."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.policy.objects import decided, platform
from tests.unit.operator.status.scenes import ACTIVE, app, live, ray, seen, statuses
from tradewind_operator.status.pods import PodSeen, waits_of
from tradewind_operator.status.raycluster import RayClusterState


def pod(group: str = "pool-cpu-0a1b2c3d", **more: Any) -> PodSeen:
    return PodSeen(**{  # type: ignore[arg-type]
        "name": "a", "ray_cluster": ACTIVE, "group": group, "address": "", "ready": False, "ending": False,
        "models": frozenset(), **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], {}),
        ([pod()], {"pool-cpu": "it starts"}),
        ([pod(problem="ImagePullBackOff: not-there")], {"pool-cpu": "ImagePullBackOff: not-there"}),
        ([pod(problem="Unschedulable"), pod(ready=True)], {"pool-cpu": ""}),
        ([pod(ready=True), pod(problem="Unschedulable")], {"pool-cpu": ""}),
        ([pod(ending=True), pod("headgroup"), pod(ray_cluster="another")], {}),
    ],
    ids=["no pod", "a pod on its way", "one in trouble", "one of two", "and in this order", "others"],
)
def test_a_pool_tells_why_no_pod_of_it_is_ready(pods: list[PodSeen], said: dict[str, str]) -> None:
    assert waits_of(pods, ACTIVE) == said


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        ({}, "0 of 1 replicas run, and pool cpu has no pod for it yet."),
        ({"pool-cpu": "Unschedulable: no room"}, "no pod of pool cpu is ready: Unschedulable: no room."),
        ({"pool-cpu": ""}, "the engine starts, or waits for room on a pod of pool cpu."),
    ],
    ids=["no pod", "a pod in trouble", "a pod"],
)
def test_a_model_that_is_being_deployed_says_what_it_waits_for(waits: dict[str, str], said: str) -> None:
    decision = decided(*platform())
    assert decision.compiled is not None
    (name, pool), *_ = decision.compiled.pools.items()
    found = seen(decision, live(decision, app(name, "DEPLOYING", running=0)), ray(waits={
        kind.replace("cpu", pool): text for kind, text in waits.items()
    }))  # fmt: skip
    (ready,) = [
        each for each in statuses(found)["ModelDeployment", name]["conditions"] if each["type"] == "Ready"
    ]
    assert ready["reason"] == "Deploying"
    assert ready["message"].endswith(said.replace("pool cpu", f"pool {pool}"))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Unknown", "KubeRay does not know yet"),
        ("containers with unready status: [ray autoscaler]; autoscaler: ",
         "containers with unready status: [ray autoscaler]"),
        ("containers with unready status: [ray]", "containers with unready status: [ray]"),
    ],
)  # fmt: skip
def test_a_half_sentence_of_kuberays_is_made_whole(message: str, said: str) -> None:
    condition = {"type": "HeadPodReady", "status": "False", "reason": "Starting", "message": message}
    cluster = {"metadata": {"name": ACTIVE}, "status": {"conditions": [condition]}}
    assert RayClusterState.of(cluster).why == said
