"""What the fake engine says: bodies and server-sent events in the shapes vLLM uses, built once per model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

PROMPT_TOKENS = 7
WORD = " word"


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def event(data: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dumps(data) + b"\n\n"


@dataclass(frozen=True)
class Stream:
    """Events of one streamed answer: `first`, then `token` once per token, then `last` pieces."""

    first: bytes
    token: bytes
    last: tuple[bytes, ...]


@lru_cache(maxsize=64)
def stream(path: str, model: str, tokens: int, usage: bool) -> Stream:
    """The events for `path`; `usage` adds the usage-only chunk of chat and completions."""
    if path == "/v1/messages":
        return _messages(model, tokens)
    if path == "/v1/responses":
        return _responses(model, tokens)
    return _completions(path, model, tokens, usage)


def _completions(path: str, model: str, tokens: int, usage: bool) -> Stream:
    chat = path == "/v1/chat/completions"
    base = {"id": "cmpl-fake", "object": "chat.completion.chunk" if chat else "text_completion", "created": 0}
    more: dict[str, Any] = {} if chat else {"stop_reason": None, "prompt_token_ids": None}

    def chunk(text: str, finish: str | None = None, role: bool = False) -> bytes:
        delta: dict[str, Any] = {"role": "assistant", "content": text} if role else {"content": text}
        body: dict[str, Any] = {"delta": delta} if chat else {"text": text}
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": finish}
        if not role:
            choice |= {**more, "token_ids": None}
        return event({**base, "model": model, "choices": [choice]})

    last = [chunk("", "stop")]
    if usage:
        counts = {
            "prompt_tokens": PROMPT_TOKENS,
            "total_tokens": PROMPT_TOKENS + tokens,
            "completion_tokens": tokens,
        }
        last.append(event({**base, "model": model, "choices": [], "usage": counts}))
    return Stream(chunk("", role=True), chunk(WORD), (*last, b"data: [DONE]\n\n"))


def _messages(model: str, tokens: int) -> Stream:
    usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": 0}
    message: dict[str, Any] = {
        "id": "msg-fake", "type": "message", "role": "assistant", "content": [], "model": model,
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    delta = {"type": "text_delta", "text": WORD}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return Stream(
        event({"type": "message_start", "message": message}, "message_start")
        + event(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            "content_block_start",
        ),
        event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta"),
        (
            event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
            event(
                {"type": "message_delta", "delta": stop, "usage": {**usage, "output_tokens": tokens}},
                "message_delta",
            ),
            event({"type": "message_stop"}, "message_stop"),
        ),
    )


def _responses(model: str, tokens: int) -> Stream:
    created = {"type": "response.created", "sequence_number": 0, "response": _response(model, None)}
    delta = {
        "type": "response.output_text.delta", "item_id": "msg-fake", "output_index": 0, "content_index": 0,
        "delta": WORD, "logprobs": [], "sequence_number": 1,
    }  # fmt: skip
    done = {"type": "response.completed", "sequence_number": 2, "response": _response(model, tokens)}
    return Stream(
        event(created, "response.created"),
        event(delta, "response.output_text.delta"),
        (event(done, "response.completed"),),
    )


def _response(model: str, tokens: int | None) -> dict[str, Any]:
    usage = None
    if tokens is not None:
        usage = {
            "input_tokens": PROMPT_TOKENS, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + tokens,
        }  # fmt: skip
    content = {"type": "output_text", "text": WORD * (tokens or 0), "annotations": []}
    message = {
        "id": "msg-fake", "type": "message", "role": "assistant", "status": "completed", "content": [content],
    }  # fmt: skip
    return {
        "id": "resp-fake", "object": "response", "created_at": 0, "model": model, "tools": [],
        "tool_choice": "auto", "parallel_tool_calls": True,
        "status": "in_progress" if tokens is None else "completed",
        "output": [] if tokens is None else [message], "usage": usage,
    }  # fmt: skip


def whole(path: str, request: dict[str, Any], tokens: int) -> bytes:
    """The JSON body for `path`, not streamed."""
    model = str(request.get("model", ""))
    text = WORD * tokens
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": PROMPT_TOKENS + tokens,
    }
    pooled = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    base = {"id": "fake", "created": 0, "model": model}
    if path == "/v1/chat/completions":
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
        return dumps({**base, "object": "chat.completion", "choices": [_stopped(choice)], "usage": usage})
    if path == "/v1/completions":
        choice = {"index": 0, "text": text, "logprobs": None}
        return dumps({**base, "object": "text_completion", "choices": [_stopped(choice)], "usage": usage})
    if path == "/v1/responses":
        return dumps(_response(model, tokens))
    if path == "/v1/messages":
        message = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": text}]}
        counts = {"input_tokens": PROMPT_TOKENS, "output_tokens": tokens}
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        return dumps({"id": "msg-fake", "model": model, **message, **stop, "usage": counts})
    if path == "/v1/messages/count_tokens":
        return dumps({"input_tokens": PROMPT_TOKENS})
    if path == "/tokenize":
        ids = list(range(len(str(request.get("prompt", "")))))
        return dumps({"count": len(ids), "max_model_len": 2048, "tokens": ids, "token_strs": None})
    if path == "/detokenize":
        return dumps({"prompt": "x" * len(request["tokens"])})
    if path == "/v1/rerank":
        results = [
            {"index": index, "document": {"text": document}, "relevance_score": 0.5}
            for index, document in enumerate(request.get("documents", []))
        ]
        return dumps({**base, "results": results, "usage": pooled})
    if path == "/v1/score":
        return dumps(
            {
                **base,
                "object": "list",
                "data": [{"index": 0, "object": "score", "score": 0.5}],
                "usage": pooled,
            }
        )
    inputs = request.get("input", "")
    count = len(inputs) if isinstance(inputs, list) else 1
    data = [{"index": index, "object": "embedding", "embedding": [0.0, 1.0]} for index in range(count)]
    return dumps({**base, "object": "list", "data": data, "usage": pooled})


def _stopped(choice: dict[str, Any]) -> dict[str, Any]:
    return {**choice, "finish_reason": "stop"}


def error(status: int, message: str) -> bytes:
    return dumps({"error": {"message": message, "type": "server_error", "param": None, "code": status}})
