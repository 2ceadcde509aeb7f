"""The life of a platform under the real operator, on a real API server, with KubeRay played.

Every test makes what it changes; the platform that all share is made once and only added to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import POOLS, cluster, model, route, secret, tenant
from tests.cluster.objects import Objects, wait_for
from tests.cluster.operated import Operator, Site, site
from tests.cluster.ray import Data
from tests.cluster.spans import Spans, spans
from tradewind.api.key_hash import key_hash
from tradewind_operator.desired import names

pytestmark = pytest.mark.cluster

TENANT_KEY = "canary0tenant0key0that0opens0models"
HUB_TOKEN = "canary0hub0token0of0a0gated0model"
OUT_OF_MEMORY = "CUDA out of memory: 15.0 GiB are needed and 14.6 GiB are free; use a smaller maxModelLen"


@pytest.fixture(scope="module")
def traces() -> Iterator[Spans]:
    with spans() as received:
        yield received


@pytest.fixture(scope="module")
def place(api: Cluster, kuberay: KubeRay) -> Iterator[Site]:
    with site(api, kuberay) as place:
        yield place


@pytest.fixture(scope="module")
def operator(place: Site, traces: Spans) -> Iterator[Operator]:
    """At work, with a platform that is ready. What it logs is all that it may: level debug."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    env["OTEL_BSP_SCHEDULE_DELAY"] = "200"
    objects = place.objects
    objects.apply(secret("acme", key=TENANT_KEY))
    objects.apply(secret("hub", token=HUB_TOKEN))
    with place.operator(env=env, activeResyncSeconds=0.3, resyncSeconds=5, logLevel="debug") as operator:
        operator.wait_until_ready()
        gated = {
            "uri": "hf://meta-llama/Llama-3.1-8B-Instruct",
            "tokenSecret": {"name": "hub", "key": "token"},
        }
        objects.apply_all([cluster(), model(source=gated), model("mistral"), route(), tenant()])
        is_ready(objects, "ServingCluster", "default")
        is_ready(objects, "ModelRoute", "chat")
        yield operator
        assert operator.ended is None, operator.program.tail()


@pytest.fixture
def objects(place: Site, operator: Operator) -> Objects:
    return place.objects


def is_ready(objects: Objects, kind: str, name: str, timeout_s: float = 60.0) -> None:
    """Wait until it is, as it is written now."""

    def current() -> bool:
        found = objects.get(kind, name)
        status = found.get("status") or {}
        ready = objects.condition(kind, name)[0] == "True"
        return ready and status["observedGeneration"] == found["metadata"]["generation"]

    wait_for(current, f"{kind} {name} ready", timeout_s)


def says(objects: Objects, kind: str, name: str, reason: str, which: str = "Ready") -> str:
    """Wait for the reason of a condition. Returns its message."""
    wait_for(
        lambda: objects.condition(kind, name, which)[1] == reason,
        f"{kind} {name}: {which} is {reason}, not {objects.condition(kind, name, which)}",
    )
    return objects.condition(kind, name, which)[2]


def ray_cluster(objects: Objects, name: str = "default") -> str:
    found: str = objects.status("ServingCluster", name)["rayCluster"]
    return found


def group_names(objects: Objects, cluster: str) -> list[str]:
    """Worker groups of a RayCluster, without the hashes of their templates."""
    groups = objects.get("RayCluster", cluster)["spec"]["workerGroupSpecs"]
    return [group["groupName"].rpartition("-")[0] for group in groups]


def groups_with_pods(objects: Objects, cluster: str) -> set[str]:
    labels = [pod["metadata"]["labels"] for pod in objects.list("Pod")]
    return {each["ray.io/group"] for each in labels if each["ray.io/cluster"] == cluster}


def pods_of(objects: Objects, model: str) -> list[Data]:
    """Pods that say that they have a replica of the model."""
    label = f"models.tradewind.dev/{model}"
    return [pod for pod in objects.list("Pod") if label in pod["metadata"]["labels"]]


def test_it_comes_up_and_says_how_it_is(objects: Objects, place: Site) -> None:
    status = objects.status("ServingCluster", "default")
    assert status["endpoint"] == f"http://default.{place.namespace}.svc:8000/v1"
    assert (status["gatewayReady"], status["gatewayReplicas"]) == (2, 2)
    wait_for(lambda: objects.status("ModelDeployment", "llama").get("state") == "Running", "llama runs")
    llama = objects.status("ModelDeployment", "llama")
    assert (llama["readyReplicas"], llama["wantedReplicas"], llama["contextLength"]) == (1, 1, 8192)
    assert (llama["pool"], llama["family"]) == ("cpu", "llama")
    assert objects.status("ModelRoute", "chat")["split"] == "v-llama 80.0%, v-mistral 20.0%"
    assert objects.status("Tenant", "acme")["keys"] == 1

    def told() -> set[tuple[str, str]]:
        return {(event["reason"], event["regarding"]["kind"]) for event in objects.events("llama")}

    expected = {("Accepted", "ModelDeployment"), ("Ready", "ModelDeployment")}
    wait_for(lambda: expected <= told(), "what happened to llama is told")
    tokens = objects.get("Secret", "default-tokens")["data"].values()
    assert [base64.b64decode(token).decode() for token in tokens] == [HUB_TOKEN]
    wait_for(lambda: pods_of(objects, "llama"), "a pod names the model")
    assert {pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods_of(objects, "llama")} == {"worker"}
    at_gateways = objects.get("Service", "default")["spec"]["selector"]
    assert at_gateways["ray.io/cluster"] == status["rayCluster"]


def test_engine_arguments_make_a_new_engine_in_the_same_cluster(objects: Objects) -> None:
    objects.apply(model("changing"))
    is_ready(objects, "ModelDeployment", "changing")
    before, served = ray_cluster(objects), objects.status("ModelDeployment", "changing")["revision"]
    objects.edit("ModelDeployment", "changing", {"spec": {"engine": {"args": {"maxModelLen": 4096}}}})
    wait_for(lambda: objects.status("ModelDeployment", "changing")["contextLength"] == 4096, "new length")
    is_ready(objects, "ModelDeployment", "changing")
    assert objects.status("ModelDeployment", "changing")["revision"] != served
    assert ray_cluster(objects) == before


def test_a_pool_is_added_to_the_running_cluster(objects: Objects) -> None:
    objects.apply(cluster("growing"))
    is_ready(objects, "ServingCluster", "growing")
    before = ray_cluster(objects, "growing")
    big = {"cpus": 16, "memory": "64Gi", "maxNodes": 2}
    objects.edit("ServingCluster", "growing", {"spec": {"pools": {**POOLS, "big": big}}})
    objects.apply(model("on-big", cluster="growing", resources={"pool": "big"}))
    is_ready(objects, "ModelDeployment", "on-big")
    assert group_names(objects, before) == ["gateway", "pool-cpu", "pool-big"]
    assert ray_cluster(objects, "growing") == before
    assert objects.status("ModelDeployment", "on-big")["pool"] == "big"
    objects.edit("ServingCluster", "growing", {"spec": {"pools": {**POOLS, "big": {**big, "maxNodes": 5}}}})
    wait_for(
        lambda: objects.get("RayCluster", before)["spec"]["workerGroupSpecs"][2]["maxReplicas"] == 5,
        "the running cluster takes the new size",
    )
    assert ray_cluster(objects, "growing") == before


def test_changed_pods_are_new_groups_of_the_same_cluster(objects: Objects, place: Site) -> None:
    objects.apply_all([cluster("renewed"), model("renewing", cluster="renewed")])
    is_ready(objects, "ModelDeployment", "renewing")
    before = ray_cluster(objects, "renewed")
    wait_for(lambda: len(groups_with_pods(objects, before)) == 3, "head, gateways and a node of the pool")
    old = groups_with_pods(objects, before)
    larger = {"gateway": {"cpus": 2}, "pools": {"cpu": {**POOLS["cpu"], "memory": "24Gi"}}}
    objects.edit("ServingCluster", "renewed", {"spec": larger})
    wait_for(lambda: groups_with_pods(objects, before) & old == {"headgroup"}, "no pod of before")
    wait_for(lambda: group_names(objects, before) == ["gateway", "pool-cpu"], "no group of before")
    says(objects, "ServingCluster", "renewed", "Current", "PodsCurrent")
    is_ready(objects, "ModelDeployment", "renewing")
    assert len(groups_with_pods(objects, before)) == 3
    assert ray_cluster(objects, "renewed") == before
    selector = place.apps("renewed")["renewing"]["deployments"][0]["ray_actor_options"]["label_selector"]
    assert selector["tradewind.dev/group"] in groups_with_pods(objects, before) - old


def test_a_second_cluster_is_announced_before_it_is_made(objects: Objects, place: Site) -> None:
    strategy = {"type": "NewCluster"}
    objects.apply_all([cluster("moving", upgradeStrategy=strategy), model("moved", cluster="moving")])
    is_ready(objects, "ModelDeployment", "moved")
    before = ray_cluster(objects, "moving")
    told = len(place.api.audit(place.user))
    objects.edit("ServingCluster", "moving", {"spec": {"head": {"cpus": 4}}})
    wait_for(lambda: ray_cluster(objects, "moving") != before, "the second cluster took over")
    after = ray_cluster(objects, "moving")
    says(objects, "ServingCluster", "moving", "NoUpgrade", "ClusterUpgrade")
    is_ready(objects, "ModelDeployment", "moved")
    calls = place.api.audit(place.user)[told:]
    written = [(call.verb, call.resource) for call in calls if call.name in ("moving", after)]
    assert ("create", "rayclusters") in written
    first = next(call for call in written if call[1] == "servingclusters" and call[0] not in ("get", "list"))
    assert written.index(first) < written.index(("create", "rayclusters"))
    assert objects.get("Service", "moving")["spec"]["selector"]["ray.io/cluster"] == after
    assert "InProgress" in {event["reason"] for event in objects.events("moving")}
    retired = objects.get("RayCluster", before)["metadata"]["annotations"]
    assert "tradewind.dev/retired" in retired


def test_a_second_cluster_waits_until_it_is_approved(objects: Objects, place: Site) -> None:
    objects.apply_all([cluster("held"), model("kept", cluster="held"), route("held", {"kept": 2})])
    is_ready(objects, "ModelRoute", "held")
    active = ray_cluster(objects, "held")
    objects.edit("ServingCluster", "held", {"spec": {"head": {"cpus": 4}}})
    message = says(objects, "ServingCluster", "held", "Held", "ClusterUpgrade")
    assert "tradewind.dev/approve-upgrade=" in message
    objects.apply(route("held", {"kept": 7}))
    wait_for(lambda: place.weights("held", "held") == {"kept": 7}, "routes stay live")
    mine = [item["metadata"]["name"] for item in objects.list("RayCluster")]
    assert [name for name in mine if name.startswith("held-")] == [active]
    approval = message.rpartition("tradewind.dev/approve-upgrade=")[2].split()[0]
    annotations = {"tradewind.dev/approve-upgrade": approval}
    objects.edit("ServingCluster", "held", {"metadata": {"annotations": annotations}})
    wait_for(lambda: ray_cluster(objects, "held") == approval, "the second cluster took over")
    says(objects, "ServingCluster", "held", "NoUpgrade", "ClusterUpgrade")
    assert place.weights("held", "held") == {"kept": 7}


def test_a_change_that_is_taken_back_needs_no_second_cluster(objects: Objects) -> None:
    objects.apply_all([cluster("wavering"), model("alone", cluster="wavering")])
    is_ready(objects, "ModelDeployment", "alone")
    active = ray_cluster(objects, "wavering")
    objects.edit("ServingCluster", "wavering", {"spec": {"head": {"cpus": 4}}})
    says(objects, "ServingCluster", "wavering", "Held", "ClusterUpgrade")
    objects.edit("ServingCluster", "wavering", {"spec": {"head": {"cpus": None}}})
    says(objects, "ServingCluster", "wavering", "NoUpgrade", "ClusterUpgrade")
    assert ray_cluster(objects, "wavering") == active


def test_a_rayservice_of_an_earlier_release_is_left_alone(objects: Objects) -> None:
    labels = {"app.kubernetes.io/managed-by": "tradewind-operator", "tradewind.dev/cluster": "old"}
    service = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "old", "labels": labels}}
    objects.apply(service)
    objects.apply(cluster("old"))
    message = says(objects, "ServingCluster", "old", "RayServiceOfEarlierRelease")
    assert "kubectl delete rayservice old" in message
    assert not [item for item in objects.list("RayCluster") if item["metadata"]["name"].startswith("old-")]
    objects.delete("RayService", "old")
    is_ready(objects, "ServingCluster", "old")


def test_kubectl_scale_works(objects: Objects) -> None:
    objects.apply(model("scaled"))
    is_ready(objects, "ModelDeployment", "scaled")
    objects.edit("ModelDeployment", "scaled", {"spec": {"replicas": 3}}, "scale")
    wait_for(lambda: objects.status("ModelDeployment", "scaled")["readyReplicas"] == 3, "three replicas")
    is_ready(objects, "ModelDeployment", "scaled")
    objects.edit("ModelDeployment", "scaled", {"spec": {"replicas": 1}}, "scale")
    wait_for(lambda: objects.status("ModelDeployment", "scaled")["replicas"] == 1, "one again")


def test_an_engine_that_cannot_start_says_why_until_it_is_repaired(objects: Objects, place: Site) -> None:
    place.kuberay.broken["fragile"] = OUT_OF_MEMORY
    objects.apply_all([model("fragile"), route("fragile", {"fragile": 2})])
    assert says(objects, "ModelDeployment", "fragile", "Failed") == OUT_OF_MEMORY
    assert objects.status("ModelDeployment", "fragile")["lastError"] == OUT_OF_MEMORY
    assert objects.status("ModelDeployment", "fragile")["state"] == "Failed"
    says(objects, "ModelRoute", "fragile", "VariantNotReady")
    wait_for(
        lambda: ("Failed", "Warning") in {(e["reason"], e["type"]) for e in objects.events("fragile")},
        "Event",
    )
    is_ready(objects, "ModelDeployment", "llama")
    del place.kuberay.broken["fragile"]
    objects.edit("ModelDeployment", "fragile", {"spec": {"engine": {"args": {"maxModelLen": 2048}}}})
    is_ready(objects, "ModelDeployment", "fragile")
    is_ready(objects, "ModelRoute", "fragile")
    assert "lastError" not in objects.status("ModelDeployment", "fragile")


def test_a_wrong_resource_harms_nobody_and_what_was_accepted_goes_on(objects: Objects, place: Site) -> None:
    objects.apply_all([model("edited"), route("edited", {"edited": 1})])
    is_ready(objects, "ModelRoute", "edited")
    before = place.apps()["edited"]
    objects.edit("ModelDeployment", "edited", {"spec": {"engine": {"args": {"maxModelLenn": 1}}}})
    objects.apply(model("never", engine={"args": {"nonsense": 1}}))
    message = says(objects, "ModelDeployment", "edited", "Invalid", "Accepted")
    assert message.startswith("spec.engine.args.maxModelLenn: unknown argument")
    assert message.endswith("What was accepted as generation 1 stays in force.")
    says(objects, "ModelDeployment", "never", "Invalid", "Accepted")
    assert objects.condition("ModelDeployment", "edited")[0] == "True"
    assert place.apps()["edited"] == before
    assert "never" not in place.apps()
    objects.apply(route(weights={"llama": 4, "mistral": 4}))
    wait_for(lambda: place.weights("chat") == {"llama": 4, "mistral": 4}, "others are served")
    wait_for(
        lambda: any(e["type"] == "Warning" and e["reason"] == "Invalid" for e in objects.events("edited")),
        "a Warning",
    )
    objects.edit("ModelDeployment", "edited", {"spec": {"engine": {"args": None}}})
    says(objects, "ModelDeployment", "edited", "Accepted", "Accepted")
    objects.delete("ModelDeployment", "never")
    wait_for(lambda: objects.find("ModelDeployment", "never") is None, "never is gone")


def test_a_deleted_model_drains_first(objects: Objects, place: Site) -> None:
    objects.apply(model("leaving"))
    is_ready(objects, "ModelDeployment", "leaving")
    objects.delete("ModelDeployment", "leaving")
    says(objects, "ModelDeployment", "leaving", "Draining")
    assert objects.status("ModelDeployment", "leaving")["state"] == "Draining"
    wait_for(lambda: objects.find("ModelDeployment", "leaving") is None, "it is gone")
    assert "leaving" not in place.apps()
    is_ready(objects, "ModelDeployment", "llama")


def test_a_cluster_with_models_is_deleted_only_when_that_is_said(
    api: Cluster, objects: Objects, place: Site
) -> None:
    objects.apply_all([cluster("ending"), model("last", cluster="ending"), route("last", {"last": 2})])
    is_ready(objects, "ModelRoute", "last")
    ray = ray_cluster(objects, "ending")
    objects.delete("ServingCluster", "ending")
    message = says(objects, "ServingCluster", "ending", "DeletionRefused")
    assert "tradewind.dev/delete-models=true" in message
    objects.apply(route("last", {"last": 3}))
    wait_for(lambda: place.weights("last", "ending") == {"last": 3}, "it goes on serving")
    allow = {"metadata": {"annotations": {"tradewind.dev/delete-models": "true"}}}
    objects.edit("ServingCluster", "ending", allow)
    wait_for(lambda: objects.find("ServingCluster", "ending") is None, "the cluster is gone")
    if api.has_gc:
        wait_for(lambda: objects.find("RayCluster", ray) is None, "what it owned is gone")
        wait_for(lambda: groups_with_pods(objects, ray) == set(), "its pods are gone")
    says(objects, "ModelDeployment", "last", "ClusterNotFound", "Accepted")
    objects.delete("ModelDeployment", "last")
    wait_for(lambda: objects.find("ModelDeployment", "last") is None, "its model may go")


def test_weights_are_live(objects: Objects, place: Site) -> None:
    before = ray_cluster(objects)
    objects.apply(route(weights={"llama": 30, "mistral": 70}))
    wait_for(
        lambda: objects.status("ModelRoute", "chat")["split"] == "v-llama 30.0%, v-mistral 70.0%",
        "effective weights told",
    )
    is_ready(objects, "ModelRoute", "chat")
    assert place.weights("chat") == {"llama": 30, "mistral": 70}
    assert ray_cluster(objects) == before


def hashed(objects: Objects, cluster: str, *keys: str) -> set[str]:
    """As the gateways of a ServingCluster know API keys."""
    own = objects.get("Secret", names.auth_secret(cluster))["data"][names.HASH_KEY_KEY]
    return {key_hash(key, base64.b64decode(own)) for key in keys}


def is_opened_by(objects: Objects, place: Site, tenant: str, keys: dict[str, list[str]]) -> None:
    """Wait until the gateways of each ServingCluster know exactly these keys of the tenant."""
    for where, which in keys.items():

        def known(where: str = where, which: Iterable[str] = tuple(which)) -> bool:
            return place.key_hashes(tenant, where) == hashed(objects, where, *which)

        wait_for(known, f"{where} is opened by {len(which)} keys of {tenant}")


def test_a_tenant_opens_every_cluster_of_its_namespace_until_it_is_revoked(
    objects: Objects, place: Site
) -> None:
    old, new = "tw-a-key-for-two-clusters-00000000001", "tw-a-key-for-two-clusters-00000000002"
    keys = [{"secret": {"name": "both", "key": key}} for key in ("old", "new")]
    objects.apply(secret("both", old=old, new=new))
    objects.apply_all([cluster("second"), model("there", cluster="second"), tenant("both", keys=keys)])
    is_ready(objects, "ModelDeployment", "there")
    is_opened_by(objects, place, "both", {"default": [old, new], "second": [old, new]})
    says(objects, "ServingCluster", "second", "Ready")
    objects.edit("Tenant", "both", {"spec": {"keys": keys[1:]}})
    is_opened_by(objects, place, "both", {"default": [new], "second": [new]})
    objects.edit("Tenant", "both", {"spec": {"models": ["nobody-has-this"]}})
    says(objects, "Tenant", "both", "ModelNotFound", "Accepted")
    is_opened_by(objects, place, "both", {"default": [], "second": []})
    objects.edit("Tenant", "both", {"spec": {"models": ["there"]}})
    is_opened_by(objects, place, "both", {"default": [], "second": [new]})
    says(objects, "Tenant", "both", "Accepted", "Accepted")
    wait_for(lambda: objects.status("Tenant", "both").get("keys") == 1, "its key counts where it opens one")
    objects.edit("Tenant", "both", {"spec": {"models": ["*"]}})
    is_opened_by(objects, place, "both", {"default": [new], "second": [new]})
    objects.edit("Secret", "both", {"data": {"new": None}})
    is_opened_by(objects, place, "both", {"default": [], "second": []})
    says(objects, "Tenant", "both", "SecretKeyNotFound", "Accepted")
    objects.edit("Secret", "both", {"stringData": {"new": new}})
    is_opened_by(objects, place, "both", {"default": [new], "second": [new]})
    objects.delete("Tenant", "both")
    is_opened_by(objects, place, "both", {"default": [], "second": []})


def test_no_secret_is_anywhere_but_in_secrets(objects: Objects, operator: Operator, traces: Spans) -> None:
    own = objects.get("Secret", "default-auth")["data"].values()
    canaries = [TENANT_KEY, HUB_TOKEN, *(base64.b64decode(value).decode() for value in own)]
    assert all(len(canary) > 30 for canary in canaries)
    forms = {form for each in canaries for form in (each, base64.b64encode(each.encode()).decode())}
    kinds = ("RayCluster", "Pod", "ConfigMap", "Event", "Service", "ServiceAccount", "NetworkPolicy")
    custom = ("ServingCluster", "ModelDeployment", "ModelRoute", "Tenant", "Lease")
    places = {kind: json.dumps(objects.list(kind)) for kind in (*kinds, *custom)}
    wait_for(lambda: "reconcile" in traces.text and "create RayCluster" in traces.text, "spans")
    places |= {"log": operator.log, "spans": traces.text}
    places["metrics"] = operator.answer("/metrics")[1]
    assert len(places["log"]) > 1_000
    assert {place for place, text in places.items() for form in forms if form in text} == set()
