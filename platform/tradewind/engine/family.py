"""The family that `/v1/models` shows, from the `model_type` of a model's configuration. Pure."""

from __future__ import annotations

_FAMILIES = (
    ("llama", "llama"),
    ("mllama", "llama"),
    ("mistral", "mistral"),
    ("mixtral", "mistral"),
    ("ministral", "mistral"),
    ("pixtral", "mistral"),
    ("deepseek", "deepseek"),
    ("qwen", "qwen"),
    ("qwq", "qwen"),
    ("gemma", "gemma"),
    ("phi", "phi"),
    ("gpt_oss", "gpt-oss"),
    ("granite", "granite"),
    ("glm", "glm"),
    ("chatglm", "glm"),
    ("bert", "bert"),
    ("xlm-roberta", "bert"),
    ("roberta", "bert"),
    ("modernbert", "bert"),
)


def family_of(model_type: str) -> str:
    """`llama`, `mistral`, `deepseek`, `qwen`, ... or `other`."""
    return next((family for prefix, family in _FAMILIES if model_type.startswith(prefix)), "other")
