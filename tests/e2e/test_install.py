"""From an empty cluster to the first token, in the tutorial's steps."""

from __future__ import annotations

import pytest

from tests.cluster.raycluster import Pod, status_of
from tests.e2e.models import NEVER, fails
from tests.e2e.release import RESTRICTED, Phases, Release
from tests.e2e.site import Data

pytestmark = pytest.mark.e2e
FIRST_TOKEN_S = 300
RAY_CLUSTER = "ray.io/cluster"
SILENT_S = 5.0
"""How long an object may have no condition once there is an operator."""
OBJECTS = {"servingclusters": "default", "modeldeployments": "smollm2", "modelroutes": "chat"}


def test_install_to_first_token_in_five_minutes(release: Release, phases: Phases) -> None:
    # The very first question after Ready: nobody asks twice.
    first, answer = release.first_token_s("What is the capital of France?")
    phases.reached(f"first token, {first:.2f} s after the question")
    assert "[DONE]" in answer
    assert phases.at["model and route ready"] + first < FIRST_TOKEN_S


def test_every_wait_named_its_reason_and_none_was_silent(release: Release, phases: Phases) -> None:
    record, runs = release.record, phases.started + phases.at["operator ready"]
    print(record)
    assert record.silent_waits() == []
    for kind, name in OBJECTS.items():
        assert record.silent_s(kind, name, runs) < SILENT_S, f"{kind}/{name}"


def test_nothing_was_ready_before_what_it_needs(release: Release) -> None:
    record = release.record
    cluster, model, route = (record.first_true(kind, name) for kind, name in OBJECTS.items())
    assert cluster is not None
    assert model is not None
    assert route is not None
    assert route >= model - 1  # two watches tell of one moment
    assert not [m for m in record.of("modeldeployments", "smollm2", "Ready") if m.at > model]


def test_a_model_that_cannot_start_says_so_and_kept_nobody_waiting(release: Release) -> None:
    release.wait("it failed", lambda: fails(release, NEVER), 240)
    assert "no_such_package" in release.condition(f"md/{NEVER}").message
    others = release.record.of("modeldeployments", "smollm2", "Ready")
    assert not [m for m in others if NEVER in m.message]
    release.kubectl("delete", f"md/{NEVER}", "--timeout=120s")


def test_kuberay_says_what_its_stand_in_says(release: Release) -> None:
    """Where real pods would take too long, `tests.cluster` plays KubeRay and Ray's autoscaler."""
    (cluster,) = release.get("rayclusters")["items"]
    pods = [Pod.of(pod) for pod in release.get("pods", f"--selector={RAY_CLUSTER}")["items"]]
    real, played = cluster["status"], status_of({**cluster, "status": {}}, pods)
    compared = played.keys() - {"conditions", "head"}
    assert {key: real.get(key) for key in compared} == {key: played[key] for key in compared}
    assert real["head"].items() >= played["head"].items()
    assert outcomes(real) >= outcomes(played)
    began = {(m.condition, m.status, m.reason) for m in release.record.moments if m.kind == "rayclusters"}
    assert outcomes(status_of({**cluster, "status": {}}, [])) <= began


def outcomes(status: Data) -> set[tuple[str, str, str]]:
    return {(each["type"], each["status"], each["reason"]) for each in status["conditions"]}


def test_pods_meet_restricted_pod_security(release: Release) -> None:
    labels = release.site.get("namespace", release.namespace)["metadata"]["labels"]
    assert labels.items() >= RESTRICTED.items()
    assert len(release.ready_pods("head")) == 1
    assert len(release.ready_pods("gateway")) == 2
    assert len(release.ready_pods("engine")) == 1


def test_gateways_and_operators_are_on_different_nodes(release: Release) -> None:
    operators = release.get("pods", "--selector=app.kubernetes.io/component=operator")["items"]
    for pods in (release.ready_pods("gateway"), operators):
        assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
