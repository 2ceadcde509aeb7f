"""Reconciles on an API of dicts: what is written, how little is asked, what one failure does to the rest."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.unit.api.builders import cluster, model, route, tenant
from tests.unit.operator.fake_api import FakeApi, Object
from tests.unit.operator.fake_clock import FakeClock
from tradewind_operator.credentials import Credentials
from tradewind_operator.errors import Invalid, Unreachable
from tradewind_operator.events import Events
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import (
    EVENT,
    MODEL_DEPLOYMENT,
    MODEL_ROUTE,
    RAY_SERVICE,
    SECRET,
    SERVING_CLUSTER,
    TENANT,
    Resource,
)
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.operator import allowed_images, defaults_of
from tradewind_operator.publish import Publisher
from tradewind_operator.reconcile import Reconciler, Terms
from tradewind_operator.routing import Key
from tradewind_operator.settings import Settings
from tradewind_operator.status.live import Live

POOL = {"cpus": 4, "memory": "16Gi", "maxNodes": 4}
CANARY = "tw-canary-0123456789abcdef"
KEY = Key("ns", "default")


class Eyes:
    """Nothing can be reached."""

    async def read(self, serve_url: str, gateway_url: str, credentials: Credentials) -> Live:
        return Live()


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
        terms = Terms(defaults_of(settings), settings.serve_url, settings.endpoint)
        self.reconciler = Reconciler(
            self.api,
            gatherer,
            Eyes(),
            Publisher(self.api, events),
            terms,
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

    def reasons(self, kind: Resource, name: str) -> dict[str, str]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return {item["type"]: item["reason"] for item in conditions}

    def events(self) -> list[Object]:
        return [item for (plural, _, _), item in self.api.objects.items() if plural == EVENT.plural]


def secret(name: str, **values: str) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def all_of_it() -> Sequence[Object]:
    return (
        secret("keys", acme=CANARY),
        cluster(pools={"cpu": POOL}),
        model("llama", resources={"cpus": 2, "memory": "4Gi"}),
        route("chat", variants=[{"name": "only", "deployment": "llama", "weight": 100}]),
        tenant("acme", keys=[{"secret": {"name": "keys", "key": "acme"}}]),
    )


async def test_the_first_reconcile_makes_everything_and_the_second_changes_nothing() -> None:
    world = World()
    world.put(*all_of_it())
    again, _ = await world.reconcile()
    assert again == 2.0
    assert '"llama"' in world.get(RAY_SERVICE, "default")["spec"]["serveConfigV2"]
    for kind, name in ((MODEL_DEPLOYMENT, "llama"), (MODEL_ROUTE, "chat"), (TENANT, "acme")):
        assert world.reasons(kind, name)["Accepted"] == "Accepted"
    assert world.get(MODEL_DEPLOYMENT, "llama")["metadata"]["finalizers"] == ["tradewind.dev/drain"]
    assert world.get(SERVING_CLUSTER, "default")["metadata"]["finalizers"] == ["tradewind.dev/protect"]
    assert world.homes == {"ns": {"default"}}
    _, calls = await world.reconcile()
    assert calls == [("get", "rayservices", "default")]
    world.clock.time += 31
    _, calls = await world.reconcile()
    assert {verb for verb, _, _ in calls} == {"get", "list"}


async def test_a_change_of_a_route_takes_at_most_ten_calls() -> None:
    world = World()
    world.put(*all_of_it())
    await world.reconcile()
    changed = world.get(MODEL_ROUTE, "chat")
    changed["spec"]["timeouts"] = {"firstToken": "77s"}
    world.api.put(changed)
    world.reconciler.changed(KEY)
    _, calls = await world.reconcile()
    assert len(calls) <= 10
    assert ("apply", "rayservices", "default") in calls
    assert "77" in world.get(RAY_SERVICE, "default")["spec"]["serveConfigV2"]


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
    assert "apply RayService" in names


async def test_what_the_api_server_refuses_is_said_on_the_cluster_and_the_verdicts_are_told_too() -> None:
    world = World()
    world.put(*all_of_it())
    world.api.failing["apply", "rayservices"] = Invalid(
        "apply RayService ns/default", 422, "Invalid", "spec.x is wrong"
    )
    with pytest.raises(Invalid):
        await world.reconcile()
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] == "ReconcileError"
    assert world.reasons(SERVING_CLUSTER, "default")["Accepted"] == "Accepted"
    assert "spec.x is wrong" in str(world.get(SERVING_CLUSTER, "default")["status"]["conditions"])
    (event,) = [item for item in world.events() if item["reason"] == "ReconcileError"]
    assert event["type"] == "Warning"
    assert world.reasons(MODEL_DEPLOYMENT, "llama")["Accepted"] == "Accepted"
    world.api.failing.clear()
    await world.reconcile()
    assert world.reasons(SERVING_CLUSTER, "default")["Ready"] != "ReconcileError"
    assert world.api.find(RAY_SERVICE, "ns", "default") is not None


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


async def test_a_second_ray_cluster_is_announced_before_it_is_asked_for() -> None:
    world = World()
    world.put(*all_of_it())
    await world.reconcile()
    service = world.get(RAY_SERVICE, "default")
    status = {"observedGeneration": 1, "activeServiceStatus": {"rayClusterName": "default-abc"}}
    world.api.put({**service, "status": status})
    changed = world.get(SERVING_CLUSTER, "default")
    changed["spec"]["head"] = {"cpus": 4}
    world.api.put(changed)
    world.reconciler.changed(KEY)
    _, calls = await world.reconcile()
    told = calls.index(("status", "servingclusters", "default"))
    assert told < calls.index(("apply", "rayservices", "default"))
    conditions = world.get(SERVING_CLUSTER, "default")["status"]["conditions"]
    (upgrade,) = [item for item in conditions if item["type"] == "ClusterUpgrade"]
    assert (upgrade["status"], upgrade["reason"]) == ("True", "InProgress")


async def test_a_namespace_without_anything_is_forgotten() -> None:
    world = World()
    again, _ = await world.reconcile()
    assert again is None
