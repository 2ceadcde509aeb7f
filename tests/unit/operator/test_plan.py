"""Plans: what is applied, what waits, what is held, what is deleted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.api.builders import Data, model
from tests.unit.operator.desired.worlds import (
    CPU_POOL,
    GPU_POOL,
    busy,
    config_of,
    observed,
    service_of,
    world,
)
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.plan import ObjectRef, Plan, plan

MORE = {"more": CPU_POOL}
BOTH = {"cpu": CPU_POOL, **MORE}
OTHER_IMAGE = {"gateway": "registry.example/other:2"}


Objects = dict[ObjectRef, Manifest]


def served(found: Plan, before: Objects | None = None, **changes: Any) -> Objects:
    """The world after a plan was carried out and KubeRay has acted on it."""
    after = copy.deepcopy({**(before or {}), **observed(*found.apply)})
    for ref in found.delete:
        del after[ref]
    for ref, one in after.items():
        if one["kind"] == "RayService":
            old = (before or {}).get(ref, {"metadata": {}})
            generation = old["metadata"].get("generation", 0) + 1
            one["metadata"]["generation"] = generation
            active = {"rayClusterName": "default-one"}
            one["status"] = {"observedGeneration": generation, "activeServiceStatus": active, **changes}
    return after


def at(found: ClusterWorld) -> Objects:
    """A cluster in which this is carried out."""
    return served(plan(desired_objects(found), {}))


def applied(found: Plan) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found.apply]


def groups(found: Plan) -> dict[str, tuple[int, int]]:
    config = service_of(list(found.apply))["spec"]["rayClusterConfig"]
    return {one["groupName"]: (one["minReplicas"], one["maxReplicas"]) for one in config["workerGroupSpecs"]}


def test_at_first_everything_is_applied_in_order() -> None:
    found = plan(desired_objects(busy()), {})
    kinds = [one["kind"] for one in found.apply]
    assert kinds[0] == "ServiceAccount"
    assert kinds[-2:] == ["RayService", "Service"]
    assert (found.delete, found.upgrade, found.waiting) == ((), None, False)


def test_nothing_is_done_when_nothing_differs() -> None:
    found = plan(desired_objects(busy()), at(busy()))
    assert (found.apply, found.delete, found.upgrade) == ((), (), None)


def test_what_the_api_server_fills_in_is_no_difference() -> None:
    there = at(busy())
    for one in there.values():
        one["metadata"]["uid"] = "1"
        if one["kind"] == "Service":
            one["spec"]["clusterIP"] = "10.0.0.1"
        if one["kind"] == "NetworkPolicy":
            one["spec"] = {key: value for key, value in one["spec"].items() if value}
        if one["kind"] == "RayService":
            one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["priority"] = 0
    assert plan(desired_objects(busy()), there).apply == ()


def test_a_field_that_somebody_changed_is_put_right() -> None:
    there = at(busy())
    for one in there.values():
        if one["kind"] == "Service":
            one["spec"]["selector"]["ray.io/group"] = "pool-cpu"
    assert applied(plan(desired_objects(busy()), there)) == ["Service/default"]


def test_a_field_that_is_no_longer_wanted_is_applied_away() -> None:
    limited = busy(networkPolicy={"allowFrom": [{"podSelector": {"app": "web"}}]})
    assert applied(plan(desired_objects(busy()), at(limited))) == ["NetworkPolicy/default-gateway"]


def test_weights_change_serve_config_only() -> None:
    before, found = at(busy(80)), plan(desired_objects(busy(50)), at(busy(80)))
    assert applied(found) == ["RayService/default"]
    (service,) = found.apply
    old = before[ObjectRef.of(service)]["spec"]
    assert service["spec"]["rayClusterConfig"] == old["rayClusterConfig"]
    assert service["spec"]["serveConfigV2"] != old["serveConfigV2"]
    assert (found.upgrade, found.waiting) == (None, False)


def test_a_pool_is_added_at_the_end_in_place_wherever_the_spec_has_it() -> None:
    found = plan(desired_objects(world(pools=BOTH)), at(world()))
    assert list(groups(found)) == ["gateway", "pool-cpu", "pool-more"]
    assert found.upgrade is not None
    assert (found.upgrade.kind, found.upgrade.reasons) == ("in-place", ("Pool 'more' is added.",))


def test_a_pool_that_is_taken_away_stays_without_pods() -> None:
    found = plan(desired_objects(world(pools=MORE)), at(world(pools=BOTH)))
    assert groups(found) == {"gateway": (2, 2), "pool-cpu": (0, 0), "pool-more": (0, 2)}
    assert found.upgrade is not None
    assert found.upgrade.reasons == ("Pool 'cpu' goes from 0 to 2 pods to 0 pods.",)
    again = plan(desired_objects(world(pools=MORE)), served(found, at(world(pools=BOTH))))
    assert again.apply == ()


def test_it_goes_with_the_next_second_cluster() -> None:
    removed = plan(desired_objects(world(pools=MORE)), at(world(pools=BOTH)))
    there = served(removed, at(world(pools=BOTH)))
    found = plan(desired_objects(world(pools=MORE, images=OTHER_IMAGE)), there)
    assert list(groups(found)) == ["gateway", "pool-more"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"images": OTHER_IMAGE}, "The gateway: image changes from "),
        ({"head": {"cpus": 3}}, "The head: resources.requests.cpu changes from 2 to 3."),
        ({"rayVersion": "2.61.0"}, "The Ray cluster: rayVersion changes from 2.60.0 to 2.61.0."),
        (
            {"pools": {"cpu": {**CPU_POOL, "memory": "16Gi"}}},
            "Pool 'cpu': resources.limits.memory changes from 8Gi to 16Gi.",
        ),
        (
            {"telemetry": {"otlpEndpoint": "http://secret-host:4318"}},
            "The gateway: variable OTEL_EXPORTER_OTLP_ENDPOINT changes.",
        ),
        ({"gateway": {"nodeSelector": {"a": "b"}}}, "The gateway: nodeSelector becomes {'a': 'b'}."),
    ],
    ids=["image", "head", "version", "memory", "variable", "selector"],
)
def test_what_needs_a_second_cluster_says_why(spec: Data, reason: str) -> None:
    found = plan(desired_objects(world(**spec)), at(world())).upgrade
    assert found is not None
    assert found.kind == "new-cluster"
    assert any(one.startswith(reason) for one in found.reasons), found.reasons
    assert "secret-host" not in " ".join(found.reasons)


@pytest.mark.parametrize(
    "spec",
    [
        {"gateway": {"replicas": 5}},
        {"pools": {"cpu": {**CPU_POOL, "minNodes": 1, "maxNodes": 9}}},
        {"pools": {"cpu": {**CPU_POOL, "tolerations": [{"key": "a", "operator": "Exists"}]}}},
        {"upgradeStrategy": {"type": "Hold"}},
        {"networkPolicy": {"enabled": False}},
        {"limits": {"choices": 3}},
    ],
    ids=["gateways", "size", "tolerations", "strategy", "policies", "limits"],
)
def test_what_needs_none_builds_none(spec: Data) -> None:
    found = plan(desired_objects(world(**spec)), at(world())).upgrade
    assert found is None or found.kind == "in-place"


def test_no_cluster_is_no_second_cluster() -> None:
    there = served(plan(desired_objects(world()), {}), activeServiceStatus={})
    found = plan(desired_objects(world(head={"cpus": 3})), there)
    assert found.upgrade is None
    assert service_of(list(found.apply))["spec"]["rayClusterConfig"] == config_of(world(head={"cpus": 3}))


def test_the_gpus_of_a_second_cluster_are_counted() -> None:
    pools = {"l4": {**GPU_POOL, "minNodes": 1}, "h100": {**GPU_POOL, "gpus": 8, "minNodes": 1}}
    models = [model(resources={"gpus": 1, "pool": "l4"}, replicas=3)]
    there = at(world(*models, pools=pools))
    found = plan(desired_objects(world(*models, pools=pools, head={"cpus": 3})), there).upgrade
    assert found is not None
    assert found.gpus == 3 + 8


def test_an_image_goes_before_serve_config_and_that_follows_when_kuberay_has_seen_it() -> None:
    wanted = desired_objects(busy(50, images=OTHER_IMAGE))
    there = at(busy(80))
    first = plan(wanted, there)
    (service,) = (one for one in first.apply if one["kind"] == "RayService")
    assert first.waiting
    assert service["spec"]["serveConfigV2"] == there[ObjectRef.of(service)]["spec"]["serveConfigV2"]
    assert service["spec"]["rayClusterConfig"] == config_of(busy(50, images=OTHER_IMAGE))

    unseen = served(first, there, observedGeneration=1)
    second = plan(wanted, unseen)
    assert second.waiting
    assert second.apply == ()

    third = plan(wanted, served(first, there))
    assert not third.waiting
    assert third.upgrade is None
    (last,) = third.apply
    assert last["spec"]["serveConfigV2"] == service_of(wanted)["spec"]["serveConfigV2"]
    assert plan(wanted, served(third, unseen)).apply == ()


def test_hold_keeps_the_cluster_says_so_and_lets_traffic_change() -> None:
    hold = {"upgradeStrategy": {"type": "Hold"}, "images": OTHER_IMAGE, "gateway": {"replicas": 4}}
    there = at(busy(80))
    wanted = desired_objects(busy(50, **hold, pools=BOTH))
    found = plan(wanted, there)
    assert found.upgrade is not None
    assert (found.upgrade.kind, found.upgrade.held) == ("new-cluster", True)
    (service,) = (one for one in found.apply if one["kind"] == "RayService")
    config = service["spec"]["rayClusterConfig"]
    assert config["headGroupSpec"] == config_of(busy())["headGroupSpec"]
    assert groups(found) == {"gateway": (4, 4), "pool-cpu": (0, 2), "pool-more": (0, 2)}
    assert service["spec"]["serveConfigV2"] == service_of(wanted)["spec"]["serveConfigV2"]
    assert service["spec"]["upgradeStrategy"] == {"type": "None"}
    again = plan(wanted, served(found, there))
    assert again.apply == ()
    assert again.upgrade is not None
    assert again.upgrade.held


def test_hold_keeps_serve_config_from_images_that_cannot_read_it() -> None:
    there = at(busy(80))
    for one in there.values():
        if one["kind"] == "RayService":
            head = one["spec"]["rayClusterConfig"]["headGroupSpec"]
            head["template"]["metadata"]["annotations"]["tradewind.dev/config-format"] = "0"
    found = plan(desired_objects(busy(50, upgradeStrategy={"type": "Hold"})), there)
    (service,) = (one for one in found.apply if one["kind"] == "RayService")
    assert service["spec"]["serveConfigV2"] == there[ObjectRef.of(service)]["spec"]["serveConfigV2"]


def test_ours_that_is_no_longer_wanted_is_deleted_and_nothing_else() -> None:
    there = at(world())
    stranger = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "theirs", "namespace": "models", "labels": {"tradewind.dev/cluster": "default"}},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**service_of(world())["metadata"], "name": "default-auth"},
    }
    there |= observed(stranger, secret)
    spec: Data = {"networkPolicy": {"enabled": False}, "gateway": {"replicas": 3}}
    found = plan(desired_objects(world(**spec)), there)
    assert [f"{ref.kind}/{ref.name}" for ref in found.delete] == [
        "NetworkPolicy/default-engines",
        "NetworkPolicy/default-gateway",
        "NetworkPolicy/default-head",
        "NetworkPolicy/default-pods",
    ]


def test_a_claim_goes_only_when_no_pod_can_want_it() -> None:
    cached = world(pools={"cpu": CPU_POOL, "more": {**CPU_POOL, "cache": {"storageClassName": "files"}}})
    kept = plan(desired_objects(world()), at(cached))
    assert kept.delete == ()
    rebuilt = world(images=OTHER_IMAGE)
    there = served(plan(desired_objects(rebuilt), at(cached)), at(cached))
    assert [ref.kind for ref in plan(desired_objects(rebuilt), there).delete] == ["PersistentVolumeClaim"]


def test_sizes_are_brought_into_the_ray_cluster_that_kuberay_leaves_alone() -> None:
    there = at(world())
    config = copy.deepcopy(config_of(world()))
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "default-one", "namespace": "models"},
        "spec": config,
    }
    config["workerGroupSpecs"][1]["replicas"] = 2  # the autoscaler's
    there |= observed(cluster)
    assert plan(desired_objects(world()), there).resize == ()
    found = plan(desired_objects(world(pools={"cpu": {**CPU_POOL, "maxNodes": 7}})), there)
    (patch,) = found.resize
    assert (patch.ref.kind, patch.ref.name) == ("RayCluster", "default-one")
    assert patch.operations == (
        {"op": "test", "path": "/spec/workerGroupSpecs/1/groupName", "value": "pool-cpu"},
        {"op": "add", "path": "/spec/workerGroupSpecs/1/maxReplicas", "value": 7},
    )


def test_nothing_that_is_given_is_changed() -> None:
    wanted, there = desired_objects(busy(50, images=OTHER_IMAGE)), at(busy(80))
    before = copy.deepcopy((wanted, there))
    plan(wanted, there)
    assert (wanted, there) == before
