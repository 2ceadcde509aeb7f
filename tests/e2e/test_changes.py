"""What changes while everything serves: weights and keys within seconds, models, other Ray clusters."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.load import under_load
from tests.e2e.models import API, applied, fails, model
from tests.e2e.release import Release

pytestmark = pytest.mark.e2e
SOON_S = 3.0
"""How long a weight or a revoked key may take to be in force in every gateway."""
UNAUTHORIZED = 401


def test_a_weight_is_in_force_within_seconds(release: Release) -> None:
    assert weight_s(release) < SOON_S


def test_a_revoked_key_opens_nothing_within_seconds(release: Release) -> None:
    assert revoked_s(release) < SOON_S


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
    serving = ray_clusters(release)
    approve(release, "true")
    try:
        release.patch("scl/default", {"spec": {"head": {"memory": "3100Mi"}}})
        release.wait("the second cluster is built", lambda: len(ray_clusters(release)) == 2, 30)
        assert release.condition("scl/default", "ClusterUpgrade").reason == "InProgress"
        weight, revoked = weight_s(release), revoked_s(release)
        assert len(ray_clusters(release)) == 2
        release.patch("scl/default", {"spec": {"head": {"memory": "3Gi"}}})
        gone = release.wait("its pods go", lambda: not pods_but_of(release, serving), 60)
        print(f"pods of the second cluster gone {gone:.1f} s after the change went")
        assert ray_clusters(release) == serving
    finally:
        approve(release, None)
    assert weight < SOON_S
    assert revoked < SOON_S


def test_a_change_that_needs_a_second_cluster_is_held_and_said(release: Release) -> None:
    serving = ray_clusters(release)
    release.patch("scl/default", {"spec": {"head": {"memory": "3100Mi"}}})
    release.wait("it is held", lambda: upgrade_reason(release) == "Held", 20)
    assert "approve-upgrade" in release.condition("scl/default", "ClusterUpgrade").message
    time.sleep(2)  # nothing is to happen: there is no event to wait for
    assert ray_clusters(release) == serving
    release.patch("scl/default", {"spec": {"head": {"memory": "3Gi"}}})
    release.wait("nothing is held", lambda: upgrade_reason(release) == "NoUpgrade", 20)


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


def weight_s(release: Release) -> float:
    """Seconds from a patch that gives all of `chat` to another variant until every gateway does."""
    control, other = {"name": "control", "deployment": "smollm2"}, f"v{secrets.token_hex(3)}"
    moved = {"name": other, "deployment": "smollm2", "weight": 1}
    urls = release.gateways()
    assert len(urls) == 2
    release.patch("mr/chat", {"spec": {"variants": [{**control, "weight": 0}, moved]}})
    took = time_until(lambda url: variant(release, url) == other, urls)
    release.patch("mr/chat", {"spec": {"variants": [control]}})
    time_until(lambda url: variant(release, url) == "control", urls)
    print(f"weight in force after {took:.2f} s")
    return took


def revoked_s(release: Release) -> float:
    """Seconds from a patch that takes a key out of a Tenant until no gateway takes it."""
    name, kept, key = f"t{secrets.token_hex(3)}", secrets.token_hex(32), secrets.token_hex(32)
    urls = release.gateways()
    assert len(urls) == 2
    references = [{"secret": {"name": name, "key": each}} for each in ("kept", "revoked")]
    tenant = {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": {"keys": references}}
    data = {
        "kept": base64.b64encode(kept.encode()).decode(),
        "revoked": base64.b64encode(key.encode()).decode(),
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    with applied(release, secret, tenant):
        time_until(lambda url: release.ask(url, key=key, tokens=1).status_code == httpx.codes.OK, urls)
        release.patch(f"tn/{name}", {"spec": {"keys": references[:1]}})
        took = time_until(lambda url: release.ask(url, key=key, tokens=1).status_code == UNAUTHORIZED, urls)
        assert all(release.ask(url, key=kept, tokens=1).status_code == httpx.codes.OK for url in urls)
    print(f"key revoked after {took:.2f} s")
    return took


def time_until(true: Callable[[str], bool], urls: list[str], timeout_s: float = 30.0) -> float:
    """Seconds until it is true of every URL. Raises AssertionError."""
    started = time.monotonic()
    for url in urls:
        while not true(url):
            assert time.monotonic() - started < timeout_s, f"not within {timeout_s:.0f} s at {url}"
    return time.monotonic() - started


def variant(release: Release, url: str) -> str:
    """The variant of `chat` that a gateway chose."""
    return release.ask(url, tokens=1).headers.get("x-tradewind-variant", "")


def upgrade_reason(release: Release) -> str:
    return release.condition("scl/default", "ClusterUpgrade").reason


def ray_clusters(release: Release) -> set[str]:
    return {each["metadata"]["name"] for each in release.get("rayclusters")["items"]}


def pods_but_of(release: Release, names: set[str]) -> list[str]:
    """Pods of other Ray clusters than these, those on their way out included."""
    found = release.get("pods", "--selector=ray.io/cluster")["items"]
    return [
        pod["metadata"]["name"] for pod in found if pod["metadata"]["labels"]["ray.io/cluster"] not in names
    ]


def approve(release: Release, value: str | None) -> None:
    """Set or take away the annotation that approves a second cluster."""
    release.patch("scl/default", {"metadata": {"annotations": {"tradewind.dev/approve-upgrade": value}}})
