"""The life of a platform under the real operator, on a real API server, with KubeRay played.

Every test makes what it changes; the platform that all share is made once and only added to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.life import POOLS, cluster, model, route, secret, tenant
from tests.cluster.objects import Objects, wait_for
from tests.cluster.operated import Operator, Site, site
from tests.cluster.ray import Data
from tests.cluster.spans import Spans, spans

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


def served_weights(objects: Objects, cluster: str, model: str) -> dict[str, int]:
    """Weights in the RayService's serveConfigV2, by deployment."""
    applications = json.loads(objects.get("RayService", cluster)["spec"]["serveConfigV2"])["applications"]
    routes = applications[0]["deployments"][0]["user_config"]["routes"]
    variants = next(entry["variants"] for entry in routes if entry["model"] == model)
    return {variant["deployment"]: variant.get("weight", 1) for variant in variants}


def ray_cluster(objects: Objects, name: str = "default") -> str:
    found: str = objects.status("ServingCluster", name)["rayCluster"]
    return found


def engine(place: Site, name: str, of: str = "default") -> Data | None:
    """What Serve was given for a model."""
    config = place.kuberay.serve_config(place.namespace, of) or {"applications": []}
    return next((app for app in config["applications"] if app["name"] == name), None)


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
    made = {(event["reason"], event["regarding"]["kind"]) for event in objects.events("llama")}
    assert {("Accepted", "ModelDeployment"), ("Ready", "ModelDeployment")} <= made
    tokens = objects.get("Secret", "default-tokens")["data"].values()
    assert [base64.b64decode(token).decode() for token in tokens] == [HUB_TOKEN]


def test_engine_arguments_make_a_new_engine_in_the_same_cluster(objects: Objects) -> None:
    objects.apply(model("changing"))
    is_ready(objects, "ModelDeployment", "changing")
    before, served = ray_cluster(objects), objects.status("ModelDeployment", "changing")["revision"]
    objects.edit("ModelDeployment", "changing", {"spec": {"engine": {"args": {"maxModelLen": 4096}}}})
    wait_for(lambda: objects.status("ModelDeployment", "changing")["contextLength"] == 4096, "new length")
    is_ready(objects, "ModelDeployment", "changing")
    assert objects.status("ModelDeployment", "changing")["revision"] != served
    assert ray_cluster(objects) == before


def test_a_pool_is_added_to_the_running_cluster(objects: Objects, place: Site) -> None:
    objects.apply(cluster("growing"))
    is_ready(objects, "ServingCluster", "growing")
    before = ray_cluster(objects, "growing")
    big = {"cpus": 16, "memory": "64Gi", "maxNodes": 2}
    objects.edit("ServingCluster", "growing", {"spec": {"pools": {**POOLS, "big": big}}})
    objects.apply(model("on-big", cluster="growing", resources={"pool": "big"}))
    is_ready(objects, "ModelDeployment", "on-big")
    groups = objects.get("RayCluster", before)["spec"]["workerGroupSpecs"]
    assert [group["groupName"] for group in groups] == ["gateway", "pool-cpu", "pool-big"]
    assert ray_cluster(objects, "growing") == before
    assert objects.status("ModelDeployment", "on-big")["pool"] == "big"
    objects.edit("ServingCluster", "growing", {"spec": {"pools": {**POOLS, "big": {**big, "maxNodes": 5}}}})
    wait_for(
        lambda: objects.get("RayCluster", before)["spec"]["workerGroupSpecs"][2]["maxReplicas"] == 5,
        "the running cluster takes the new size",
    )
    assert ray_cluster(objects, "growing") == before


def test_a_second_cluster_is_announced_before_it_is_made(objects: Objects, place: Site) -> None:
    objects.apply_all([cluster("moving"), model("moved", cluster="moving")])
    is_ready(objects, "ModelDeployment", "moved")
    before = ray_cluster(objects, "moving")
    told = len(place.api.audit(place.user))
    objects.edit("ServingCluster", "moving", {"spec": {"gateway": {"cpus": 2}}})
    wait_for(lambda: ray_cluster(objects, "moving") != before, "the second cluster took over")
    says(objects, "ServingCluster", "moving", "NoUpgrade", "ClusterUpgrade")
    is_ready(objects, "ModelDeployment", "moved")
    calls = [call for call in place.api.audit(place.user)[told:] if call.name == "moving"]
    written = [call.resource for call in calls if call.verb == "patch"]
    assert written.index("servingclusters") < written.index("rayservices")
    notes = {event["reason"]: event["note"] for event in objects.events("moving")}
    assert "about to be made, with 0 more GPUs (The gateway" in notes["Needed"]
    assert "cpu" in notes["Needed"]


def test_a_second_cluster_waits_where_it_is_held(objects: Objects, place: Site) -> None:
    objects.apply_all(
        [
            cluster("held", upgradeStrategy={"type": "Hold"}),
            model("kept", cluster="held"),
            route("held", {"kept": 2}),
        ]
    )
    is_ready(objects, "ModelRoute", "held")
    before = objects.get("RayService", "held")["spec"]["rayClusterConfig"]
    objects.edit("ServingCluster", "held", {"spec": {"gateway": {"cpus": 2}}})
    message = says(objects, "ServingCluster", "held", "Held", "ClusterUpgrade")
    assert "set spec.upgradeStrategy.type to NewCluster" in message
    objects.apply(route("held", {"kept": 7}))
    wait_for(lambda: served_weights(objects, "held", "held") == {"kept": 7}, "routes stay live")
    assert objects.get("RayService", "held")["spec"]["rayClusterConfig"] == before
    active = ray_cluster(objects, "held")
    objects.edit("ServingCluster", "held", {"spec": {"upgradeStrategy": {"type": "NewCluster"}}})
    wait_for(lambda: ray_cluster(objects, "held") != active, "the second cluster took over")
    says(objects, "ServingCluster", "held", "NoUpgrade", "ClusterUpgrade")


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
    before = engine(place, "edited")
    objects.edit("ModelDeployment", "edited", {"spec": {"engine": {"args": {"maxModelLenn": 1}}}})
    objects.apply(model("never", engine={"args": {"nonsense": 1}}))
    message = says(objects, "ModelDeployment", "edited", "Invalid", "Accepted")
    assert message.startswith("spec.engine.args.maxModelLenn: unknown argument")
    assert message.endswith("What was accepted as generation 1 stays in force.")
    says(objects, "ModelDeployment", "never", "Invalid", "Accepted")
    assert objects.condition("ModelDeployment", "edited")[0] == "True"
    assert (engine(place, "edited"), engine(place, "never")) == (before, None)
    objects.apply(route(weights={"llama": 4, "mistral": 4}))
    wait_for(
        lambda: served_weights(objects, "default", "chat") == {"llama": 4, "mistral": 4}, "others are served"
    )
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
    assert engine(place, "leaving") is None
    is_ready(objects, "ModelDeployment", "llama")


def test_a_cluster_with_models_is_deleted_only_when_that_is_said(api: Cluster, objects: Objects) -> None:
    objects.apply_all([cluster("ending"), model("last", cluster="ending"), route("last", {"last": 2})])
    is_ready(objects, "ModelRoute", "last")
    objects.delete("ServingCluster", "ending")
    message = says(objects, "ServingCluster", "ending", "DeletionRefused")
    assert "tradewind.dev/delete-models=true" in message
    objects.apply(route("last", {"last": 3}))
    wait_for(lambda: served_weights(objects, "ending", "last") == {"last": 3}, "it goes on serving")
    allow = {"metadata": {"annotations": {"tradewind.dev/delete-models": "true"}}}
    objects.edit("ServingCluster", "ending", allow)
    wait_for(lambda: objects.find("ServingCluster", "ending") is None, "the cluster is gone")
    if api.has_gc:
        wait_for(lambda: objects.find("RayService", "ending") is None, "what it owned is gone", 30)
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
    assert served_weights(objects, "default", "chat") == {"llama": 30, "mistral": 70}
    assert ray_cluster(objects) == before


def test_no_secret_is_anywhere_but_in_secrets(objects: Objects, operator: Operator, traces: Spans) -> None:
    own = objects.get("Secret", "default-auth")["data"].values()
    canaries = [TENANT_KEY, HUB_TOKEN, *(base64.b64decode(value).decode() for value in own)]
    assert all(len(canary) > 30 for canary in canaries)
    forms = {form for each in canaries for form in (each, base64.b64encode(each.encode()).decode())}
    kinds = ("RayService", "RayCluster", "ConfigMap", "Event", "Service", "ServiceAccount", "NetworkPolicy")
    custom = ("ServingCluster", "ModelDeployment", "ModelRoute", "Tenant", "Lease")
    places = {kind: json.dumps(objects.list(kind)) for kind in (*kinds, *custom)}
    wait_for(lambda: "reconcile" in traces.text and "apply RayService" in traces.text, "spans")
    places |= {"log": operator.log, "spans": traces.text}
    places["metrics"] = operator.answer("/metrics")[1]
    assert len(places["log"]) > 1_000
    assert {place for place, text in places.items() for form in forms if form in text} == set()
