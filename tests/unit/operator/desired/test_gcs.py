"""Where Ray's state is kept: what `auto` means, what the head gets, and what Redis may still be asked."""

from __future__ import annotations

from dataclasses import replace

import kubernetes_validate
import pytest

from tests.unit.operator.desired.test_others import objects, ports
from tests.unit.operator.desired.worlds import config_of, pod_of, world
from tradewind.api.fault_tolerance import GcsFaultTolerance, GcsStorage
from tradewind_operator.desired.backend import Backend, backend_of
from tradewind_operator.desired.gcs import backend_in, gcs_claim, redis_in
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import ClusterWorld

REDIS = {"backend": "redis", "redis": {"address": "rediss://redis.data:6390"}}
NAMED = GcsFaultTolerance(storage=GcsStorage(storage_class_name="ssd"))


def on_a_volume(**spec: object) -> ClusterWorld:
    return replace(world(**spec), storage_class_exists=True)


@pytest.mark.parametrize(
    ("wanted", "exists", "running", "backend"),
    [
        (GcsFaultTolerance(), True, None, Backend.ROCKSDB),
        (GcsFaultTolerance(), False, None, Backend.NONE),
        (NAMED, False, None, Backend.ROCKSDB),
        (GcsFaultTolerance(), True, Backend.NONE, Backend.NONE),
        (GcsFaultTolerance(), False, Backend.ROCKSDB, Backend.ROCKSDB),
        (GcsFaultTolerance(), True, Backend.REDIS, Backend.ROCKSDB),
        (GcsFaultTolerance(backend="none"), True, Backend.ROCKSDB, Backend.NONE),
        (GcsFaultTolerance(backend="rocksdb"), False, None, Backend.ROCKSDB),
    ],
    ids=[
        "a default class",
        "no class",
        "a named class",
        "one came",
        "it went",
        "redis left",
        "none",
        "asked",
    ],
)
def test_auto_takes_a_volume_where_there_is_one_and_keeps_what_it_has(
    wanted: GcsFaultTolerance, exists: bool, running: Backend | None, backend: Backend
) -> None:
    assert backend_of(wanted, storage_class_exists=exists, running=running) is backend


def test_rocksdb_is_two_variables_and_a_claim_of_this_ray_cluster() -> None:
    found = on_a_volume()
    head, name = pod_of(found, "head"), ray_cluster(found)["metadata"]["name"]
    variables = {variable["name"]: variable["value"] for variable in head["containers"][0]["env"]}
    assert variables["RAY_gcs_storage"] == "rocksdb"
    path = variables["RAY_gcs_storage_path"]
    assert {"name": "gcs", "mountPath": path} in head["containers"][0]["volumeMounts"]
    claim = {"claimName": f"{name}-gcs"}
    assert {"name": "gcs", "persistentVolumeClaim": claim} in head["volumes"]
    assert "gcsFaultToleranceOptions" not in config_of(found)  # a gate that is off would refuse it
    gateway = pod_of(found, "gateway")["containers"][0]["env"]
    assert "RAY_gcs_storage" not in {variable["name"] for variable in gateway}


def test_the_claim_is_one_that_kubernetes_takes() -> None:
    made = gcs_claim({"name": "default-abcde-gcs", "namespace": "models"}, NAMED)
    kubernetes_validate.validate(made, "1.37", strict=True)
    assert made["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert made["spec"]["storageClassName"] == "ssd"
    assert "storageClassName" not in gcs_claim({"name": "x"}, GcsFaultTolerance())["spec"]  # "" would be none


@pytest.mark.parametrize(
    ("found", "backend"),
    [
        (on_a_volume(), Backend.ROCKSDB),
        (world(gcsFaultTolerance=REDIS), Backend.REDIS),
        (world(), Backend.NONE),
    ],
    ids=["rocksdb", "redis", "none"],
)
def test_a_ray_cluster_tells_its_backend(found: ClusterWorld, backend: Backend) -> None:
    assert backend_in(config_of(found)) is found.chosen_backend is backend


def test_redis_may_be_asked_until_the_last_ray_cluster_that_used_it_is_gone() -> None:
    with_redis = world(gcsFaultTolerance=REDIS)
    address = redis_in(config_of(with_redis))
    assert address == "rediss://redis.data:6390"
    left = replace(world(), redis_in_use=(address,))
    egress = {
        name: objects(one, "NetworkPolicy")["default-head"]["spec"]["egress"]
        for name, one in {"used": with_redis, "left": left, "gone": world()}.items()
    }
    assert {name: 6390 in ports(rules) for name, rules in egress.items()} == {
        "used": True,
        "left": True,
        "gone": False,
    }


def test_autoscalers_leave_a_head_alone_whose_loss_is_an_outage() -> None:
    asked = {
        backend: "karpenter.sh/do-not-disrupt"
        in config_of(found)["headGroupSpec"]["template"]["metadata"]["annotations"]
        for backend, found in {"none": world(), "rocksdb": on_a_volume()}.items()
    }
    assert asked == {"none": True, "rocksdb": False}


def test_another_place_or_class_for_the_state_is_another_ray_cluster_and_another_claim() -> None:
    names = {
        ray_cluster(found)["metadata"]["name"]
        for found in (
            world(),
            on_a_volume(),
            on_a_volume(gcsFaultTolerance={"storage": {"storageClassName": "ssd"}}),
            on_a_volume(gcsFaultTolerance={"storage": {"size": "7Gi"}}),
        )
    }
    assert len(names) == 4


def test_the_claim_is_made_with_the_ray_cluster_and_its_owner_is_the_serving_cluster() -> None:
    made = [
        one
        for one in desired_objects(on_a_volume(), "default-a", stateful=["default-a"])
        if one["kind"] == "PersistentVolumeClaim"
    ]
    assert [one["metadata"]["name"] for one in made] == ["default-a-gcs"]
    assert made[0]["metadata"]["ownerReferences"][0]["kind"] == "ServingCluster"
