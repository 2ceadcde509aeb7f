"""From a resource's arguments to vLLM's command line, and the CPU's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tradewind.api.wire import EngineSettings, SourceSettings, Task
from tradewind.engine import cpu
from tradewind.engine.arguments import OWNED, Known, command_line
from tradewind.engine.errors import EngineStartError
from tradewind.engine.family import family_of

SWITCHES = ("trust_remote_code", "enforce_eager", "disable_fastapi_docs", "log_error_stack", "enable_lora")
VALUES = (
    "model",
    "max_model_len",
    "dtype",
    "load_format",
    "runner",
    "max_loras",
    "max_lora_rank",
    "max_cpu_loras",
    "hf_overrides",
)
LISTS = ("served_model_name", "allowed_media_domains")
KNOWN = (
    {name: Known(f"--{name.replace('_', '-')}", True, f"--no-{name.replace('_', '-')}") for name in SWITCHES}
    | {name: Known(f"--{name.replace('_', '-')}", False) for name in VALUES}
    | {name: Known(f"--{name.replace('_', '-')}", False, many=True) for name in LISTS}
    | {"disable_log_stats": Known("--disable-log-stats", True), "worker_cls": Known("--worker-cls", False)}
)
MODEL = Path("/models/llama")


def settings(args: dict[str, Any] | None = None, **changes: Any) -> EngineSettings:
    source = SourceSettings(uri="file:///models/llama", trust_remote_code=changes.pop("trust", False))
    return EngineSettings(name="llama", source=source, args=args or {}, **changes)


def line(
    args: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None, **changes: Any
) -> list[str]:
    ranks = changes.pop("ranks", ())
    return command_line(settings(args, **changes), KNOWN, MODEL, ranks, defaults or {})


def test_what_the_platform_always_says() -> None:
    assert line() == [
        "--load-format=safetensors",
        "--model=/models/llama",
        "--served-model-name",
        "llama",
        "--no-trust-remote-code",
        "--allowed-media-domains",
        "media.invalid",
        "--disable-fastapi-docs",
        "--no-log-error-stack",
    ]


def test_values_of_every_kind() -> None:
    argv = line({"max_model_len": 2048, "enforce_eager": False, "hf_overrides": {"a": [1]}, "dtype": None})
    assert "--max-model-len=2048" in argv
    assert "--no-enforce-eager" in argv
    assert '--hf-overrides={"a": [1]}' in argv
    assert not any(item.startswith("--dtype") for item in argv)


def test_a_value_that_looks_like_a_flag_stays_a_value() -> None:
    assert "--dtype=--model=/etc" in line({"dtype": "--model=/etc"})


def test_a_switch_that_has_no_off_is_left_out() -> None:
    assert "--disable-log-stats" in line({"disable_log_stats": True})
    assert not any("log-stats" in item for item in line({"disable_log_stats": False}))


def test_defaults_yield_to_the_resource_and_to_what_vllm_knows() -> None:
    argv = line({"max_model_len": 16}, {"max_model_len": 8192, "enforce_eager": True, "from_the_future": 1})
    assert "--max-model-len=16" in argv
    assert "--enforce-eager" in argv
    assert not any("future" in item for item in argv)


def test_trust_comes_from_the_source_alone() -> None:
    assert "--trust-remote-code" in line(trust=True)
    assert "--worker-cls=x.Y" in line({"worker_cls": "x.Y"}, trust=True)


@pytest.mark.parametrize(
    ("task", "expected"), [(Task.EMBED, True), (Task.SCORE, True), (Task.GENERATE, False)]
)
def test_pooling_models_run_as_such(task: Task, expected: bool) -> None:
    assert ("--runner=pooling" in line(task=task)) is expected


def test_an_engine_without_adapters_makes_no_room_for_them() -> None:
    assert not any("lora" in item for item in line())


@pytest.mark.parametrize(
    ("ranks", "args", "expected"),
    [
        pytest.param((), {}, (16, 4, 64), id="some may come"),
        pytest.param((20, 8), {}, (32, 4, 64), id="the largest fits"),
        pytest.param((8,) * 6, {}, (16, 6, 64), id="one slot each"),
        pytest.param((999,), {}, (16, 4, 64), id="one that no vLLM takes"),
        pytest.param((8,), {"max_lora_rank": 64, "max_loras": 1}, (64, 1, 64), id="as the resource says"),
        pytest.param((8,), {"max_loras": 80}, (16, 80, 80), id="more slots than usual"),
        pytest.param((8,), {"max_cpu_loras": 2}, (16, 2, 2), id="little memory"),
    ],
)
def test_the_room_for_adapters(
    ranks: tuple[int, ...], args: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    argv = line(args, lora=True, ranks=ranks)
    rank, slots, kept = expected
    assert "--enable-lora" in argv
    assert {item for item in argv if item.startswith("--max")} == {
        f"--max-lora-rank={rank}",
        f"--max-loras={slots}",
        f"--max-cpu-loras={kept}",
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_modle_len": 5}, r'"max_modle_len" is not known to this vLLM. Did you mean "max_model_len"\?'),
        ({"zzz": 5}, r'"zzz" is not known to this vLLM\.$'),
        ({"model": "/etc"}, '"model" cannot be set: it comes from spec.source'),
        ({"trust_remote_code": True}, "cannot be set"),
        ({"api_key": ["x"]}, "cannot be set"),
        ({"enable_log_requests": True}, "prompts are never logged"),
        ({"load_format": "pt"}, "only safetensors and mistral"),
        ({"load_format": "tensorizer"}, "only safetensors and mistral"),
        ({"worker_cls": "evil.Worker"}, "needs source.trustRemoteCode"),
        ({"enforce_eager": "yes"}, "\"enforce_eager\" is true or false, not 'yes'"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineStartError, match=message):
        line(args)


def test_every_owned_argument_is_refused() -> None:
    for name in OWNED:
        with pytest.raises(EngineStartError, match=f'"{name}" cannot be set'):
            line({name: None})


LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
SMOLLM2 = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}
MIB = 1024 * 1024


def test_a_small_model_on_cpu_gets_a_cache_for_two_full_requests() -> None:
    defaults = cpu.argument_defaults(SMOLLM2, {}, {})
    assert defaults == {
        "enforce_eager": True,
        "max_model_len": 8192,
        "kv_cache_memory_bytes": 30 * 2 * 3 * 64 * 2 * 8192 * 2,
        "distributed_executor_backend": "uni",
    }


@pytest.mark.parametrize(
    ("config", "length", "dtype", "expected"),
    [
        pytest.param(LLAMA_8B, 32768, "auto", 4096 * MIB, id="bounded above"),
        pytest.param(SMOLLM2, 128, "auto", 256 * MIB, id="bounded below"),
        pytest.param(SMOLLM2, 8192, "float32", 2 * 30 * 2 * 3 * 64 * 2 * 8192 * 2, id="twice as wide"),
        pytest.param({"text_config": SMOLLM2}, 8192, "auto", 30 * 2 * 3 * 64 * 2 * 8192 * 2, id="multimodal"),
        pytest.param({}, 8192, "auto", 1024 * MIB, id="unknown"),
        pytest.param(
            {**SMOLLM2, "num_attention_heads": 0, "head_dim": None}, 1, "auto", 1024 * MIB, id="odd"
        ),
    ],
)
def test_cache_sizes(config: dict[str, Any], length: int, dtype: str, expected: int) -> None:
    assert cpu.kv_cache_bytes(config, length, dtype) == expected


def test_a_long_context_is_bounded_on_cpu() -> None:
    assert cpu.argument_defaults(LLAMA_8B, {}, {})["max_model_len"] == cpu.MAX_MODEL_LEN


def test_the_environment_can_size_the_cache() -> None:
    assert "kv_cache_memory_bytes" not in cpu.argument_defaults(SMOLLM2, {"VLLM_CPU_KVCACHE_SPACE": "2"}, {})


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (4, "2"), (16, "8")])
def test_threads_leave_room_for_a_second_engine(cores: int, threads: str) -> None:
    assert cpu.environment_defaults(cores, {}, {})["OMP_NUM_THREADS"] == threads


def test_who_wants_compiled_models_gets_the_compiler() -> None:
    assert "TORCH_COMPILE_DISABLE" not in cpu.environment_defaults(2, {}, {"enforce_eager": False})


def test_threads_given_to_the_replica_are_kept() -> None:
    assert "OMP_NUM_THREADS" not in cpu.environment_defaults(8, {"OMP_NUM_THREADS": "3"}, {})


@pytest.mark.parametrize(
    ("env", "args"),
    [
        ({"VLLM_CPU_OMP_THREADS_BIND": "0-3"}, {}),
        ({}, {"tensor_parallel_size": 2}),
        ({}, {"distributed_executor_backend": "mp"}),
    ],
)
def test_who_binds_threads_or_has_several_workers_gets_vllms_own_processes(
    env: dict[str, str], args: dict[str, Any]
) -> None:
    assert cpu.environment_defaults(8, env, args) == {"TORCH_COMPILE_DISABLE": "1"}
    assert "distributed_executor_backend" not in cpu.argument_defaults(SMOLLM2, env, args)


@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("llama", "llama"),
        ("mixtral", "mistral"),
        ("deepseek_v3", "deepseek"),
        ("qwen3_moe", "qwen"),
        ("bert", "bert"),
        ("new", "other"),
        ("", "other"),
    ],
)
def test_families(model_type: str, family: str) -> None:
    assert family_of(model_type) == family
