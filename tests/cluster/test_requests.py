"""The operator asks for what its roles allow, and for all that they allow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from kubernetes import client as k8s

from tests.cluster.audit import Call
from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import POOLS, cluster, model, route, secret, tenant
from tests.cluster.objects import Objects, wait_for
from tests.cluster.operated import Operator, Site, chart_rules, install, site
from tests.cluster.ray import Data
from tests.golden.chart.rendering import render

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
STORED = {"cpus": 2, "memory": "4Gi", "maxNodes": 1}
CACHED = {**STORED, "cache": {"size": "1Gi", "storageClassName": "fast"}}
OF_SOMEONE_ELSE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "default"},
    "spec": {"ports": [{"name": "web", "port": 80}]},
}
APPLIED = "server-side apply of what is not there asks for it beside patch, which alone is in the log"
UNUSED = {
    ("tradewind.dev", "servingclusters", "create"): APPLIED,
    ("", "services", "create"): APPLIED,
    ("", "serviceaccounts", "create"): APPLIED,
    ("", "persistentvolumeclaims", "create"): APPLIED,
    ("networking.k8s.io", "networkpolicies", "create"): APPLIED,
    ("policy", "poddisruptionbudgets", "create"): APPLIED,
    ("policy", "poddisruptionbudgets", "delete"): "a budget that an earlier release made is taken away",
    ("ray.io", "rayclusters", "get"): "where one of a name is in the way, it is looked at whose it is",
}
"""Rights that this life does not show in the audit log, and why they are needed."""


@pytest.fixture(scope="module")
def place(api: Cluster, kube: k8s.ApiClient) -> Iterator[Site]:
    install(kube)
    with api.client() as client, KubeRay(client) as kuberay, site(api, kuberay) as place:
        yield place


def ready(objects: Objects, kind: str, name: str) -> None:
    wait_for(lambda: objects.condition(kind, name)[0] == "True", f"{kind} {name} is ready")


def live(place: Site, operator: Operator) -> None:
    """A life in which everything happens that needs a right of its own."""
    objects = place.objects
    gated = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct", "tokenSecret": {"name": "hub", "key": "token"}}
    of_the_release(place)
    stored = cluster(pools={**POOLS, "stored": CACHED})
    objects.apply_all([stored, model(), model("mistral", source=gated), route(), tenant()])
    objects.apply(OF_SOMEONE_ELSE)
    # The Secrets come late: twice the same Event is one with a count.
    wait_for(lambda: objects.condition("Tenant", "acme", "Accepted")[0] == "False", "no key yet")
    objects.apply(secret("acme", key="a-key-of-a-tenant-000000000001"))
    objects.apply(secret("hub", token="a-token-of-a-hub-00000000001"))
    leave_alone(objects)
    ready(objects, "ModelRoute", "chat")
    objects.edit("ServingCluster", "default", {"spec": {"pools": {"stored": {"maxNodes": 3}}}})
    ray = objects.list("RayCluster")[0]["metadata"]["name"]
    wait_for(
        lambda: most_nodes(objects.get("RayCluster", ray), "stored") == 3,
        "a larger pool",
    )
    give_up(objects)
    # Other groups of pods, without the claim and the policies of before.
    spec = {
        "pools": {"stored": {"cache": None}},
        "networkPolicy": {"enabled": False},
    }
    objects.edit("ServingCluster", "default", {"spec": spec})
    wait_for(lambda: objects.list("NetworkPolicy") == [], "no policies any more")
    end_claims(objects)
    ready(objects, "ServingCluster", "default")
    objects.apply(route(weights={"llama": 2}))
    objects.delete("ModelDeployment", "mistral")
    wait_for(lambda: objects.find("ModelDeployment", "mistral") is None, "the model is gone")
    allow = {"metadata": {"annotations": {"tradewind.dev/delete-models": "true"}}}
    objects.edit("ServingCluster", "default", allow)
    objects.delete("ServingCluster", "default")
    wait_for(lambda: objects.find("ServingCluster", "default") is None, "the cluster is gone")
    assert operator.ended is None


def most_nodes(ray_cluster: Data, pool: str) -> int:
    groups = ray_cluster["spec"]["workerGroupSpecs"]
    return next(int(g["maxReplicas"]) for g in groups if g["groupName"].startswith(f"pool-{pool}-"))


def give_up(objects: Objects) -> None:
    """A second Ray cluster is built, and no longer wanted before it serves."""
    first = objects.list("RayCluster")[0]["metadata"]["name"]
    kept = objects.get("ServingCluster", "default")["spec"]["head"]
    larger = {"head": {**kept, "memory": "12Gi"}, "upgradeStrategy": {"type": "NewCluster"}}
    objects.edit("ServingCluster", "default", {"spec": larger})
    wait_for(lambda: len(objects.list("RayCluster")) == 2, "a second cluster")
    objects.edit("ServingCluster", "default", {"spec": {"head": kept}})
    wait_for(
        lambda: [item["metadata"]["name"] for item in objects.list("RayCluster")] == [first],
        "the first alone",
    )


def of_the_release(place: Site) -> None:
    """The operator makes the ServingCluster that the chart writes, and lets go of it with the ConfigMap."""
    config = yaml.safe_load(render(namespace=place.namespace)["templates/cluster/configmap.yaml"])
    place.objects.apply(config)
    wait_for(lambda: place.objects.find("ServingCluster", "default"), "it is made")
    place.objects.delete("ConfigMap", config["metadata"]["name"])


def leave_alone(objects: Objects) -> None:
    """Something of the endpoint's name is someone else's: the reconcile that fails says so, until it goes."""
    wait_for(
        lambda: objects.condition("ServingCluster", "default")[1] == "ReconcileError", "it is in the way", 30
    )
    found = objects.get("Service", "default")
    assert (found["metadata"].get("labels"), found["spec"]["ports"][0]["port"]) == (None, 80)
    objects.delete("Service", "default")


def end_claims(objects: Objects) -> None:
    """Wait until no claim is wanted, and let go of them as Kubernetes does once no pod has them mounted."""
    kind = "PersistentVolumeClaim"
    wait_for(
        lambda: all(item["metadata"].get("deletionTimestamp") for item in objects.list(kind)), "no claim"
    )
    for item in objects.list(kind):
        objects.edit(kind, item["metadata"]["name"], {"metadata": {"finalizers": None}})


def rights(rules: list[Data]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(calls: list[Call]) -> set[Right]:
    """What was asked for, less what everybody may: to see which kinds there are."""
    return {
        (call.group, "/".join(filter(None, (call.resource, call.subresource))), call.verb)
        for call in calls
        if call.resource
    }


def test_it_uses_every_right_and_asks_for_no_other(place: Site) -> None:
    with place.operator(activeResyncSeconds=0.3, resyncSeconds=2) as operator:
        operator.wait_until_ready()
        live(place, operator)
        operator.stop()
    assert place.api.audit(place.user, denied=True) == []
    allowed, used = rights(chart_rules(place.namespace)), asked(place.api.audit(place.user))
    assert used - allowed == set()
    assert allowed - used - UNUSED.keys() == set()
    assert all(verb not in ("*", "deletecollection", "escalate", "bind") for _, _, verb in allowed)
    asked_for = [call for call in place.api.audit(place.user) if call.resource]
    assert {call.namespace for call in asked_for if call.resource != "storageclasses"} == {place.namespace}
