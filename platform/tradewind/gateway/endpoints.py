"""The engine endpoints the gateway knows, each with the rules for its fields.

Written against the request classes of vLLM 0.32. A field that is not named here passes as the caller
sent it; a field with a rule passes when the rule lets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tradewind.api.wire import RequestLimits, Task
from tradewind.gateway import rules, stored_responses, tokens
from tradewind.gateway.problems import Style
from tradewind.gateway.rules import Rule, integer, mapping, sequence
from tradewind.gateway.usage import Dialect


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One POST endpoint that an engine answers."""

    path: str
    """Where engines answer it too."""
    operation: str
    """gen_ai.operation.name"""
    tasks: frozenset[Task]
    rules: Mapping[str, Rule]
    required: tuple[tuple[str, ...], ...]
    """One of each group must be there."""
    media: tuple[str, ...]
    """Fields whose content parts may hold media."""
    aliases: tuple[str, ...] = ()
    """Other paths of the gateway for the very same, which clients of other makers call."""
    dialect: Dialect = Dialect.OPENAI
    salted: bool = True
    """Takes `cache_salt`."""
    computes: bool = True
    """The model itself is at work: there is usage to count."""
    streams: bool = False
    usage_option: bool = False
    """Reports usage in a stream only when `stream_options.include_usage` asks for it."""
    max_tokens: str = ""
    """Field that a variant's max_tokens sets; empty: not applicable."""
    system: str = ""
    """Where a system prompt goes: `messages`, or the name of a field of its own."""
    sampling: frozenset[str] = frozenset()
    """Overrides of the same name that the endpoint takes."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the gateway answers it."""
        return (self.path, *self.aliases)

    @property
    def style(self) -> Style:
        """Style of the endpoint's errors."""
        return "anthropic" if self.dialect is Dialect.ANTHROPIC else "openai"


def _max_tokens(limits: RequestLimits) -> int:
    return limits.max_tokens


def _tokens(limits: RequestLimits) -> int:
    return rules.TOKEN_LIST


def _logprobs(limits: RequestLimits) -> int:
    return limits.logprobs


_n = integer(1, lambda limits: limits.choices)
_budget = integer(0, _max_tokens)

DROPPED = frozenset(("cache_salt", "request_id"))
"""Set by the gateway or by nobody."""

_EVERYWHERE: dict[str, Rule] = {
    "user": rules.short_text,
    "session_id": rules.short_text,
    "priority": rules.refused,
    "chat_template": rules.refused,
    "chat_template_kwargs": rules.template_arguments,
    "kv_transfer_params": rules.refused,
    "ec_transfer_params": rules.refused,
    "mm_processor_kwargs": rules.refused,
    "media_io_kwargs": rules.refused,
    "logits_processors": rules.refused,
    "vllm_xargs": rules.engine_extras,
    "lora_request": rules.refused,
    "documents": rules.documents,
}

_GENERATES: dict[str, Rule] = {
    **_EVERYWHERE,
    "n": _n,
    "best_of": _n,
    "stream": rules.boolean,
    "max_tokens": _budget,
    "min_tokens": _budget,
    "thinking_token_budget": integer(-1, _max_tokens),
    "stop": rules.stop,
    "stop_token_ids": sequence(_tokens),
    "allowed_token_ids": sequence(_tokens),
    "logprob_token_ids": sequence(_tokens),
    "bad_words": sequence(_tokens),
    "logit_bias": mapping(_tokens),
    "top_logprobs": integer(0, _logprobs),
    "prompt_logprobs": integer(0, _logprobs),
    "stream_options": rules.stream_options,
    "repetition_detection": rules.repetition,
    "response_format": rules.schema_holder,
    "structured_outputs": rules.structured_outputs,
    "guided_json": rules.schema,
    "guided_regex": rules.pattern,
    "guided_grammar": rules.pattern,
    "guided_choice": rules.choices,
    "guided_whitespace_pattern": rules.pattern,
}

_SAMPLING = frozenset(("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"))
_GENERATE = frozenset((Task.GENERATE,))
_SCORING = frozenset((Task.SCORE, Task.EMBED))
_SCORED = ("query", "documents", "queries", "items", "text_1", "text_2", "data_1", "data_2")

CHAT = Endpoint(
    path="/v1/chat/completions",
    operation="chat",
    tasks=_GENERATE,
    rules={
        **_GENERATES,
        "messages": rules.messages,
        "max_completion_tokens": _budget,
        "logprobs": rules.chat_logprobs,
        "tools": rules.tools,
    },
    required=(("messages",),),
    media=("messages",),
    streams=True,
    usage_option=True,
    max_tokens="max_completion_tokens",
    system="messages",
    sampling=_SAMPLING,
)

COMPLETIONS = Endpoint(
    path="/v1/completions",
    operation="text_completion",
    tasks=_GENERATE,
    rules={
        **_GENERATES,
        "prompt": rules.prompts,
        "prompt_embeds": rules.prompts,
        "logprobs": integer(0, _logprobs),
    },
    required=(("prompt", "prompt_embeds"),),
    media=(),
    streams=True,
    usage_option=True,
    max_tokens="max_tokens",
    sampling=_SAMPLING,
)

RESPONSES = Endpoint(
    path="/v1/responses",
    operation="chat",
    tasks=_GENERATE,
    rules={
        **_GENERATES,
        "max_output_tokens": _budget,
        "max_tool_calls": integer(0, lambda limits: limits.tools),
        "tools": rules.tools,
        "text": rules.schema_holder,
        "background": stored_responses.background,
        "previous_response_id": stored_responses.continued,
        "conversation": stored_responses.continued,
        "safety_identifier": rules.short_text,
    },
    required=(("input",),),
    media=("input", "previous_input_messages"),
    streams=True,
    max_tokens="max_output_tokens",
    system="instructions",
    dialect=Dialect.RESPONSES,
    sampling=_SAMPLING,
)

MESSAGES = Endpoint(
    path="/v1/messages",
    operation="chat",
    tasks=_GENERATE,
    rules={
        **_GENERATES,
        "messages": rules.messages,
        "stop_sequences": rules.stop,
        "tools": rules.tools,
        "output_config": rules.schema_holder,
        "output_format": rules.schema_holder,
        "thinking": rules.thinking,
    },
    required=(("messages",), ("max_tokens",)),
    media=("messages", "system"),
    dialect=Dialect.ANTHROPIC,
    streams=True,
    max_tokens="max_tokens",
    system="system",
    sampling=frozenset(("temperature", "top_p", "top_k")),
)

COUNT_TOKENS = Endpoint(
    path="/v1/messages/count_tokens",
    operation="count_tokens",
    tasks=_GENERATE,
    rules={
        **_EVERYWHERE,
        "messages": rules.messages,
        "tools": rules.tools,
        "output_config": rules.schema_holder,
        "output_format": rules.schema_holder,
        "thinking": rules.thinking,
    },
    required=(("messages",),),
    media=("messages", "system"),
    dialect=Dialect.ANTHROPIC,
    salted=False,
    system="system",
)

EMBEDDINGS = Endpoint(
    path="/v1/embeddings",
    operation="embeddings",
    tasks=frozenset((Task.EMBED,)),
    rules={
        **_EVERYWHERE,
        "input": rules.prompts,
        "messages": rules.prompts,
        "dimensions": integer(1, lambda limits: limits.max_tokens),
    },
    required=(("input", "messages"),),
    media=("input", "messages"),
)

RERANK = Endpoint(
    path="/v1/rerank",
    operation="rerank",
    tasks=_SCORING,
    rules={**_EVERYWHERE, "query": rules.documents, "top_n": integer(0, lambda limits: limits.prompts)},
    required=(("query",), ("documents",)),
    media=("query", "documents"),
    aliases=("/rerank", "/v2/rerank"),
)

SCORE = Endpoint(
    path="/v1/score",
    operation="score",
    tasks=_SCORING,
    rules={**_EVERYWHERE, **dict.fromkeys(_SCORED, rules.documents)},
    required=(("text_1", "queries", "data_1"), ("text_2", "documents", "items", "data_2")),
    media=_SCORED,
    aliases=("/score",),
)

TOKENIZE = Endpoint(
    path="/tokenize",
    operation="tokenize",
    tasks=frozenset(Task),
    rules={
        **_EVERYWHERE,
        "prompt": tokens.text,
        "messages": tokens.bounded(rules.messages),
        "tools": tokens.bounded(rules.tools),
        "add_special_tokens": rules.boolean,
        "add_generation_prompt": rules.boolean,
        "continue_final_message": rules.boolean,
        "return_token_strs": rules.boolean,
    },
    required=(("prompt", "messages"),),
    media=("messages",),
    salted=False,
    computes=False,
    # Nor a variant's system prompt: the tokens would tell it to whoever asks.
)

DETOKENIZE = Endpoint(
    path="/detokenize",
    operation="detokenize",
    tasks=frozenset(Task),
    rules={**_EVERYWHERE, "tokens": tokens.ids},
    required=(("tokens",),),
    media=(),
    salted=False,
    computes=False,
)

ENDPOINTS: tuple[Endpoint, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    EMBEDDINGS,
    RERANK,
    SCORE,
    TOKENIZE,
    DETOKENIZE,
)
