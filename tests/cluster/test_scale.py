"""1,000 ModelDeployments and 500 routes: time to converge, requests for one change, memory.

One ServingCluster has them all, and Serve is given one configuration with everything.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kubernetes import client as k8s

from tests.cluster.audit import Call
from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import cluster, model, route, secret, tenant
from tests.cluster.objects import Objects, wait_for
from tests.cluster.operated import Operator, Site, install, site

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(240)]

MODELS, ROUTES = 1_000, 500
CLUSTER = "default"
CONVERGE_S, CALLS, MEMORY_MB = 60.0, 10, 250.0
LIVE_S = 3.0
"""From the apply of a route to Serve's new configuration."""
QUIET_S = 1.5
"""So long without a request of its work, and a change is carried out."""


@dataclass(frozen=True)
class Full:
    """Everything is created, and an operator has brought it in."""

    place: Site
    operator: Operator
    took_s: float

    @property
    def objects(self) -> Objects:
        return self.place.objects

    def work(self) -> list[Call]:
        """Requests so far, less those that come again by themselves: the Lease, watches and the release."""
        calls = self.place.api.audit(self.place.user)
        return [
            call
            for call in calls
            if call.resource not in ("", "leases", "configmaps") and call.verb != "watch"
        ]

    def calls_of(self, change: Callable[[], object], done: Callable[[], bool]) -> Counter[str]:
        """What the operator asked for because of a change."""
        self.quiet()
        before = len(self.work())
        change()
        wait_for(done, "the change is carried out", 30)
        self.quiet()
        return Counter(
            f"{call.verb} {'/'.join(filter(None, (call.resource, call.subresource)))}"
            for call in self.work()[before:]
        )

    def quiet(self) -> None:
        """Wait until it rests."""
        seen, since = len(self.work()), time.monotonic()
        deadline = since + 60

        while time.monotonic() - since < QUIET_S:
            time.sleep(0.1)
            if (now := len(self.work())) != seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() < deadline, Counter(self.work()[-200:]).most_common(5)


def name_of(number: int) -> str:
    return f"model-{number:04}"


def split(number: int, weight: int = 90) -> dict[str, int]:
    """Two models and their weights."""
    return {name_of(number): weight, name_of(number + 1): 100 - weight}


@pytest.fixture(scope="module")
def full(api: Cluster, kube: k8s.ApiClient) -> Iterator[Full]:
    install(kube)
    with api.client() as client, KubeRay(client) as kuberay, site(api, kuberay) as place:
        objects = place.objects
        objects.apply(secret("acme", key="a-key-of-a-tenant-000000000001"))
        objects.apply(cluster(CLUSTER))
        objects.apply(tenant())
        objects.apply_all(model(name_of(each)) for each in range(MODELS))
        objects.apply_all(route(f"route-{each:03}", split(each)) for each in range(ROUTES))
        began = time.monotonic()
        # Requests for a change are counted between the looks that are due anyway.
        with place.operator(resyncSeconds=600, secretSeconds=60, lookSeconds=60) as operator:
            operator.wait_until_ready(60)
            wait_for(lambda: converged(objects), "all is ready", CONVERGE_S * slowness(), every_s=1.0)
            yield Full(place, operator, time.monotonic() - began)


def converged(objects: Objects) -> bool:
    if objects.condition("ServingCluster", CLUSTER)[0] != "True":
        return False
    kinds = {"ModelDeployment": MODELS, "ModelRoute": ROUTES}
    return all(sum(map(is_ready, objects.list(kind))) == expected for kind, expected in kinds.items())


def is_ready(item: dict[str, object]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])  # type: ignore[attr-defined]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def seconds_to_live(place: Site) -> list[float]:
    """From the apply of a route to its weights in what Serve has, for several weights."""
    took = []
    for weight in (80, 70, 60, 50):
        wanted, began = split(7, weight), time.monotonic()
        place.objects.apply(route("route-007", wanted))
        wait_for(lambda w=wanted: place.weights("route-007") == w, "the weights", every_s=0.02)
        took.append(time.monotonic() - began)
        wait_for(lambda: place.objects.condition("ModelRoute", "route-007")[0] == "True", "it is in effect")
    print(f"\nroute applied to Serve's configuration: {[f'{seconds:.2f} s' for seconds in took]}")
    return took


def slowness() -> float:
    """Programs that want each core: with others at work on the machine, all takes so much longer."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_a_new_weight_is_live_beside_500_routes(api: Cluster, kube: k8s.ApiClient) -> None:
    install(kube)
    with api.client() as client, KubeRay(client) as kuberay, site(api, kuberay) as place:
        objects = place.objects
        objects.apply(secret("acme", key="a-key-of-a-tenant-000000000001"))
        objects.apply_all([cluster(CLUSTER), tenant(), *(model(name_of(each)) for each in range(10))])
        objects.apply_all(route(f"route-{each:03}", split(each % 9)) for each in range(ROUTES))
        with place.operator() as operator:
            operator.wait_until_ready()
            wait_for(
                lambda: sum(map(is_ready, objects.list("ModelRoute"))) == ROUTES, "all are ready", 60, 0.5
            )
            assert min(seconds_to_live(place)) < LIVE_S * slowness()


def test_it_converges(full: Full) -> None:
    ray = full.place.ray()
    assert ray is not None
    size, calls = len(json.dumps(ray.config)), len(full.work())
    print(f"\nconverged in {full.took_s:.0f} s with {calls} requests; Serve was given {size} bytes")
    assert full.took_s <= CONVERGE_S * slowness()


def test_a_new_weight_is_live_beside_1000_models_too(full: Full) -> None:
    assert min(seconds_to_live(full.place)) < LIVE_S * slowness()


def test_one_change_costs_few_requests(full: Full) -> None:
    objects, (one, two) = full.objects, split(9)
    routed = full.calls_of(
        lambda: objects.apply(route("route-009", split(9, 50))),
        lambda: objects.status("ModelRoute", "route-009")["split"] == f"v-{one} 50.0%, v-{two} 50.0%",
    )
    argued = full.calls_of(
        lambda: objects.edit("ModelDeployment", one, {"spec": {"engine": {"args": {"maxModelLen": 4096}}}}),
        lambda: objects.status("ModelDeployment", one)["contextLength"] == 4096,
    )
    print(f"\na route: {routed.total()} {dict(routed)}\nan argument: {argued.total()} {dict(argued)}")
    assert routed.total() <= CALLS
    assert argued.total() <= CALLS


def test_it_stays_small(full: Full) -> None:
    used = full.operator.memory_mb()
    print(f"\nmemory at its peak: {used:.0f} MB")
    assert used <= MEMORY_MB
