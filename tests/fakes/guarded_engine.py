"""The real guard of an engine, served by uvicorn behind a bound like Serve's, before a model that only waits.

In a test `async with guarded_engine(Model(hold_s=0.1), ...) as port`; as a process, which can be stopped:
`python -m tests.fakes.guarded_engine --token T --prefix /engines/llama` (it prints its port).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.fakes import engine_answers
from tradewind.engine.app import ASGIApp, EngineGuard, Receive, Scope, Send
from tradewind.engine.stats import EngineStats


@dataclass
class Model:
    """What stands for vLLM: holds each request for a while, then answers."""

    hold_s: float = 0.0
    running: int = 0
    most: int = 0
    """Requests that were there at the same time, at most."""
    served: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, nobody is held any longer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), self.hold_s)
        finally:
            self.running -= 1
        self.served += 1
        answer = engine_answers.whole("/v1/chat/completions", json.loads(body), 1)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def stats(self) -> EngineStats:
        return EngineStats(
            "llama", "llama", "generate", 2048, self.running, 0, 0.0, self.served, True, {}, "fake"
        )


def behind_serve(app: ASGIApp, door: int, prefix: str) -> ASGIApp:
    """`app` as Serve's replica calls it: `door` requests at a time, all others in line, probes too."""
    line = asyncio.Semaphore(door)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = prefix
        async with line:
            await app(scope, receive, send)

    return call


@contextlib.asynccontextmanager
async def guarded_engine(
    model: Model, *, token: str, prefix: str, bound: int = 256, door: int = 100_000
) -> AsyncIterator[int]:
    """Serves on loopback; gives the port."""
    guard = EngineGuard(model, token=token, model="llama", stats=model.stats, bound=bound)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port: int = listener.getsockname()[1]
    app: Any = behind_serve(guard, door, prefix)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", http="httptools"))
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield port
    finally:
        model.ended.set()
        server.should_exit = server.force_exit = True
        await task
        listener.close()


async def _main(args: argparse.Namespace) -> None:
    model = Model(args.hold_s)
    async with guarded_engine(model, token=args.token, prefix=args.prefix, bound=args.bound) as port:
        print(port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serves until it is killed; the first line printed is the port."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--token", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--bound", type=int, default=256)
    parser.add_argument("--hold-s", type=float, default=0.0)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
