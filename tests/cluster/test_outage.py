"""The API server goes away and comes back: the operator stays, says what is true, and goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import route, world
from tests.cluster.objects import wait_for
from tests.cluster.operated import Operator, Site, site

pytestmark = pytest.mark.cluster

PATIENT = {"durationSeconds": 120.0, "renewSeconds": 90.0, "retrySeconds": 1.0}
"""It is not about the Lease here: losing that ends the process, as it must."""
WATCH_S = 2.0
SILENT_S = 2.5 * WATCH_S
"""A watch that was not answered for so long is dead."""


@pytest.fixture(scope="module")
def place(api: Cluster, kuberay: KubeRay) -> Iterator[Site]:
    with site(api, kuberay) as place:
        place.objects.apply_all(world())
        yield place


@pytest.fixture
def operator(place: Site) -> Iterator[Operator]:
    times = {"watchSeconds": WATCH_S, "activeResyncSeconds": 0.3, "resyncSeconds": 2}
    with place.operator(leaderElection=PATIENT, identity="one", **times) as operator:
        operator.wait_until_ready()
        wait_for(lambda: place.objects.condition("ModelRoute", "chat")[0] == "True", "the route is ready")
        yield operator


def carried_out(place: Site, weight: int) -> float:
    """Make a change; returns seconds until its effect is told."""
    began = time.monotonic()
    # A server that has just begun refuses for a moment what its roles allow.
    wait_for(
        lambda: place.objects.apply(route(weights={"llama": weight, "mistral": 100 - weight})), "a change"
    )
    split = f"v-llama {weight}.0%, v-mistral {100 - weight}.0%"
    wait_for(lambda: place.objects.status("ModelRoute", "chat").get("split") == split, f"weight {weight}", 30)
    return time.monotonic() - began


def test_the_api_server_stops_and_comes_back(place: Site, operator: Operator) -> None:
    with place.api.outage():
        wait_for(
            lambda: "ClientConnectorError" in operator.log or "Cannot connect" in operator.log, "it noticed"
        )
        assert operator.answer("/healthz")[0] == 200
        assert operator.ended is None
    took = carried_out(place, 41)
    print(f"\nback to a change carried out: {took:.1f} s")
    assert operator.ended is None
    wait_for(lambda: operator.answer("/readyz")[0] == 200, "ready again", 30)
    wait_for(lambda: operator.answer("/healthz")[0] == 200, "alive")
    assert carried_out(place, 42) < 10


def test_a_silent_api_server_makes_it_dead_only_when_a_watch_is(place: Site, operator: Operator) -> None:
    with place.api.paused():
        began = time.monotonic()
        wait_for(lambda: operator.answer("/healthz")[0] == 503, "it says that it is dead", SILENT_S + 30)
        silent = time.monotonic() - began
        said = operator.answer("/healthz")[1]
    assert "was not answered for" in said
    # The last answer may be almost one period old when the silence begins.
    assert silent >= SILENT_S - WATCH_S - 0.5
    wait_for(lambda: operator.answer("/healthz")[0] == 200, "alive again", 30)
    print(
        f"\nsilent to 503: {silent:.1f} s; after it, a change carried out in {carried_out(place, 43):.1f} s"
    )
    assert operator.ended is None


def test_a_short_silence_is_none(place: Site, operator: Operator) -> None:
    with place.api.paused():
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert operator.answer("/healthz")[0] == 200
            time.sleep(0.1)
    assert carried_out(place, 44) < 10
