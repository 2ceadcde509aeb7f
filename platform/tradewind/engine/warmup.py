"""First requests through the finished application, so that no user pays for what is done once.

They go through the ASGI application itself: chat template, tokenizer, sampler, streaming and the
compiled kernels are all touched. A model may lack a chat template or an endpoint; only a server error
or no answer at all says that the engine does not work.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from tradewind.api.wire import Task
from tradewind.engine.app import ASGIApp, Message
from tradewind.engine.errors import EngineStartError

_LOG = logging.getLogger(__name__)

TIMEOUT_S = 300.0
"""For one warm-up request: a large model's first step compiles."""

_TEXT = "Hello"


def requests(model: str, task: Task) -> list[tuple[str, dict[str, Any]]]:
    """Path and body of the warm-up requests for a task."""
    if task is Task.EMBED:
        return [("/v1/embeddings", {"model": model, "input": _TEXT})]
    if task is Task.SCORE:
        return [("/v1/score", {"model": model, "text_1": _TEXT, "text_2": _TEXT})]
    chat = {"model": model, "messages": [{"role": "user", "content": _TEXT}], "max_tokens": 8}
    return [
        ("/v1/completions", {"model": model, "prompt": _TEXT, "max_tokens": 2}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
    ]


def structured(model: str) -> tuple[str, dict[str, Any]]:
    """The one that makes the compiler of grammars, which large vocabularies cost seconds.

    vLLM's engine keeps the compiler that it needed first for as long as it lives: this way it is the same in
    every replica, whatever callers send first.
    """
    return "/v1/completions", {
        "model": model, "prompt": _TEXT, "max_tokens": 1, "structured_outputs": {"choice": ["yes", "no"]}
    }  # fmt: skip


async def warm_up(app: ASGIApp, model: str, task: Task, timeout_s: float = TIMEOUT_S) -> None:
    """Send them one after the other. EngineStartError when the engine fails or does not answer."""
    for path, body in requests(model, task):
        try:
            status, text = await asyncio.wait_for(_post(app, path, body), timeout_s)
        except TimeoutError as error:
            raise EngineStartError(
                f"the engine did not answer its first request within {timeout_s:g} s"
            ) from error
        if status >= 500:
            raise EngineStartError(f"the engine failed its first request ({path}): {_message(text)}")
    if task is Task.GENERATE:
        status, _ = await asyncio.wait_for(_post(app, *structured(model)), timeout_s)
        if status >= 400:  # its tokenizer may have none
            _LOG.warning("the engine of %s has no structured output: it answers %d", model, status)


async def _post(app: ASGIApp, path: str, body: dict[str, Any]) -> tuple[int, str]:
    content = json.dumps(body).encode()
    pending: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
    never = asyncio.Event()
    status = 0
    received = bytearray()

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif len(received) < 65536:
            received.extend(message.get("body", b""))

    await app(_scope(path, len(content)), receive, send)
    return status, received.decode(errors="replace")


def _scope(path: str, length: int) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(length).encode())],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
    }


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
