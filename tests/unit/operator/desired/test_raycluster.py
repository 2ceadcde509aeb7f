"""The RayCluster: what may change it, and under which names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.builders import Data, model, route, tenant
from tests.unit.operator.desired.worlds import (
    CPU_POOL,
    GPU_POOL,
    KEYS,
    busy,
    config_of,
    group_of,
    pod_of,
    world,
)
from tradewind.api.cluster import MAX_CLUSTER_NAME
from tradewind_operator.desired import names
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import ClusterWorld


def name_of(found: ClusterWorld) -> str:
    return str(ray_cluster(found)["metadata"]["name"])


NAMES = st.sampled_from(["llama", "mistral", "qwen", "phi", "gemma"])


@st.composite
def traffic(draw: st.DrawFn) -> list[Data]:
    """Models, routes between them and tenants, as they come and go."""
    names = draw(st.lists(NAMES, min_size=1, unique=True))
    models = [
        model(
            name,
            replicas=draw(st.integers(1, 3)),
            drain={"timeout": f"{draw(st.integers(1, 3600))}s"},
            engine={"args": {"maxModelLen": draw(st.integers(128, 4096))}},
        )
        for name in names
    ]
    variants: list[Any] = [
        {"name": name, "deployment": name, "weight": draw(st.integers(1, 100))} for name in names
    ]
    token = {"uri": "hf://org/gated", "tokenSecret": {"name": draw(NAMES), "key": "token"}}
    gated = [model("gated", source=token)] if draw(st.booleans()) else []
    tenants = [tenant(keys=KEYS)] if draw(st.booleans()) else []
    return [*models, *gated, route(variants=variants), *tenants]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(traffic())
def test_models_routes_weights_tenants_and_tokens_never_change_the_ray_cluster(resources: list[Data]) -> None:
    assert config_of(world(*resources)) == config_of(world())


@pytest.mark.parametrize("more", [{"l4": GPU_POOL}, {"l4": GPU_POOL, "more": CPU_POOL}], ids=["one", "two"])
def test_a_new_pool_only_appends_a_group(more: Data) -> None:
    before, after = config_of(world()), config_of(world(pools={"cpu": CPU_POOL, **more}))
    assert after["workerGroupSpecs"][: len(before["workerGroupSpecs"])] == before["workerGroupSpecs"]
    assert {**after, "workerGroupSpecs": []} == {**before, "workerGroupSpecs": []}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"rayVersion": "2.61.0"}, id="Ray's version"),
        pytest.param({"head": {"cpus": 4}}, id="the head"),
        pytest.param(
            {"gcsFaultTolerance": {"backend": "redis", "redis": {"address": "redis:6379"}}},
            id="Redis for Ray's state",
        ),
        pytest.param({"gcsFaultTolerance": {"backend": "rocksdb"}}, id="a volume for Ray's state"),
    ],
)
def test_what_cannot_change_in_place_is_another_cluster(change: Data) -> None:
    assert name_of(world(**change)) != name_of(world())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"pools": {"cpu": {**CPU_POOL, "memory": "16Gi"}}}, id="a pool's pods"),
        pytest.param({"gateway": {"cpus": 2}}, id="the gateways' pods"),
        pytest.param({"pools": {"cpu": {**CPU_POOL, "maxNodes": 9}}}, id="a size"),
        pytest.param({"head": {"tolerations": [{"operator": "Exists"}]}}, id="tolerations"),
    ],
)
def test_everything_else_changes_in_the_same_cluster(change: Data) -> None:
    assert name_of(world(**change)) == name_of(world())


def test_a_group_is_another_one_when_its_pods_are_others_and_only_then() -> None:
    def groups(*pools: Data) -> list[str]:
        return [
            group["groupName"]
            for group in config_of(world(pools=dict(zip(("cpu", "l4"), pools, strict=True))))[
                "workerGroupSpecs"
            ]
        ]

    before = groups(CPU_POOL, GPU_POOL)
    tolerant = {**CPU_POOL, "tolerations": [{"key": "x", "operator": "Exists"}], "maxNodes": 7}
    assert groups(tolerant, GPU_POOL) == before
    after = groups({**CPU_POOL, "engineImage": "registry.example/other:2"}, GPU_POOL)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert after[1].startswith("pool-cpu-")


def test_ray_nodes_bear_the_name_of_their_group_for_serve_to_choose_by() -> None:
    for group in config_of(busy())["workerGroupSpecs"]:
        assert group["labels"]["tradewind.dev/group"] == group["groupName"]


def test_the_longest_name_is_one_that_kuberay_takes() -> None:
    assert len(names.ray_cluster("c" * MAX_CLUSTER_NAME, names.short_hash({}))) <= 53
    assert len(names.gateways_service(names.ray_cluster("c" * MAX_CLUSTER_NAME, names.short_hash({})))) <= 63


def test_a_pod_may_end_its_streams_however_long_they_are() -> None:
    grace = pod_of(world(), "gateway")["terminationGracePeriodSeconds"]
    assert grace == pod_of(world(model(drain={"timeout": "1h"})), "gateway")["terminationGracePeriodSeconds"]
    assert grace > 3600


def test_a_gateway_pod_holds_one_replica() -> None:
    found = busy(gateway={"replicas": 3, "cpus": 4})
    group = group_of(found, "gateway")
    replica = found.compiled.serve_config["applications"][0]["deployments"][0]
    assert group["rayStartParams"]["num-cpus"] == str(int(replica["ray_actor_options"]["num_cpus"]))
    assert (group["minReplicas"], group["maxReplicas"]) == (3, 3)
    assert replica["num_replicas"] == 3


def test_fractions_of_a_cpu_are_rounded_up_for_ray() -> None:
    found = world(pools={"cpu": {**CPU_POOL, "cpus": 1.5}})
    assert group_of(found, "pool-cpu")["rayStartParams"]["num-cpus"] == "2"
    assert pod_of(found, "pool-cpu")["containers"][0]["resources"]["requests"]["cpu"] == "1500m"


def test_only_the_autoscaler_sees_a_kubernetes_token() -> None:
    found = world()
    head = pod_of(found, "head")
    assert head["automountServiceAccountToken"] is False
    mounted = {mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    assert "autoscaler-token" in {volume["name"] for volume in head["volumes"]} - mounted
    autoscaler = config_of(found)["autoscalerOptions"]["volumeMounts"]
    assert "autoscaler-token" in {mount["name"] for mount in autoscaler}


def test_only_gateways_see_the_hash_key_and_only_engines_hub_tokens() -> None:
    found = world()
    keys = {
        role: {item["key"] for volume in pod_of(found, role)["volumes"] for item in _items(volume)}
        for role in ("head", "gateway", "pool-cpu")
    }
    assert keys == {
        "head": {"internal-token"},
        "gateway": {"internal-token", "hash-key"},
        "pool-cpu": {"internal-token"},
    }
    with_tokens = [
        role
        for role in ("head", "gateway", "pool-cpu")
        if "tokens" in {volume["name"] for volume in pod_of(found, role)["volumes"]}
    ]
    assert with_tokens == ["pool-cpu"]


def _items(volume: Data) -> list[Data]:
    return list((volume.get("secret") or {}).get("items") or ())


def test_every_mount_has_its_volume_and_every_path_one_mount() -> None:
    found = busy(pools={"cpu": CPU_POOL, "l4": {**GPU_POOL, "cache": {"claim": "weights"}}})
    for role in ("head", "gateway", "pool-cpu", "pool-l4"):
        pod = pod_of(found, role)
        mounts = pod["containers"][0]["volumeMounts"]
        assert {mount["name"] for mount in mounts} <= {volume["name"] for volume in pod["volumes"]}
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)


def test_the_pool_says_which_engine_image_runs() -> None:
    own = {**GPU_POOL, "engineImage": "registry.example/engine:1"}
    found = world(pools={"cpu": CPU_POOL, "l4": GPU_POOL, "own": own})
    images = {pool: pod_of(found, f"pool-{pool}")["containers"][0]["image"] for pool in ("cpu", "l4", "own")}
    assert images == {
        "cpu": found.defaults.images.engine_cpu,
        "l4": found.defaults.images.engine_cuda,
        "own": "registry.example/engine:1",
    }


def test_every_ray_container_is_started_by_our_program_with_kuberays_command() -> None:
    spec = ray_cluster(world())["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) >= 3
    for group in groups:
        template = group["template"]
        assert template["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
        (container,) = template["spec"]["containers"]
        assert container["command"][1:] == ["-m", "tradewind.serve.node"]
        assert "args" not in container
