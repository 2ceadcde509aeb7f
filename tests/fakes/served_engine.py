"""An engine that does no work, as a Serve application: the real guard before a stream of words.

A compiled configuration runs with it when its engines' `import_path` is `PATH`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import ray
from ray import serve
from ray.serve import Application

from tests.fakes import engine_answers
from tradewind import home
from tradewind.engine.app import EngineGuard, Receive, Scope, Send
from tradewind.engine.stats import EngineStats
from tradewind.serve import loopback

PATH: Final = "tests.fakes.served_engine:engine"
PATH_OF_CHAT: Final = "/v1/chat/completions"
INTERVAL_S: Final = 0.02


class Words:
    """Answers a chat with as many words as it may have, one every `INTERVAL_S`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = json.loads(body)
        self._running += 1
        try:
            await self._answer(asked, send)
        finally:
            self._running -= 1

    async def _answer(self, asked: dict[str, Any], send: Send) -> None:
        words = int(asked.get("max_tokens", 16))
        if not asked.get("stream"):
            whole = engine_answers.whole(PATH_OF_CHAT, asked, words)
            await self._begin(send, b"application/json")
            await send({"type": "http.response.body", "body": whole})
            return
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        events = engine_answers.stream(PATH_OF_CHAT, self._name, words, usage)
        await self._begin(send, b"text/event-stream; charset=utf-8")
        for piece in (events.first, *[events.token] * words, *events.last):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(INTERVAL_S)
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, send: Send, content_type: bytes) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def stats(self) -> EngineStats:
        return EngineStats(self._name, "llama", "generate", 2048, self._running, 0, 0.0, 0, True, {}, "fake")


class WordsReplica:
    """What EngineReplica is to vLLM."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        loopback.keep_replica(ray.util.get_node_ip_address())
        self._name = str(settings["name"])

    async def __serve_build_asgi_app__(self) -> EngineGuard:
        words = Words(self._name)
        return EngineGuard(words, token=home.internal_token(), model=self._name, stats=words.stats)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """There is nothing to change."""


_engine = serve.deployment(name="engine")(serve.ingress()(WordsReplica))


def engine(args: dict[str, Any]) -> Application:
    """Builder, as `tradewind.serve.applications.engine` is."""
    return _engine.bind(args["settings"])
