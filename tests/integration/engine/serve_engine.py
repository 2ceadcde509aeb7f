"""Runs one VLLMEngine behind uvicorn, as Serve's replica does, for tests that talk to it by HTTP.

    python serve_engine.py SETTINGS.json LIVE.json PORT SPANS.jsonl

`<prefix>/v1/...` goes to the engine; `GET /test/health` answers 200, or 500 with the reason; `GET
/test/loras` lists the adapters that vLLM holds; `POST /test/live` hands it another EngineLive, as Serve's
`reconfigure` does. Ends with code 3 and the cause on
the last line of stderr when the engine does not start.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tradewind.api.wire import EngineLive, EngineSettings
from tradewind.engine.app import Message, Receive, Scope, Send
from tradewind.engine.errors import EngineStartError, EngineUnhealthyError
from tradewind.engine.runtime import VLLMEngine

PREFIX = "/engines/tiny"


class FileExporter(SpanExporter):
    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as out:
            for span in spans:
                out.write(span.to_json(indent=None) + "\n")
        return SpanExportResult.SUCCESS


class Replica:
    """Adds to a scope what Serve's direct ingress adds, and a health endpoint for the test."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/test/health":
            await self._health(send)
            return
        if scope["type"] == "http" and scope["path"] == "/test/live":
            message = await receive()
            live = EngineLive.model_validate_json(message["body"])
            self._engine.set_bound(live.max_ongoing_requests)
            self._engine.set_adapters(live.adapters)
            await _answer(send, 200, "ok")
            return
        if scope["type"] == "http" and scope["path"] == "/test/loras":
            await _answer(send, 200, json.dumps(sorted(await self._held())))
            return
        scope["root_path"] = scope.get("root_path", "") + PREFIX
        await self._engine.asgi(scope, receive, send)

    async def _held(self) -> set[int]:
        """Asked of vLLM itself, past everything of ours."""
        assert self._engine._running is not None
        assert self._engine._running.lora is not None
        held: set[int] = await self._engine._running.lora._engine.list_loras()
        return held

    async def _health(self, send: Send) -> None:
        status, body = 200, "ok"
        try:
            await self._engine.check_health()
        except EngineUnhealthyError as error:
            status, body = 500, str(error)
        await _answer(send, status, body)


async def _answer(send: Send, status: int, body: str) -> None:
    start: Message = {"type": "http.response.start", "status": status, "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": body.encode()})


async def main(settings: EngineSettings, live: EngineLive, port: int, spans: Path) -> int:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(spans)))
    engine = VLLMEngine(token=os.environ["TRADEWIND_INTERNAL_TOKEN"], tracer_provider=provider)
    try:
        engine.set_bound(live.max_ongoing_requests)
        await engine.start(settings, live.adapters)
    except EngineStartError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    try:
        config = uvicorn.Config(Replica(engine), host="127.0.0.1", port=port, log_level="warning")
        await uvicorn.Server(config).serve()
    finally:
        await engine.stop()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    wanted = EngineSettings.model_validate_json(Path(sys.argv[1]).read_text())
    first = EngineLive.model_validate_json(Path(sys.argv[2]).read_text())
    sys.exit(asyncio.run(main(wanted, first, int(sys.argv[3]), Path(sys.argv[4]))))
