"""The RayService: what may change it, what Serve reads in it, and that it fits into etcd."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.builders import Data, model, route, tenant
from tests.unit.operator.desired.ray_schema import serve_config
from tests.unit.operator.desired.worlds import (
    CPU_POOL,
    GPU_POOL,
    KEYS,
    busy,
    config_of,
    group_of,
    pod_of,
    service_of,
    world,
)
from tradewind.api.wire import EngineSettings, GatewayConfig
from tradewind_operator.desired.rayservice import serve_config_text

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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(traffic())
def test_models_routes_weights_tenants_and_tokens_never_change_the_ray_cluster(resources: list[Data]) -> None:
    assert config_of(world(*resources)) == config_of(world())


@pytest.mark.parametrize("more", [{"l4": GPU_POOL}, {"l4": GPU_POOL, "more": CPU_POOL}], ids=["one", "two"])
def test_a_new_pool_only_appends_a_group(more: Data) -> None:
    before, after = config_of(world()), config_of(world(pools={"cpu": CPU_POOL, **more}))
    assert after["workerGroupSpecs"][: len(before["workerGroupSpecs"])] == before["workerGroupSpecs"]
    assert {**after, "workerGroupSpecs": []} == {**before, "workerGroupSpecs": []}


def test_serve_reads_what_was_compiled() -> None:
    found = busy()
    config = serve_config(service_of(found))
    gateway, *engines = config["applications"]
    assert GatewayConfig.model_validate(gateway["deployments"][0]["user_config"]) == found.compiled.gateway
    read = {app["name"]: EngineSettings.model_validate(app["args"]["settings"]) for app in engines}
    assert read == found.compiled.engines
    wanted = {**found.compiled.serve_config, "applications": []}
    assert {**config, "applications": []} == wanted


def test_the_same_resources_in_another_order_are_the_same_text() -> None:
    one = world(model("llama"), model("mistral"), route())
    other = world(route(), model("mistral"), model("llama"))
    assert service_of(one)["spec"]["serveConfigV2"] == service_of(other)["spec"]["serveConfigV2"]


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=40), max_size=4))
def test_yaml_and_json_parsers_read_the_same(content: dict[str, str]) -> None:
    text = serve_config_text(content)
    assert json.loads(text) == content
    assert yaml.safe_load(text) == content


def test_a_thousand_models_stay_well_under_the_limit_of_etcd() -> None:
    models = [model(f"m{number:04}") for number in range(1000)]
    routes = [
        route(
            f"r{number:03}",
            variants=[
                {"name": "control", "deployment": f"m{number:04}", "weight": 90},
                {"name": "candidate", "deployment": f"m{number + 1:04}", "weight": 10},
            ],
        )
        for number in range(500)
    ]
    stored = json.dumps(service_of(world(*models, *routes)), separators=(",", ":"))
    assert len(stored) < 0.55 * 1.5 * 2**20


def test_the_old_cluster_lives_until_its_streams_have_ended() -> None:
    spec = service_of(world(model(drain={"timeout": "1h"})))["spec"]
    assert spec["rayClusterDeletionDelaySeconds"] >= 3600
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
