"""From an empty cluster to the first token, by the tutorial's commands."""

from __future__ import annotations

import pytest

from tests.e2e.release import RESTRICTED, Phases, Release

pytestmark = pytest.mark.e2e
FIRST_TOKEN_S = 300


def test_install_to_first_token_in_five_minutes(release: Release, phases: Phases) -> None:
    # The very first question after Ready: nobody asks twice.
    first, answer = release.first_token_s("What is the capital of France?")
    phases.reached(f"first token, {first:.2f} s after the question")
    assert "[DONE]" in answer
    assert phases.at["model and route ready"] + first < FIRST_TOKEN_S


def test_every_wait_named_its_reason(release: Release) -> None:
    print(release.record)
    assert release.record.silent_waits() == []


def test_nothing_was_ready_before_what_it_needs(release: Release) -> None:
    record = release.record
    cluster = record.first_true("servingclusters", "default")
    model = record.first_true("modeldeployments", "smollm2")
    route = record.first_true("modelroutes", "chat")
    assert cluster is not None
    assert model is not None
    assert route is not None
    assert route >= model - 1  # two watches tell of one moment
    assert not [m for m in record.of("modeldeployments", "smollm2", "Ready") if m.at > model]


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
