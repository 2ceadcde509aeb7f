"""From events to keys: only what people or KubeRay change asks for a reconcile."""

from __future__ import annotations

from typing import Any

from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE, RAY_CLUSTER, SERVING_CLUSTER, TENANT
from tradewind_operator.wakeups import ClusterKey, Wakeups


def body(name: str, generation: int = 1, uid: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid or name, "generation": generation}
    return {"metadata": metadata | more.pop("metadata", {}), **more}


def test_a_new_spec_counts_and_our_own_writes_do_not() -> None:
    router = Wakeups()
    assert router.seen(SERVING_CLUSTER, None, body("default")) == [ClusterKey("ns", "default")]
    assert router.seen(MODEL_DEPLOYMENT, "ADDED", body("llama", spec={})) == [ClusterKey("ns", "default")]
    finalized = body("llama", status={"state": "Running"}, metadata={"finalizers": ["tradewind.dev/drain"]})
    assert router.seen(MODEL_DEPLOYMENT, "MODIFIED", finalized) == []
    assert router.seen(MODEL_DEPLOYMENT, "MODIFIED", body("llama", generation=2)) == [
        ClusterKey("ns", "default")
    ]


def test_an_annotation_and_a_deletion_count() -> None:
    router = Wakeups()
    router.seen(SERVING_CLUSTER, None, body("default"))
    marked = body("default", metadata={"annotations": {"tradewind.dev/delete-models": "true"}})
    assert router.seen(SERVING_CLUSTER, "MODIFIED", marked)
    assert router.seen(SERVING_CLUSTER, "MODIFIED", body("default", metadata={"deletionTimestamp": "x"}))
    assert router.seen(SERVING_CLUSTER, "DELETED", body("default", metadata={"deletionTimestamp": "x"}))


def test_a_relist_of_what_is_known_asks_for_nothing() -> None:
    router = Wakeups()
    assert router.seen(TENANT, None, body("acme"))
    assert router.seen(TENANT, None, body("acme")) == []


def test_a_route_or_tenant_concerns_every_cluster_of_its_namespace() -> None:
    router = Wakeups()
    router.seen(SERVING_CLUSTER, None, body("a"))
    router.seen(SERVING_CLUSTER, None, body("b"))
    assert router.seen(MODEL_ROUTE, "ADDED", body("chat")) == [ClusterKey("ns", "a"), ClusterKey("ns", "b")]


def test_what_was_accepted_of_a_tenant_is_news_where_several_clusters_go_by_it() -> None:
    router, taken = Wakeups(), {"accepted": {"generation": 1, "spec": {"models": ["*"]}}, "keys": 1}
    router.seen(SERVING_CLUSTER, None, body("a"))
    assert router.seen(TENANT, "ADDED", body("acme"))
    assert router.seen(TENANT, "MODIFIED", body("acme", status=taken)) == []
    router.seen(SERVING_CLUSTER, None, body("b"))
    both = [ClusterKey("ns", "a"), ClusterKey("ns", "b")]
    assert router.seen(TENANT, "ADDED", body("beta")) == both
    assert router.seen(TENANT, "MODIFIED", body("beta", status=taken)) == both
    assert router.seen(TENANT, "MODIFIED", body("beta", status={**taken, "keys": 2})) == []
    assert router.seen(SERVING_CLUSTER, "MODIFIED", body("a", status=taken)) == []


def test_a_rayservice_counts_by_its_status_without_times() -> None:
    router = Wakeups()
    labels = {"labels": {"tradewind.dev/cluster": "chat"}}
    status = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1"}]}
    first = body("chat", metadata=labels, status=status)
    assert router.seen(RAY_CLUSTER, None, first) == [ClusterKey("ns", "chat")]
    later = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2"}]}
    assert router.seen(RAY_CLUSTER, "MODIFIED", body("chat", 2, metadata=labels, status=later)) == []
    ready = {"conditions": [{"type": "Ready", "status": "False"}]}
    assert router.seen(RAY_CLUSTER, "MODIFIED", body("chat", metadata=labels, status=ready))


def test_what_a_reconcile_finds_out_about_clusters_replaces_what_was_guessed() -> None:
    router = Wakeups()
    router.seen(MODEL_DEPLOYMENT, "ADDED", body("llama", spec={"cluster": "gone"}))
    assert router.know("ns", {"default"}) == [ClusterKey("ns", "default")]
    assert router.keys() == [ClusterKey("ns", "default")]
    assert router.know("ns", {"default"}) == []
