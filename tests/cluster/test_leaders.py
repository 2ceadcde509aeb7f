"""Of two operators one works: the other takes over when it is lost, and there are never two."""

from __future__ import annotations

import datetime as dt
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client as k8s

from tests.cluster.audit import Call
from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import route, world
from tests.cluster.objects import wait_for
from tests.cluster.operated import ACCOUNT, Operator, Site, site
from tradewind_operator.main import LEASE_LOST

pytestmark = pytest.mark.cluster

TAKEOVER_S = 15.0
READS = frozenset({"get", "list", "watch"})


@pytest.fixture
def place(api: Cluster, kuberay: KubeRay) -> Iterator[Site]:
    with site(api, kuberay) as place:
        place.objects.apply_all(world())
        yield place


@pytest.fixture
def second(place: Site, kube: k8s.ApiClient) -> str:
    """A user with the same roles, so that the audit log knows two operators apart."""
    rbac: Any = k8s.RbacAuthorizationV1Api(kube)
    for binding in rbac.list_namespaced_role_binding(place.namespace).items:
        subject = {"kind": "ServiceAccount", "name": "second", "namespace": place.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": binding.role_ref.name}
        body = {
            "metadata": {"name": f"second-{binding.metadata.name}"},
            "roleRef": role,
            "subjects": [subject],
        }
        rbac.create_namespaced_role_binding(place.namespace, body)
    return place.user.replace(ACCOUNT, "second")


def work_of(place: Site, user: str) -> list[Call]:
    """What it asked for beside the Lease and what kinds there are."""
    return [call for call in place.api.audit(user) if call.resource not in ("", "leases")]


def writes_of(place: Site, user: str) -> list[Call]:
    return [call for call in work_of(place, user) if call.verb not in READS]


def weigh(place: Site, weight: int) -> None:
    """A change that whoever leads has to carry out, and does."""
    place.objects.apply(route(weights={"llama": weight, "mistral": 100 - weight}))
    split = f"v-llama {weight}.0%, v-mistral {100 - weight}.0%"
    wait_for(
        lambda: place.objects.status("ModelRoute", "chat").get("split") == split,
        f"weight {weight}",
        TAKEOVER_S,
    )


def leading(first: Operator) -> None:
    wait_for(first.leads, "it leads")
    first.wait_until_ready()


def test_the_other_takes_over_from_one_that_died(place: Site, second: str) -> None:
    with place.operator(identity="one") as one:
        leading(one)
        with place.operator(identity="two", kubeconfig=place.api.kubeconfig(second)) as two:
            two.wait_until_ready()
            weigh(place, 60)
            assert not two.leads()
            assert work_of(place, second) == []
            one.kill()
            began, seen = time.monotonic(), len(work_of(place, place.user))
            wait_for(two.leads, "the other leads", TAKEOVER_S)
            took = time.monotonic() - began
            weigh(place, 40)
            print(f"\nkilled to led: {took:.1f} s; to a change carried out: {time.monotonic() - began:.1f} s")
            assert took <= TAKEOVER_S
            assert len(work_of(place, place.user)) == seen


def test_one_that_ends_cleanly_is_followed_at_once(place: Site) -> None:
    with place.operator(identity="one") as one:
        leading(one)
        with place.operator(identity="two") as two:
            two.wait_until_ready()
            began = time.monotonic()
            assert one.stop() == 0
            wait_for(two.leads, "the other leads", 6)
            print(f"\nasked to end, to led: {time.monotonic() - began:.1f} s")
            weigh(place, 30)


def test_one_that_was_frozen_finds_that_it_leads_no_longer_and_writes_nothing(
    place: Site, second: str
) -> None:
    with place.operator(identity="one", activeResyncSeconds=0.3, resyncSeconds=1) as one:
        leading(one)
        with place.operator(identity="two", kubeconfig=place.api.kubeconfig(second)) as two:
            two.wait_until_ready()
            weigh(place, 60)
            one.program.pause()
            place.objects.apply(route(weights={"llama": 20, "mistral": 80}))
            wait_for(two.leads, "the other leads", TAKEOVER_S)
            weigh(place, 21)
            before = writes_of(place, place.user)
            place.objects.apply(route(weights={"llama": 22, "mistral": 78}))
            one.program.send(signal.SIGCONT)
            assert one.program.process.wait(10) == LEASE_LOST
            weigh(place, 23)
            assert writes_of(place, place.user) == before


def test_one_whose_lease_is_taken_ends(place: Site) -> None:
    with place.operator(identity="one") as one:
        leading(one)
        weigh(place, 60)
        lease = place.objects.get("Lease", "tradewind-operator")
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken = {"holderIdentity": "another", "renewTime": now}
        began = time.monotonic()
        place.objects.edit("Lease", lease["metadata"]["name"], {"spec": taken})
        assert one.program.process.wait(10) == LEASE_LOST
        print(f"\ntaken to ended: {time.monotonic() - began:.1f} s")
        seen = place.api.audit(place.user)
        place.objects.apply(route(weights={"llama": 50, "mistral": 50}))
        assert place.api.audit(place.user) == seen
        held = place.objects.get("Lease", "tradewind-operator")["spec"]["holderIdentity"]
        assert held == "another"
