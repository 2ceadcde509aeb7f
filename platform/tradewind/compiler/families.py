"""Guesses a model's architecture family from where its weights come from.

Shown in `/v1/models` and used to group; a resource that says `family` is believed instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

OTHER: Final = "other"

_RULES: Final[tuple[tuple[str, str], ...]] = (
    # A distill has the architecture of its student, whatever its teacher's name says.
    (r"distill-qwen|distill-qwen2", "qwen"),
    (r"distill-llama", "llama"),
    (r"deepseek", "deepseek"),
    (r"mistral|mixtral|ministral|codestral|devstral|magistral|pixtral|voxtral", "mistral"),
    (r"qwen|qwq", "qwen"),
    (r"llama|smollm(?!3)|vicuna", "llama"),
    (r"gemma", "gemma"),
    (r"(^|[-_/])phi[-_0-9]", "phi"),
    (r"granite", "granite"),
    (r"gpt-oss", "gpt-oss"),
    (r"(^|[-_/])glm[-_0-9]|chatglm", "glm"),
    (r"bge|e5-|gte-|minilm", "bert"),
)


def family_of(uri: str, args: Mapping[str, Any]) -> str:
    """Family by the URI's last part, then by the whole, then `other`; vLLM arguments in snake_case."""
    if args.get("tokenizer_mode") == "mistral" or args.get("config_format") == "mistral":
        return "mistral"
    path = uri.partition("://")[2].rstrip("/").lower()
    for text in (path.rpartition("/")[2], path):
        for pattern, family in _RULES:
            if re.search(pattern, text):
                return family
    return OTHER
