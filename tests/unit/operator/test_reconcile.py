"""Reconciles on an API of dicts: what is written, how little is asked, what one failure does to the rest."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.unit.api.builders import changed, cluster, model, route, tenant
from tests.unit.operator.fake_api import FakeApi, Object
from tests.unit.operator.fake_clock import FakeClock
from tests.unit.operator.played import PlayedRays, PlayedTender
from tradewind_operator.errors import Forbidden, Invalid, NotServed, Unreachable
from tradewind_operator.events import Events
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import (
    EVENT,
    MODEL_DEPLOYMENT,
    MODEL_ROUTE,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    SERVICE,
    SERVING_CLUSTER,
    TENANT,
    VOLUME_CLAIM,
    Resource,
)
from tradewind_operator.measures import CONDITION
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.operator import allowed_images, defaults_of
from tradewind_operator.publish import Publisher
from tradewind_operator.reconcile import Reconciler, ReconcileSettings
from tradewind_operator.rhythm import Rhythm
from tradewind_operator.settings import Settings
from tradewind_operator.wakeups import ClusterKey

POOL = {"cpus": 4, "memory": "16Gi", "maxNodes": 4}
CANARY = "tw-canary-0123456789abcdef"
KEY = ClusterKey("ns", "default")


class World:
    """A reconciler, and everything around it."""

    def __init__(self) -> None:
        self.api, self.clock, self.metrics = FakeApi(), FakeClock(), OperatorMetrics()
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        settings = Settings()
        self.homes: dict[str, set[str]] = {}
        gatherer = Gatherer(self.api, allowed_images(settings), 30.0, self._know)
        events = Events(self.api, "me", clock=self.clock, now=self.clock.now)
        self.rays = PlayedRays(self.clock)
        to = ReconcileSettings(
            defaults_of(settings),
            lambda _, name: f"serve://{name}",
            lambda _, name: f"gateway://{name}",
            Rhythm(),
        )
        self.reconciler = Reconciler(
            self.api,
            gatherer,
            PlayedTender(self.rays),
            Publisher(self.api, events, self.metrics.conditions),
            to,
            self.metrics,
            provider.get_tracer("test"),
            clock=self.clock,
            now=self.clock.now,
        )

    def _know(self, namespace: str, clusters: Any) -> None:
        self.homes[namespace] = set(clusters)

    def put(self, *documents: Object) -> None:
        for document in documents:
            self.api.put({**document, "metadata": {**document["metadata"], "namespace": "ns"}})

    def get(self, kind: Resource, name: str) -> Object:
        found = self.api.find(kind, "ns", name)
        assert found is not None
        return found

    async def reconcile(self) -> tuple[float | None, list[tuple[str, str, str]]]:
        """Seconds until the next, and the calls."""
        before = len(self.api.calls)
        again = await self.reconciler(KEY)
        return again, self.api.calls[before:]

    async def settle(self, passes: int = 8) -> None:
        """Reconcile and play, until long enough."""
        for _ in range(passes):
            self.rays.play(self.api, "ns")
            self.clock.time += 6
            await self.reconciler(KEY)

    def clusters(self) -> list[str]:
        return sorted(name for plural, _, name in self.api.objects if plural == RAY_CLUSTER.plural)

    def edit(self, kind: Resource, name: str, **spec: Any) -> None:
        """Somebody changes fields of a spec, and the operator hears of it."""
        found = self.get(kind, name)
        found["spec"] |= spec
        self.api.put(found)
        self.reconciler.changed(KEY, kind)

    def hear(self, document: Object) -> None:
        self.put(document)
        self.reconciler.changed(KEY)

    def keys(self, cluster: str) -> list[Any]:
        """ClusterKey hashes that the gateways of a RayCluster were given."""
        gateway = self.rays.config(cluster)["applications"][0]["deployments"][0]["user_config"]
        return [each for entry in gateway.get("tenants", ()) for each in entry["key_hashes"]]

    def reasons(self, kind: Resource, name: str) -> dict[str, str]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return {item["type"]: item["reason"] for item in conditions}

    def shown(self) -> dict[tuple[str, str, str], tuple[str, str]]:
        """Status and reason by kind, name and condition, as Prometheus is told them; each once."""
        samples = [
            sample.labels
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == CONDITION.name and sample.value == 1
        ]
        assert {each["namespace"] for each in samples} <= {"ns"}
        found = {
            (each["kind"], each["name"], each["condition"]): (each["status"], each["reason"])
            for each in samples
        }
        assert len(found) == len(samples)
        return found

    def events(self) -> list[Object]:
        return [item for (plural, _, _), item in self.api.objects.items() if plural == EVENT.plural]


def secret(name: str, **values: str) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def storage_class(*, default: bool) -> Object:
    """It has no namespace; the API of dicts wants one."""
    annotation = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
    about = {"name": "standard", "namespace": "", "annotations": annotation}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": about}


def all_of_it() -> Sequence[Object]:
    return (
        secret("keys", acme=CANARY),
        cluster(pools={"cpu": POOL}),
        model("llama", resources={"cpus": 2, "memory": "4Gi"}),
        route("chat", variants=[{"name": "only", "deployment": "llama", "weight": 100}]),
        tenant("acme", keys=[{"secret": {"name": "keys", "key": "acme"}}]),
    )


async def test_the_first_reconcile_makes_everything_and_later_ones_change_nothing() -> None:
    world = World()
    world.put(*all_of_it())
    await world.reconcile()
    (name,) = world.clusters()
    assert world.get(SERVING_CLUSTER, "default")["status"]["rayCluster"] == name
    for kind, each in ((MODEL_DEPLOYMENT, "llama"), (MODEL_ROUTE, "chat"), (TENANT, "acme")):
        assert world.reasons(kind, each)["Accepted"] == "Accepted"
    assert world.get(MODEL_DEPLOYMENT, "llama")["metadata"]["finalizers"] == ["tradewind.dev/drain"]
    assert world.get(SERVING_CLUSTER, "default")["metadata"]["finalizers"] == ["tradewind.dev/protect"]
    assert world.homes == {"ns": {"default"}}
    await world.settle()
    for kind, each in ((SERVING_CLUSTER, "default"), (MODEL_DEPLOYMENT, "llama"), (MODEL_ROUTE, "chat")):
        assert world.reasons(kind, each)["Ready"] == "Ready"
    world.clock.time += 31
    _, calls = await world.reconcile()
    assert {verb for verb, _, _ in calls} == {"get", "list"}
    assert world.rays.told == [name]


async def test_where_a_storage_class_is_the_default_the_head_keeps_its_state_on_a_volume() -> None:
    world = World()
    world.api.put(storage_class(default=True))
    world.put(*all_of_it())
    await world.settle()
    (name,) = world.clusters()
    head = world.get(RAY_CLUSTER, name)["spec"]["headGroupSpec"]["template"]["spec"]
    claims = [
        volume["persistentVolumeClaim"] for volume in head["volumes"] if "persistentVolumeClaim" in volume
    ]
    assert claims == [{"claimName": f"{name}-gcs"}]
    assert world.get(VOLUME_CLAIM, f"{name}-gcs")["spec"]["accessModes"] == ["ReadWriteOnce"]
    # What is the default later changes nothing of what is there.
    world.api.put(storage_class(default=False))
    world.clock.time += 31
    await world.settle()
    assert world.clusters() == [name]


async def test_a_volume_goes_with_the_ray_cluster_that_used_it() -> None:
    world = World()
    world.api.put(storage_class(default=True))
    world.put(*all_of_it())
    await world.settle()
    (first,) = world.clusters()
    world.edit(SERVING_CLUSTER, "default", head={"cpus": 3}, upgradeStrategy={"type": "NewCluster"})
    await world.settle(70)  # five minutes of draining, and more
    (second,) = world.clusters()
    assert second != first
    claims = {name for plural, _, name in world.api.objects if plural == VOLUME_CLAIM.plural}
    assert claims == {f"{second}-gcs"}


async def test_an_operator_that_may_not_ask_for_storage_classes_goes_on_without_a_volume() -> None:
    world = World()
    world.api.failing["list", "storageclasses"] = Forbidden("list", 403, "Forbidden")
    world.put(*all_of_it())
    await world.settle()
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] == "Ready"
    assert not [name for plural, _, name in world.api.objects if plural == VOLUME_CLAIM.plural]


async def test_prometheus_is_told_what_the_conditions_are_now() -> None:
    world = World()
    world.put(*all_of_it(), route("lost", variants=[{"name": "only", "deployment": "none", "weight": 1}]))
    await world.reconcile()
    assert world.shown()["ModelDeployment", "llama", "Ready"][0] == "False"
    await world.settle()
    shown = world.shown()
    assert shown["ModelDeployment", "llama", "Ready"] == ("True", "Ready")
    assert shown["ModelRoute", "lost", "Accepted"] == (
        "False",
        world.reasons(MODEL_ROUTE, "lost")["Accepted"],
    )
    of_models = {"Accepted", "Ready"}
    assert {each[2] for each in shown} == of_models | {"HeadReady", "PodsCurrent", "ClusterUpgrade"}
    assert {each[2] for each in shown if each[0] != "ServingCluster"} == of_models
    assert {(kind, name) for kind, name, _ in shown} == {
        ("ServingCluster", "default"),
        ("ModelDeployment", "llama"),
        ("ModelRoute", "chat"),
        ("ModelRoute", "lost"),
        ("Tenant", "acme"),
    }


async def test_prometheus_is_told_nothing_of_what_is_gone_or_belongs_to_another_cluster() -> None:
    world = World()
    world.put(
        *all_of_it(),
        changed(cluster(pools={"cpu": POOL}), "metadata.name", "other"),
        tenant("late", cluster="other"),
    )
    await world.settle()
    await world.reconciler(ClusterKey("ns", "other"))
    assert ("Tenant", "late", "Accepted") in world.shown()
    world.api.remove(MODEL_ROUTE, "ns", "chat")
    world.api.remove(TENANT, "ns", "acme")
    world.reconciler.changed(KEY)
    await world.reconcile()
    kinds = {(kind, name) for kind, name, _ in world.shown()}
    assert not {("ModelRoute", "chat"), ("Tenant", "acme")} & kinds
    assert {("ModelDeployment", "llama"), ("Tenant", "late")} <= kinds
    for plural, place, name in list(world.api.objects):
        if plural in {kind.plural for kind in (SERVING_CLUSTER, MODEL_DEPLOYMENT, TENANT)}:
            del world.api.objects[plural, place, name]
    for each in ("default", "other"):
        world.reconciler.changed(ClusterKey("ns", each))
        await world.reconciler(ClusterKey("ns", each))
    assert world.shown() == {}


async def test_between_two_looks_only_the_secrets_are_read() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    world.clock.time += 1.1
    again, calls = await world.reconcile()
    assert calls == [("get", "secrets", "keys")]
    assert again is not None
    assert again <= 1.0


async def test_a_key_that_left_its_secret_opens_nothing_a_second_later() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    (name,) = world.clusters()
    assert len(world.keys(name)) == 1
    world.put(secret("keys", other="nothing-of-interest-0123456789"))
    world.clock.time += 1.1
    await world.reconcile()
    assert world.keys(name) == []


async def test_two_clusters_of_a_namespace_take_the_same_keys_and_one_speaks_of_the_tenant() -> None:
    world, other = World(), ClusterKey("ns", "other")
    far = model("far", cluster="other", resources={"cpus": 2, "memory": "4Gi"})
    world.put(*all_of_it()[:-1], changed(cluster(pools={"cpu": POOL}), "metadata.name", "other"), far)

    async def given() -> list[int]:
        """How many keys the gateways of each have, a second later: each cluster hashes for itself."""
        world.clock.time += 1.1
        for key in (other, KEY):
            await world.reconciler(key)
        found = [world.keys(name) for name in world.clusters()]
        assert len({key for keys in found for key in keys}) == sum(map(len, found))
        return [len(keys) for keys in found]

    for _ in range(8):
        world.rays.play(world.api, "ns")
        await world.reconciler(other)
        await world.settle(1)
    world.put(secret("keys", acme=CANARY, second=f"{CANARY}-2"))
    world.put(tenant("acme", keys=[{"secret": {"name": "keys", "key": key}} for key in ("acme", "second")]))
    world.clock.time += 31
    await world.reconciler(other)
    assert "status" not in world.get(TENANT, "acme")
    await world.reconciler(KEY)
    assert world.reasons(TENANT, "acme")["Accepted"] == "Accepted"
    world.reconciler.changed(other, TENANT)  # As `Wakeups` says of what was accepted.
    assert await given() == [2, 2]
    world.put(secret("keys", acme=CANARY))
    assert await given() == [1, 1]
    assert world.reasons(TENANT, "acme")["Accepted"] == "SecretKeyNotFound"
    world.put(secret("keys"))
    assert await given() == [0, 0]


async def test_a_change_of_a_route_takes_at_most_ten_calls() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    world.edit(MODEL_ROUTE, "chat", timeouts={"firstToken": "77s"})
    _, calls = await world.reconcile()
    assert len(calls) <= 10
    assert "77" in str(world.rays.config(*world.clusters()))


async def test_no_key_is_in_anything_but_the_secret_it_came_from() -> None:
    world = World()
    world.put(*all_of_it())
    await world.reconcile()
    kept = {key: value for key, value in world.api.objects.items() if key[0] != SECRET.plural}
    assert CANARY not in str(kept)
    assert CANARY not in str([span.to_json() for span in world.spans.get_finished_spans()])


async def test_a_wrong_resource_is_told_so_and_the_others_go_on() -> None:
    world = World()
    world.put(*all_of_it(), model("bad", source={"uri": "ftp://nowhere"}))
    await world.reconcile()
    assert world.reasons(MODEL_DEPLOYMENT, "bad")["Accepted"] == "Invalid"
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Accepted"] == "Accepted"
    (event,) = [item for item in world.events() if item["regarding"]["name"] == "bad"]
    (span,) = [span for span in world.spans.get_finished_spans() if span.name == "reconcile"]
    assert span.context is not None
    assert f"(trace {span.context.trace_id:032x})" in event["note"]
    assert span.attributes is not None
    assert span.attributes["tradewind.result"] == "ok"
    names = {child.name for child in world.spans.get_finished_spans() if child.parent is not None}
    assert {"create RayCluster", "apply Service"} <= names


async def test_what_the_api_server_refuses_is_said_on_the_cluster_and_the_verdicts_are_told_too() -> None:
    world = World()
    world.put(*all_of_it())
    world.api.failing["create", "rayclusters"] = Invalid(
        "create RayCluster ns/default", 422, "Invalid", "spec.x is wrong"
    )
    with pytest.raises(Invalid):
        await world.reconcile()
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] == "ReconcileError"
    assert world.shown()["ServingCluster", "default", "Ready"] == ("False", "ReconcileError")
    assert world.reasons(SERVING_CLUSTER, "default")["Accepted"] == "Accepted"
    assert "spec.x is wrong" in str(world.get(SERVING_CLUSTER, "default")["status"]["conditions"])
    (event,) = [item for item in world.events() if item["reason"] == "ReconcileError"]
    assert event["type"] == "Warning"
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Accepted"] == "Accepted"
    world.api.failing.clear()
    await world.reconcile()
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] != "ReconcileError"
    assert len(world.clusters()) == 1


async def test_an_unexpected_error_is_told_by_its_class_alone(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put(*all_of_it())
    world.api.failing["list", "tenants"] = RuntimeError(f"around {CANARY}")  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        await world.reconcile()
    (condition,) = world.get(SERVING_CLUSTER, "default")["status"]["conditions"]
    assert condition["message"] == "RuntimeError. The operator tries again."
    assert "RuntimeError" in caplog.text
    assert all(CANARY not in record.getMessage() for record in caplog.records)


async def test_without_an_api_server_nothing_is_told_and_nothing_breaks() -> None:
    world = World()
    world.put(*all_of_it())
    for place in (("list", "tenants"), ("get", "servingclusters")):
        world.api.failing[place] = Unreachable("list", 0)
    with pytest.raises(Unreachable):
        await world.reconcile()
    world.api.failing.clear()
    await world.reconcile()
    assert world.reasons(TENANT, "acme")["Accepted"] == "Accepted"


async def test_a_second_ray_cluster_waits_for_approval_and_takes_over() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    (first,) = world.clusters()
    world.edit(SERVING_CLUSTER, "default", head={"cpus": 4})
    await world.settle(2)
    assert world.clusters() == [first]
    assert world.reasons(SERVING_CLUSTER, "default")["ClusterUpgrade"] == "Held"
    found = world.get(SERVING_CLUSTER, "default")
    found["metadata"]["annotations"] = {"tradewind.dev/approve-upgrade": "true"}
    world.hear(found)
    await world.reconcile()
    (second,) = set(world.clusters()) - {first}
    status = world.get(SERVING_CLUSTER, "default")["status"]
    assert (status["rayCluster"], status["pendingRayCluster"]) == (first, second)
    world.edit(MODEL_ROUTE, "chat", timeouts={"firstToken": "77s"})
    await world.settle(1)
    for name in (first, second):
        assert "77" in str(world.rays.config(name))
    await world.settle()
    assert world.get(SERVING_CLUSTER, "default")["status"]["rayCluster"] == second
    assert world.get(SERVICE, "default")["spec"]["selector"]["ray.io/cluster"] == second
    assert world.reasons(SERVING_CLUSTER, "default")["ClusterUpgrade"] == "NoUpgrade"
    await world.settle(70)
    assert world.clusters() == [second]
    assert world.api.find(SERVICE, "ns", f"{first}-gateways") is None


async def test_a_change_that_is_taken_back_gives_the_second_cluster_up() -> None:
    world = World()
    spec = {"pools": {"cpu": POOL}, "upgradeStrategy": {"type": "NewCluster"}}
    world.put(*all_of_it(), cluster(**spec))
    await world.settle()
    (first,) = world.clusters()
    world.edit(SERVING_CLUSTER, "default", head={"cpus": 4})
    await world.reconcile()
    assert len(world.clusters()) == 2
    world.edit(SERVING_CLUSTER, "default", head={})
    await world.reconcile()
    assert world.clusters() == [first]


async def test_models_move_to_new_pods_one_by_one_in_the_same_cluster() -> None:
    world = World()
    world.put(*all_of_it(), model("mistral", resources={"cpus": 1, "memory": "4Gi"}))
    await world.settle()
    (name,) = world.clusters()
    old = [group["groupName"] for group in world.get(RAY_CLUSTER, name)["spec"]["workerGroupSpecs"]]
    world.edit(SERVING_CLUSTER, "default", pools={"cpu": {**POOL, "memory": "24Gi"}})
    await world.reconcile()
    assert world.clusters() == [name]
    await world.settle(1)
    assert world.reasons(SERVING_CLUSTER, "default")["PodsCurrent"] == "Moving"
    await world.settle(12)
    new = [group["groupName"] for group in world.get(RAY_CLUSTER, name)["spec"]["workerGroupSpecs"]]
    assert (new[0], len(new)) == (old[0], 2)
    assert new[1] != old[1]
    assert world.reasons(SERVING_CLUSTER, "default")["PodsCurrent"] == "Current"


async def test_live_data_reach_a_cluster_though_nothing_else_can_be_written() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    (name,) = world.clusters()
    world.api.failing["apply", "networkpolicies"] = Unreachable("apply", 503)
    world.edit(SERVING_CLUSTER, "default", networkPolicy={"allowFrom": [{"podSelector": {"a": "b"}}]})
    world.put(secret("keys", other="nothing-of-interest-0123456789"))
    world.clock.time += 2
    with pytest.raises(Unreachable):
        await world.reconcile()
    assert world.keys(name) == []


async def test_a_lost_head_is_told_nothing_is_torn_down_and_it_is_configured_anew() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    (name,) = world.clusters()
    world.rays.away.add(name)
    lost = world.get(RAY_CLUSTER, name)
    lost["status"]["conditions"][0]["status"] = "False"
    world.api.put(lost)
    world.reconciler.woken(KEY)
    _, calls = await world.reconcile()
    assert world.reasons(SERVING_CLUSTER, "default")["HeadReady"] == "HeadLost"
    assert world.shown()["ServingCluster", "default", "HeadReady"] == ("False", "HeadLost")
    assert world.shown()["ServingCluster", "default", "Ready"] == ("True", "Ready")
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Ready"] == "Ready"
    assert not {verb for verb, _, _ in calls} & {"delete", "apply", "patch"}
    world.rays.away.clear()
    del world.rays.rays[name]
    await world.settle(3)
    assert world.rays.told == [name, name]
    assert world.reasons(SERVING_CLUSTER, "default")["HeadReady"] == "HeadReady"


async def test_a_model_is_let_go_only_when_every_serve_has_said_that_it_is_gone() -> None:
    world = World()
    world.put(*all_of_it(), model("mistral", resources={"cpus": 1, "memory": "4Gi"}))
    await world.settle()
    (name,) = world.clusters()
    world.rays.away.add(name)
    leaving = world.get(MODEL_DEPLOYMENT, "mistral")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.hear(leaving)
    await world.settle(3)
    assert world.api.find(MODEL_DEPLOYMENT, "ns", "mistral") is not None
    world.rays.away.clear()
    await world.settle(4)
    assert world.api.find(MODEL_DEPLOYMENT, "ns", "mistral") is None


async def test_an_earlier_releases_rayservice_keeps_everything_as_it_is() -> None:
    world = World()
    labels = {"app.kubernetes.io/managed-by": "tradewind-operator", "tradewind.dev/cluster": "default"}
    service = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "default"}}
    world.put(*all_of_it(), {**service, "metadata": {"name": "default", "labels": labels}})
    _, calls = await world.reconcile()
    assert world.clusters() == []
    assert ("apply", "services", "default") not in calls
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] == "RayServiceOfEarlierRelease"
    assert "RayServiceOfEarlierRelease" in {item["reason"] for item in world.events()}
    world.api.remove(RAY_SERVICE, "ns", "default")
    await world.settle(6)
    assert len(world.clusters()) == 1


async def test_a_server_without_rayservices_has_none_of_an_earlier_release() -> None:
    world = World()
    world.put(*all_of_it())
    world.api.failing["get", "rayservices"] = NotServed("get RayService ns/default", 404)
    await world.reconcile()
    assert len(world.clusters()) == 1


async def test_pods_name_the_models_on_them() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    (name,) = world.clusters()
    labels = {"tradewind.dev/cluster": "default", "ray.io/cluster": name, "models.tradewind.dev/gone": "true"}
    for each, address in (("one", "10.0.0.1"), ("two", "10.0.0.2")):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": each, "labels": labels}}
        world.put({**pod, "status": {"podIP": address}})
    world.rays.rays[name].node_ips["llama"] = "10.0.0.1"
    await world.settle(1)
    found = {each: set(world.get(POD, each)["metadata"]["labels"]) for each in ("one", "two")}
    assert "models.tradewind.dev/llama" in found["one"] - found["two"]
    assert "models.tradewind.dev/gone" not in found["one"] | found["two"]


async def test_a_status_is_not_written_over_what_somebody_has_changed() -> None:
    world = World()
    world.put(*all_of_it())
    await world.settle()
    touched = world.get(MODEL_DEPLOYMENT, "llama")
    world.api.put({**touched, "metadata": {**touched["metadata"], "labels": {"a": "b"}}})
    world.rays.rays[world.clusters()[0]].broken["llama"] = "out of memory"
    world.reconciler.woken(KEY)
    await world.reconcile()
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Ready"] == "Ready"
    await world.settle(1)
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Ready"] != "Ready"


async def test_a_namespace_without_anything_is_forgotten() -> None:
    world = World()
    again, _ = await world.reconcile()
    assert again is None
