"""Engine arguments against the table of the supported vLLM."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tradewind.api.values import camel
from tradewind.compiler.arguments import argument_table, check_arguments, supported_vllm
from tradewind.compiler.owned_arguments import ONLY, ONLY_KEYS, OWNED
from tradewind.engine import arguments as engine_arguments


def refused(**args: Any) -> str:
    checked, faults = check_arguments(args)
    assert len(faults) == 1, (checked, faults)
    assert faults[0].path[0] in args
    return f"{faults[0].message} ({faults[0].hint})"


def test_camel_case_and_snake_case_become_vllms_own_names_in_order() -> None:
    checked, faults = check_arguments({"maxModelLen": 2048, "enforce_eager": True, "all2allBackend": "pplx"})
    assert not faults
    assert list(checked.items()) == [
        ("all2all_backend", "pplx"),
        ("enforce_eager", True),
        ("max_model_len", 2048),
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"maxModelLength": 1}, "did you mean maxModelLen?"),
        ({"max-model-len": 1}, "did you mean maxModelLen?"),
        ({"MaxModelLen": 1}, "did you mean maxModelLen?"),
        ({"wurst": 1}, f"vLLM {supported_vllm()} does not have it"),
        ({"maxModelLen": "2048"}, "found '2048'; allowed: a whole number"),
        ({"maxModelLen": 2048.5}, "found 2048.5; allowed: a whole number"),
        ({"maxModelLen": True}, "found true; allowed: a whole number"),
        ({"maxModelLen": None}, "found nothing; allowed: a whole number"),
        ({"enforceEager": 1}, "found 1; allowed: true or false"),
        ({"gpuMemoryUtilization": "0.9"}, "allowed: a number"),
        ({"kvCacheDtype": "int3"}, "found 'int3'; allowed: auto, bfloat16"),
        ({"maxLoraRank": 17}, "found 17; allowed: 1"),
        ({"maxLoraRank": True}, "found true; allowed: 1"),
        ({"limitMmPerPrompt": 4}, "found 4; allowed: a mapping"),
        (
            {"cudagraphCaptureSizes": [1, "2"]},
            "found a list of 2; allowed: a list, each entry a whole number",
        ),
        ({"chatTemplate": "x" * 20_000}, "over 16384 characters"),
        ({"loadFormat": "auto"}, "found 'auto'; allowed: safetensors, mistral"),
        ({"loadFormat": "pt"}, "found 'pt'; allowed: safetensors"),
        ({"generationConfig": "/etc"}, "allowed: auto, vllm"),
        ({"distributedExecutorBackend": "evil.Executor"}, "allowed: mp, uni"),
        (
            {"speculativeConfig": {"method": "ngram", "model": "a/b"}},
            "found 'model', which a resource may not set",
        ),
        (
            {"speculativeConfig": {"method": "custom_class"}},
            "found 'custom_class'; allowed: ngram, mtp, suffix",
        ),
        ({"speculativeConfig": {}}, "found nothing; allowed: ngram"),
    ],
)
def test_refused(args: dict[str, Any], says: str) -> None:
    assert says in refused(**args)


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_owned_argument_is_refused_without_its_value(name: str) -> None:
    for spelling in {name, camel(name)}:
        told = refused(**{spelling: "sk-canary-5f1d"})
        assert OWNED[name] in told
        assert "canary" not in told


def test_one_argument_in_two_spellings_is_refused() -> None:
    assert "in two spellings; allowed: maxModelLen once" in refused(maxModelLen=1, max_model_len=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpuMemoryUtilization", 1),
        ("maxModelLen", -1),
        ("limitMmPerPrompt", {"image": 4}),
        ("speculativeConfig", {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}),
        ("cudagraphCaptureSizes", [1, 2, 4]),
        ("hfOverrides", {"architectures": ["X"]}),
        ("kvCacheDtype", "fp8"),
        ("chatTemplate", "{{ messages }}"),
    ],
)
def test_taken(name: str, value: Any) -> None:
    checked, faults = check_arguments({name: value})
    assert not faults
    assert list(checked.values()) == [value]


def test_every_name_that_is_owned_or_restricted_is_an_argument() -> None:
    assert {*OWNED, *ONLY, *ONLY_KEYS} <= set(argument_table())


def test_the_engine_takes_what_passes_here() -> None:
    assert {*engine_arguments.OWNED, *engine_arguments._CODE} <= set(OWNED)
    assert ONLY["load_format"] == engine_arguments.LOAD_FORMATS


REVIEWED = {
    # Named like something that loads code, opens a port, reads a path or logs; looked at, and harmless.
    "tool_call_parser",
    "reasoning_parser",
    "max_logprobs",
    "logprobs_mode",
    "enable_prompt_tokens_details",
    "return_tokens_as_token_ids",
    "dbo_decode_token_threshold",
    "dbo_prefill_token_threshold",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "max_num_batched_tokens",
    "max_num_queued_tokens",
    "max_num_scheduled_tokens",
    "mm_encoder_fp8_scale_path",
    "mm_encoder_tp_mode",
    "max_lora_cls_labels",
    "renderer_num_workers",
    "max_parallel_loading_workers",
    "kv_offloading_backend",
    "performance_mode",
    "enable_tower_connector_lora",
    "tokenizer_mode",
}
RISKY = re.compile(
    r"plugin|cls|class|path|dir$|file|host|port|addr|endpoint|url|token|key|secret|trust|log|worker|connector"
    r"|middleware|processors$|domains|parser|transfer|events|server"
)


def test_a_new_argument_that_sounds_risky_must_be_looked_at() -> None:
    unseen = {name for name in argument_table() if RISKY.search(name)} - set(OWNED) - REVIEWED
    assert not unseen, f"refuse them in owned_arguments.py, or add them to REVIEWED: {sorted(unseen)}"
