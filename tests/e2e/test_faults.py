"""What is lost when something is: streams at 3 requests a second, by a client that never asks twice.

Nothing that had not begun to stream may be lost, and no stream may be cut without an error event. What a
fault may cost beyond that, its test says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.effect import SOON_S, revoked_s, weight_s
from tests.e2e.load import RATE, nothing_lost, under_load
from tests.e2e.models import API, applied
from tests.e2e.release import Release
from tests.e2e.site import Data

pytestmark = pytest.mark.e2e
AFTER = 30
"""Answers that are waited for once a fault is over."""
DOWN_S = 60


@pytest.fixture(scope="module", autouse=True)
def two_engines(release: Release) -> Iterator[None]:
    """The model has two replicas, on a node each."""
    # A way through kubectl, as to another cluster, would end with the pod that it leads to.
    release.site.own()
    with applied(release, scaler(2)):
        release.wait("two engines", lambda: ready_replicas(release) == 2, 240)
        yield
        # By the scaler again: what it has begun it ends, also when it is deleted meanwhile.
        release.apply(scaler(1))
        # One may be there for the moment only, because the other is being replaced.
        release.wait("one engine is wanted", lambda: release.get("md/smollm2")["spec"]["replicas"] == 1, 120)
        release.wait("one engine", lambda: ready_replicas(release) == 1, 120)


@pytest.fixture(autouse=True)
def whole(release: Release) -> None:
    """Everything is as it should be before a fault."""
    release.wait("two gateways", lambda: len(release.ready_pods("gateway")) == 2, 180)
    release.wait("two engines", lambda: ready_replicas(release) == 2, 240)
    release.wait("no pod is leaving", lambda: not leaving(release), 240)
    release.wait("the head", lambda: release.condition("scl/default", "HeadReady").status == "True", 120)


def test_the_scalers_selector_finds_the_models_pods(release: Release) -> None:
    """An HorizontalPodAutoscaler asked for two, and would measure these."""
    selector = release.get("md/smollm2")["status"]["selector"]
    found = release.get("pods", f"--selector={selector}")["items"]
    ready = release.ready_pods("engine")
    assert len(ready) == 2
    assert {pod["metadata"]["name"] for pod in found} == {pod["metadata"]["name"] for pod in ready}


def test_a_pool_that_is_made_smaller_than_it_is_used_costs_nothing(release: Release) -> None:
    serve = [pod["metadata"]["name"] for pod in release.pods("engine")]
    with under_load(release.url(), release.key) as load:
        try:
            release.patch("scl/default", {"spec": {"pools": {"cpu": {"maxNodes": 1}}}})
            # Three looks of Ray's autoscaler, which would end a pod above the size at once.
            load.until(round(15 * RATE))
            assert [pod["metadata"]["name"] for pod in release.pods("engine")] == serve
        finally:
            release.patch("scl/default", {"spec": {"pools": {"cpu": {"maxNodes": 2}}}})
    nothing_lost(load)


def test_a_deleted_gateway_pod_costs_nothing(release: Release) -> None:
    with under_load(release.url(), release.key) as load:
        delete(release, "gateway")
        release.wait("another gateway", lambda: len(release.ready_pods("gateway")) == 2, 180)
        load.until(AFTER)
    nothing_lost(load)


def test_a_deleted_engine_pod_of_two_costs_nothing(release: Release) -> None:
    with under_load(release.url(), release.key) as load:
        delete(release, "engine")
        release.wait("one engine is gone", lambda: ready_replicas(release) < 2, 120)
        release.wait("another engine", lambda: ready_replicas(release) == 2, 300)
        load.until(AFTER)
    nothing_lost(load)


def test_a_killed_engine_costs_the_streams_that_it_had_and_tells_them(release: Release) -> None:
    with under_load(release.url(), release.key) as load:
        (victim, *_) = release.ready_pods("engine")
        release.kubectl("delete", f"pod/{victim['metadata']['name']}", "--grace-period=0", "--force")
        release.wait("another engine", lambda: ready_replicas(release) == 2, 300)
        load.until(AFTER)
    nothing_lost(load, may_fail=True)


def test_a_drained_node_costs_nothing(release: Release) -> None:
    pod = release.ready_pods("engine")[0]
    node, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
    with under_load(release.url(), release.key) as load, ThreadPoolExecutor(1) as beside:
        try:
            drained = beside.submit(release.site.drain, node)
            release.wait("status tells what leaves", lambda: name in leaving_told(release), 30)
            # Both nodes for engines are taken: the one that goes can have no successor first.
            assert "Pool cpu is full" in leaving_told(release)
            print(f"drained in {drained.result():.1f} s")
            load.until(AFTER)
        finally:
            release.site.kubectl("uncordon", node)
    nothing_lost(load)


def test_a_node_that_loses_its_power_costs_the_streams_that_it_had_and_tells_them(release: Release) -> None:
    bed = release.site.own()
    node = release.ready_pods("engine")[0]["spec"]["nodeName"]
    with under_load(release.url(), release.key) as load:
        try:
            bed.lose(node)
            load.until(AFTER, timeout_s=180)
        finally:
            bed.bring_back(node)
        release.wait("two engines", lambda: ready_replicas(release) == 2, 400)
    nothing_lost(load, may_fail=True)


def test_a_killed_operator_costs_nothing(release: Release) -> None:
    selector = "--selector=app.kubernetes.io/component=operator"
    with under_load(release.url(), release.key) as load:
        release.kubectl("delete", "pods", selector, "--grace-period=0", "--force")
        release.kubectl("rollout", "status", "deployment/tradewind-operator", "--timeout=120s")
        load.until(AFTER)
    nothing_lost(load)


def test_an_api_server_that_is_down_for_a_minute_costs_nothing(release: Release) -> None:
    bed = release.site.own()
    with under_load(release.url(), release.key) as load:
        with bed.outage():
            time.sleep(DOWN_S)  # the length of the outage is what is tested
        release.wait("the API server answers", lambda: len(release.ready_pods("gateway")) == 2, 120)
        load.until(AFTER)
    nothing_lost(load)


def test_a_kuberay_that_is_down_costs_nothing(release: Release) -> None:
    kuberay = ("--namespace=kuberay-system", "deployment/kuberay-operator")
    release.site.kubectl("scale", *kuberay, "--replicas=0")
    try:
        with under_load(release.url(), release.key) as load:
            weight, revoked = weight_s(release), revoked_s(release)
            load.until(AFTER)
    finally:
        release.site.kubectl("scale", *kuberay, "--replicas=1")
    nothing_lost(load)
    assert weight < SOON_S
    assert revoked < SOON_S


def scaler(replicas: int) -> Data:
    """An HorizontalPodAutoscaler that wants so many of the model, whatever it measures."""
    target = {"apiVersion": API, "kind": "ModelDeployment", "name": "smollm2"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "smollm2"},
        "spec": {"scaleTargetRef": target, "minReplicas": replicas, "maxReplicas": replicas},
    }


def ready_replicas(release: Release) -> int:
    """Of the model, as its status has them."""
    return int(release.get("md/smollm2").get("status", {}).get("readyReplicas", 0))


def leaving_told(release: Release) -> str:
    """What the ServingCluster says of pods that leave."""
    found = release.condition("scl/default", "PodsCurrent")
    return found.message if found.reason == "Leaving" else ""


def leaving(release: Release) -> list[str]:
    """Pods of Ray's that are on their way out."""
    found = release.get("pods", "--selector=ray.io/cluster")["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" in pod["metadata"]]


def delete(release: Release, role: str) -> None:
    """Take one pod away as a person would, without waiting for it."""
    (victim, *_) = release.ready_pods(role)
    release.kubectl("delete", f"pod/{victim['metadata']['name']}", "--wait=false")
