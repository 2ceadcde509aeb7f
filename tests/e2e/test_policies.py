"""Who reaches whom: the policies of a release, on a network that enforces them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e import pods
from tests.e2e.bed.plan import HOST
from tests.e2e.pods import Pod
from tests.e2e.release import Release

pytestmark = pytest.mark.e2e
RAY = {
    "GCS": 6379,
    "the dashboard": 8265,
    "the agent": 52365,
    "the agent's gRPC": 8266,
    "the agent of environments": 8267,
    "a replica": 30000,
}
"""Ports of Ray, none of which a stranger may reach."""


@pytest.fixture(scope="module")
def stranger(release: Release) -> Iterator[Pod]:
    """A pod of another namespace."""
    with release.site.namespace() as name:
        yield pods.start(release.site, name, "stranger")


@pytest.fixture(scope="module")
def neighbour(release: Release) -> Iterator[Pod]:
    """A pod of the release's own namespace."""
    pod = pods.start(release.site, release.namespace, "neighbour")
    yield pod
    pod.delete()


@pytest.mark.parametrize("who", ["stranger", "neighbour"])
def test_engines_and_head_are_reached_by_nobody_else(
    release: Release, who: str, request: pytest.FixtureRequest
) -> None:
    pod: Pod = request.getfixturevalue(who)
    (head,), (engine,) = release.ready_pods("head"), release.ready_pods("engine")
    for owner in (head, engine):
        address = owner["status"]["podIP"]
        assert [name for name, port in RAY.items() if pod.connects(address, port)] == []


@pytest.mark.parametrize("who", ["stranger", "neighbour"])
def test_the_endpoint_is_reached_and_asks_for_a_key(
    release: Release, who: str, request: pytest.FixtureRequest
) -> None:
    pod: Pod = request.getfixturevalue(who)
    assert pod.reaches(f"http://default.{release.namespace}.svc:8000/healthz")
    assert release.ask(key="not-a-key-of-anybody").status_code == httpx.codes.UNAUTHORIZED
    for gateway in release.ready_pods("gateway"):
        assert [name for name, port in RAY.items() if pod.connects(gateway["status"]["podIP"], port)] == []


def test_a_gateway_reaches_engines_and_the_head_and_no_one_outside(release: Release) -> None:
    gateway = release.own_pod("gateway")
    (head,), (engine,) = release.ready_pods("head"), release.ready_pods("engine")
    assert gateway.connects(head["status"]["podIP"], RAY["GCS"])
    assert gateway.connects(engine["status"]["podIP"], RAY["the agent"])
    release.site.own()
    with pods.serving(HOST) as url:
        assert not gateway.reaches(url)


def test_an_engine_reaches_no_one_outside_but_by_https(release: Release) -> None:
    release.site.own()
    with pods.serving(HOST) as url:
        assert not release.own_pod("engine").reaches(url)


@pytest.mark.parametrize("role", ["head", "gateway", "engine"])
def test_every_pod_asks_for_names(release: Release, role: str) -> None:
    script = "import socket; socket.getaddrinfo('default', 8000)"
    release.own_pod(role).run("python3", "-c", script)


def test_metrics_are_reached_from_another_namespace(release: Release, stranger: Pod) -> None:
    (gateway, *_) = release.ready_pods("gateway")
    assert stranger.connects(gateway["status"]["podIP"], 9464)
    assert stranger.connects(gateway["status"]["podIP"], 8080)


def test_spans_of_every_pod_on_a_requests_way_reach_the_collector_and_no_content_does(
    release: Release,
) -> None:
    release.site.own()
    collector = release.collector
    assert collector is not None
    trace = secrets.token_hex(16)
    answer = release.ask(traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")
    assert answer.status_code == httpx.codes.OK
    wanted = {"POST /v1/chat/completions", "route", "pick", "upstream", "engine", "llm_request"}

    def seen() -> set[str]:
        return {span.name for span in collector.spans() if span.trace_id == trace}

    release.wait(f"spans {sorted(wanted)}", lambda: wanted <= seen(), 30)
    assert b"capital of France" not in collector.raw()
