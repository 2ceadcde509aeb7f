"""What changes while everything serves: weights and keys within seconds, models, other Ray clusters."""

from __future__ import annotations

import secrets
import threading
import time

import httpx
import pytest

from tests.e2e.effect import SOON_S, UNAUTHORIZED, revoked_s, status_of, tenant, time_until, weight_s
from tests.e2e.load import nothing_lost, under_load
from tests.e2e.models import applied, fails, model
from tests.e2e.release import Release
from tests.e2e.site import Data

pytestmark = pytest.mark.e2e
LABEL = "example.com/generation"
"""Of a pool's pods: no engine's business, and in their template."""


def test_a_weight_is_in_force_within_seconds(release: Release) -> None:
    assert weight_s(release) < SOON_S


def test_a_revoked_key_opens_nothing_within_seconds(release: Release) -> None:
    assert revoked_s(release) < SOON_S


def test_a_revocation_wins_over_a_mistake_in_the_same_edit(release: Release) -> None:
    assert revoked_s(release, models=["no-such-model"]) < SOON_S


def test_a_key_that_is_replaced_in_its_secret_is_within_seconds(release: Release) -> None:
    urls = release.gateways()
    with tenant(release) as team:
        other = secrets.token_hex(32)
        release.apply(team.secret(other))
        took = time_until(lambda url: status_of(release, url, other) == httpx.codes.OK, urls)
        took += time_until(lambda url: status_of(release, url, team.key) == UNAUTHORIZED, urls)
        assert all(status_of(release, url, team.kept) == httpx.codes.OK for url in urls)
    print(f"key replaced after {took:.2f} s")
    assert took < SOON_S


def test_a_pools_pods_change_in_the_running_cluster_under_load(release: Release) -> None:
    clusters, (before,) = release.ray_clusters(), serving(release)
    with under_load(release.url(), release.key) as load:
        release.patch("scl/default", {"spec": {"pools": {"cpu": {"pod": {"labels": {LABEL: "next"}}}}}})
        release.wait("an engine with the label", lambda: followed(release, before, **{LABEL: "next"}), 300)
        took = release.wait("the old worker group is gone", lambda: len(cpu_groups(release)) == 1, 120)
        print(f"the old worker group is gone {took:.1f} s after its pod")
        load.until(10)
    nothing_lost(load)
    assert release.ray_clusters() == clusters


def test_gateways_pods_change_in_the_running_cluster_under_load(release: Release) -> None:
    """Also for callers who keep a connection and ask every 16 seconds."""
    clusters, before = release.ray_clusters(), pod_names(release, "gateway")
    with (
        under_load(release.url(), release.key, rate=0.5, kept=8) as calm,
        under_load(release.url(), release.key) as load,
    ):
        release.patch("scl/default", {"spec": {"gateway": {"pod": {"labels": {LABEL: "next"}}}}})
        took = release.wait("other gateways alone", lambda: gateways_followed(release, before), 300)
        print(f"other gateways serve alone after {took:.1f} s")
        load.until(10)
        calm.until(8)
    nothing_lost(load)
    nothing_lost(calm)
    assert release.ray_clusters() == clusters


def test_both_are_while_another_model_fails(release: Release) -> None:
    bad = model("failing", engine={"args": {"enforceEager": True, "kvCacheMemoryBytes": 1}})
    with applied(release, bad):
        release.wait("the model fails", lambda: fails(release, "failing"), 240)
        weight, revoked = weight_s(release), revoked_s(release)
        assert fails(release, "failing")
        assert release.condition("md/smollm2").status == "True"
    assert weight < SOON_S
    assert revoked < SOON_S


def test_both_are_while_a_second_cluster_is_pending_and_it_goes_when_the_change_does(
    release: Release,
) -> None:
    serving = release.ray_clusters()
    release.approve_upgrade("true")
    try:
        # No node has room for such a head: the second cluster stays pending.
        release.patch("scl/default", {"spec": {"head": {"memory": "64Gi"}}})
        release.wait("the second cluster is built", lambda: len(release.ray_clusters()) == 2, 30)
        assert release.condition("scl/default", "ClusterUpgrade").reason == "InProgress"
        weight, revoked = weight_s(release), revoked_s(release)
        assert len(release.ray_clusters()) == 2
        release.patch("scl/default", {"spec": {"head": {"memory": "3Gi"}}})
        gone = release.wait("its pods go", lambda: not pods_but_of(release, serving), 60)
        print(f"pods of the second cluster gone {gone:.1f} s after the change went")
        assert release.ray_clusters() == serving
    finally:
        release.approve_upgrade(None)
    assert weight < SOON_S
    assert revoked < SOON_S


def test_a_change_that_needs_a_second_cluster_is_held_and_said(release: Release) -> None:
    serving = release.ray_clusters()
    release.patch("scl/default", {"spec": {"head": {"memory": "3100Mi"}}})
    release.wait("it is held", lambda: upgrade_reason(release) == "Held", 20)
    assert "approve-upgrade" in release.condition("scl/default", "ClusterUpgrade").message
    time.sleep(2)  # nothing is to happen: there is no event to wait for
    assert release.ray_clusters() == serving
    release.patch("scl/default", {"spec": {"head": {"memory": "3Gi"}}})
    release.wait("nothing is held", lambda: upgrade_reason(release) == "NoUpgrade", 20)


def test_an_engine_argument_changes_under_load_successor_first(release: Release) -> None:
    (before,) = serving(release)
    with under_load(release.url(), release.key) as load:
        release.patch("md/smollm2", {"spec": {"engine": {"args": {"maxNumSeqs": 8}}}})
        took = release.wait("another engine alone", lambda: followed(release, before), 300)
        print(f"another engine serves alone after {took:.1f} s")
        load.until(10)
    nothing_lost(load)


def test_a_second_model_comes_and_goes_and_its_open_stream_ends_whole(release: Release) -> None:
    with under_load(release.url(), release.key, rate=1.0) as load:
        release.apply(model("second"))
        release.wait_ready("md/second", 240)
        assert release.ask(model="second").status_code == httpx.codes.OK
        ended: list[str] = []
        begun = threading.Event()
        stream = threading.Thread(target=lambda: ended.append(long_stream(release, "second", begun)))
        stream.start()
        assert begun.wait(30)
        started = time.monotonic()
        release.kubectl("delete", "md/second", "--timeout=180s")
        print(f"deleted in {time.monotonic() - started:.1f} s")
        stream.join(60)
        assert ended == ["whole"]
        release.wait("it is not served", lambda: release.ask(model="second").status_code == 404, 10)
    assert load.unhappy == [], load.summary()


def long_stream(release: Release, name: str, begun: threading.Event) -> str:
    """`whole` where a stream of many tokens came to its end; sets `begun` with the first."""
    body = {"model": name, "prompt": "Once", "max_tokens": 400, "stream": True, "ignore_eos": True}
    headers = {"authorization": f"Bearer {release.key}"}
    url = f"{release.url()}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120, trust_env=False) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            begun.set()
            if line == "data: [DONE]":
                return "whole"
    return "cut"


def serving(release: Release) -> list[Data]:
    """Pods that a replica of the tutorial's model is on, by the selector that its status gives to scalers."""
    selector = release.get("md/smollm2")["status"]["selector"]
    found: list[Data] = release.get("pods", f"--selector={selector}")["items"]
    return found


def followed(release: Release, before: Data, **labels: str) -> bool:
    """Whether the model is on one pod that has these labels, and not on the one of before."""
    if release.condition("md/smollm2").status != "True":
        return False
    pods = serving(release)
    names = {pod["metadata"]["name"] for pod in pods}
    fits = all(pod["metadata"]["labels"].items() >= labels.items() for pod in pods)
    return len(pods) == 1 and before["metadata"]["name"] not in names and fits


def pod_names(release: Release, role: str) -> set[str]:
    """Pods of Ray's in this role, those on their way out included."""
    found = release.get("pods", f"--selector=tradewind.dev/role={role}")["items"]
    return {pod["metadata"]["name"] for pod in found}


def gateways_followed(release: Release, before: set[str]) -> bool:
    return len(release.ready_pods("gateway")) == 2 and not before & pod_names(release, "gateway")


def cpu_groups(release: Release) -> list[str]:
    """Worker groups of the Ray cluster that are generations of pool `cpu`."""
    (cluster,) = release.get("rayclusters")["items"]
    names = [group["groupName"] for group in cluster["spec"]["workerGroupSpecs"]]
    return [name for name in names if name.startswith("pool-cpu-")]


def upgrade_reason(release: Release) -> str:
    return release.condition("scl/default", "ClusterUpgrade").reason


def pods_but_of(release: Release, names: set[str]) -> list[str]:
    """Pods of other Ray clusters than these, those on their way out included."""
    found = release.get("pods", "--selector=ray.io/cluster")["items"]
    return [
        pod["metadata"]["name"] for pod in found if pod["metadata"]["labels"]["ray.io/cluster"] not in names
    ]
