"""Devices, huge pages, the node's disk and the weights' volumes of a pool's pods."""

from __future__ import annotations

import json

import pytest

from tests.unit.api.builders import Data, model
from tests.unit.api.test_resources import TPU
from tests.unit.operator.desired.pod_standard import violations
from tests.unit.operator.desired.test_others import objects
from tests.unit.operator.desired.worlds import CPU_POOL, GPU_POOL, group_of, pod_of, world
from tradewind.api.values import Quantity
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.planning.differences import demand_of


def pool(**more: object) -> ClusterWorld:
    return world(pools={"l4": {**GPU_POOL, **more}})


def amounts(found: ClusterWorld, name: str, kind: str) -> Manifest:
    return dict(pod_of(found, name)["containers"][0]["resources"][kind])


def disk(found: ClusterWorld, name: str, kind: str) -> Quantity:
    return Quantity.parse(amounts(found, name, kind)["ephemeral-storage"])


def cache_of(found: ClusterWorld) -> Manifest:
    (cache,) = (volume for volume in pod_of(found, "pool-l4")["volumes"] if volume["name"] == "cache")
    return dict(cache)


def test_devices_and_huge_pages_are_asked_for_and_bounded_alike() -> None:
    found = pool(extraResources={"rdma/hca": 2}, hugepages={"2Mi": "1Gi"})
    for kind in ("requests", "limits"):
        asked = amounts(found, "pool-l4", kind)
        assert (asked["nvidia.com/gpu"], asked["rdma/hca"], asked["hugepages-2Mi"]) == ("1", "2", "1Gi")


@pytest.mark.parametrize("role", ["head", "gateway", "pool-cpu"])
def test_a_pod_may_fill_all_its_volumes_before_it_reaches_its_limit(role: str) -> None:
    found = world()
    on_disk = [
        Quantity.parse(volume["emptyDir"]["sizeLimit"])
        for volume in pod_of(found, role)["volumes"]
        if "emptyDir" in volume and volume["emptyDir"].get("medium") is None
    ]
    assert len(on_disk) >= 3
    assert disk(found, role, "limits") > sum(on_disk) >= disk(found, role, "requests") - 2**30


def test_room_for_weights_is_set_aside_on_the_node_and_memory_is_not() -> None:
    small, large = (world(pools={"cpu": {**CPU_POOL, "cache": {"size": size}}}) for size in ("10Gi", "60Gi"))
    assert disk(large, "pool-cpu", "requests") - disk(small, "pool-cpu", "requests") == 50 * 2**30
    assert disk(large, "pool-cpu", "limits") - disk(small, "pool-cpu", "limits") == 50 * 2**30
    assert disk(pool(sharedMemory="16Gi"), "pool-l4", "limits") == disk(pool(), "pool-l4", "limits")


def test_room_that_is_given_is_set_aside_too() -> None:
    def given(**medium: str) -> Data:
        room = {"name": "a", "mountPath": "/mnt/a", "emptyDir": {"sizeLimit": "7Gi", **medium}}
        return {"volumes": [room]}

    before = disk(pool(), "pool-l4", "requests")
    assert disk(pool(pod=given()), "pool-l4", "requests") - before == 7 * 2**30
    assert disk(pool(pod=given(medium="Memory")), "pool-l4", "requests") == before


def test_each_pod_gets_a_volume_of_its_own_of_a_class_that_is_written_by_one_node() -> None:
    found = pool(cache={"storageClassName": "local", "accessMode": "ReadWriteOnce", "size": "200Gi"})
    assert cache_of(found)["ephemeral"]["volumeClaimTemplate"]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "200Gi"}},
    }
    assert objects(found, "PersistentVolumeClaim") == {}
    assert not violations(pod_of(found, "pool-l4"))
    assert disk(found, "pool-l4", "requests") < 5 * 2**30


def test_one_claim_is_made_for_a_pool_of_a_class_that_many_nodes_write_to() -> None:
    found = pool(cache={"storageClassName": "files", "size": "200Gi"})
    ((name, claim),) = objects(found, "PersistentVolumeClaim").items()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert cache_of(found)["persistentVolumeClaim"] == {"claimName": name}


GAUDI = {**GPU_POOL, "gpus": 8, "gpuResource": "habana.ai/gaudi", "engineImage": "r/gaudi:1"}


@pytest.mark.parametrize(
    ("resource", "label"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu.product"),
        ("nvidia.com/mig-1g.10gb", "nvidia.com/gpu.product"),
        ("amd.com/gpu", "amd.com/gpu.product-name"),
        ("gpu.intel.com/xe", "gpu.intel.com/product"),
    ],
)
def test_a_product_is_chosen_by_the_label_that_its_maker_has_for_it(resource: str, label: str) -> None:
    found = pool(gpuResource=resource, accelerator="A", engineImage="r/x:1")
    assert pod_of(found, "pool-l4")["nodeSelector"] == {label: "A"}
    assert amounts(found, "pool-l4", "limits")[resource] == "1"
    label = "example.com/card"
    own = pool(gpuResource=resource, accelerator="A", engineImage="r/x:1", acceleratorLabel=label)
    assert pod_of(own, "pool-l4")["nodeSelector"] == {label: "A"}


def asked_of(found: ClusterWorld) -> Manifest:
    (app,) = (one for one in found.compiled.serve_config["applications"] if one["name"] == "m")
    return dict(app["deployments"][0]["ray_actor_options"])


def test_ray_counts_gaudi_and_tpus_by_their_own_names_and_a_model_asks_for_those() -> None:
    large = model("m", resources={"gpus": 4, "tensorParallel": 4})
    for name, shape in (("HPU", GAUDI), ("TPU", {**TPU, "gpus": 4, "cpus": 8})):
        found = world(large, pools={"l4": shape})
        start = group_of(found, "pool-l4")["rayStartParams"]
        assert start["num-gpus"] == "0"
        assert start["resources"] == "'" + json.dumps({name: shape["gpus"]}) + "'"
        asked = asked_of(found)
        assert (asked["num_gpus"], asked["resources"]) == (0.0, {name: 4.0})
        assert demand_of(ray_cluster(found), found.compiled.serve_config).gpus == 4


def test_gpus_of_every_maker_are_gpus_for_ray() -> None:
    rocm = {**GPU_POOL, "gpus": 4, "gpuResource": "amd.com/gpu", "engineImage": "r/rocm:1"}
    found = world(model("m", resources={"gpus": 4}), pools={"l4": rocm})
    start = group_of(found, "pool-l4")["rayStartParams"]
    assert (start["num-gpus"], "resources" in start) == ("4", False)
    assert (asked_of(found)["num_gpus"], "resources" in asked_of(found)) == (4.0, False)
