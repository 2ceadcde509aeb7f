"""Defaults for an engine on CPU, where vLLM's own suit one engine on a large server. Pure.

Measured on 2 cores with SmolLM2-135M, one stream: an engine with two OpenMP threads makes 34 tokens/s
and with one 25; two engines with two threads each make 2 tokens/s each and take 68 s to start, with
one thread each 15 to 30 tokens/s and 36 s. Threads that outnumber the cores wait for each other by
spinning on the core that the other engine needs. Scheduler and model in one process: ready in 26 s
and 2.9 GB instead of 38 s and 3.5 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_MODEL_LEN = 8192
"""Tokens, where the resource sets no max_model_len: memory for more is seldom there, nor the speed."""

_MIB = 1024 * 1024
_LEAST_KV_BYTES = 256 * _MIB
_MOST_KV_BYTES = 4096 * _MIB
_UNKNOWN_KV_BYTES = 1024 * _MIB
_SEQUENCES = 2
"""Full-length sequences that the default KV cache holds."""


def argument_defaults(
    config: Mapping[str, Any], env: Mapping[str, str], args: Mapping[str, Any]
) -> dict[str, Any]:
    """vLLM arguments for a CPU engine. `config` is the model's config.json, `args` the resource's."""
    defaults: dict[str, Any] = {"enforce_eager": True}
    longest = context_length(config)
    if longest is not None:
        defaults["max_model_len"] = min(longest, MAX_MODEL_LEN)
    if "VLLM_CPU_KVCACHE_SPACE" not in env:
        length = args.get("max_model_len", defaults.get("max_model_len"))
        dtype = str(args.get("dtype", "auto"))
        defaults["kv_cache_memory_bytes"] = kv_cache_bytes(config, length, dtype)
    if single_process(env, args):
        defaults["distributed_executor_backend"] = "uni"
    return defaults


def environment_defaults(cores: int, env: Mapping[str, str], args: Mapping[str, Any]) -> dict[str, str]:
    """Environment of a CPU engine that has `cores`, where `env` does not say otherwise."""
    made: dict[str, str] = {}
    if args.get("enforce_eager", True) and "TORCH_COMPILE_DISABLE" not in env:
        # Without this the first request for logprobs stops everybody for 15 s, and needs a C++ compiler.
        made["TORCH_COMPILE_DISABLE"] = "1"
    if not single_process(env, args):
        return made
    made["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if "OMP_NUM_THREADS" not in env:  # Ray sets it to the CPUs that a replica was given
        made["OMP_NUM_THREADS"] = str(max(1, cores // 2))
    return made


def single_process(env: Mapping[str, str], args: Mapping[str, Any]) -> bool:
    """Whether scheduler and model may share a process.

    vLLM separates them on CPU only to bind the model's threads to cores. One model on one socket needs
    no binding; who asks for it, or for several workers, gets vLLM's own way.
    """
    several = any(
        int(args.get(name) or 1) > 1
        for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    )
    return (
        not several and "VLLM_CPU_OMP_THREADS_BIND" not in env and "distributed_executor_backend" not in args
    )


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens the model was made for, when its configuration says so."""
    text = config.get("text_config", config)
    for name in ("max_position_embeddings", "max_seq_len", "n_positions", "model_max_length"):
        if isinstance(text.get(name), int):
            return int(text[name])
    return None


def kv_cache_bytes(config: Mapping[str, Any], length: object, dtype: str) -> int:
    """Room for a few sequences of full length, within bounds; a fixed amount for unusual models."""
    text = config.get("text_config", config)
    try:
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        kv_heads = int(text.get("num_key_value_heads") or heads)
        head_dim = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
        tokens = int(length) if isinstance(length, int) else MAX_MODEL_LEN
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return _UNKNOWN_KV_BYTES
    named = dtype if dtype != "auto" else str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
    width = 4 if named in ("float32", "float") else 2
    wanted = layers * 2 * kv_heads * head_dim * width * tokens * _SEQUENCES
    return min(max(wanted, _LEAST_KV_BYTES), _MOST_KV_BYTES)
