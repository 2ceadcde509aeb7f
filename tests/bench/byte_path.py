"""CPU cost of the gateway's byte path alone: a raw relay around `Upstream` and `SSERelay`.

Beside it the same relay around aiohttp. Three processes: a fake engine that does no work, the relay, and
this one as the load. Only the relay's CPU time counts (getrusage, user and system).
Run: `PYTHONPATH=platform python -m tests.bench.byte_path`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, cast

import aiohttp
import httptools
import uvloop

from tradewind.gateway.stream import SSERelay
from tradewind.gateway.upstream import Upstream, request_head
from tradewind.gateway.usage import Dialect

PATH = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
CLIENTS = ("upstream", "aiohttp")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Write = Callable[[bytes], None]
Handler = Callable[[bytes, Write], Awaitable[None]]


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Front(asyncio.Protocol):
    """The relay's client side, as small as can be: one request at a time, a task for each."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.parser: Any = httptools.HttpRequestParser(self)
        self.body = b""
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        if self.parser.get_method() == b"GET":
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.transport.write(HEAD % b"text/plain" + chunked(b"%f" % (used.ru_utime + used.ru_stime)))
            self.transport.write(b"0\r\n\r\n")
        else:
            self.task = asyncio.get_running_loop().create_task(self.run(body))

    async def run(self, body: bytes) -> None:
        await self.handler(body, self.transport.write)
        self.transport.write(b"0\r\n\r\n")


def by_upstream(port: int) -> Handler:
    upstream = Upstream()
    headers = [
        (b"content-type", b"application/json"),
        (b"x-tradewind-token", b"0" * 64),
        (b"traceparent", b"0" * 55),
    ]

    async def handle(body: bytes, write: Write) -> None:
        head = request_head(b"POST", PATH.encode(), f"127.0.0.1:{port}", headers, len(body))
        now = asyncio.get_running_loop().time()
        response = await upstream.send(
            "127.0.0.1", port, head, body, first_byte_deadline=now + 30, total_deadline=now + 600
        )
        write(HEAD % response.content_type)
        relay = SSERelay(Dialect.OPENAI)
        while chunk := await response.read_chunk():
            data = relay.feed(chunk)
            if data:
                write(chunked(data))
        if rest := relay.finish():
            write(chunked(rest))

    return handle


def by_aiohttp(port: int) -> Handler:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout(600)
    )
    url = f"http://127.0.0.1:{port}{PATH}"
    headers = {"content-type": "application/json", "x-tradewind-token": "0" * 64, "traceparent": "0" * 55}

    async def handle(body: bytes, write: Write) -> None:
        async with session.post(url, data=body, headers=headers) as response:
            write(HEAD % response.headers["content-type"].encode())
            relay = SSERelay(Dialect.OPENAI)
            async for chunk in response.content.iter_any():
                data = relay.feed(chunk)
                if data:
                    write(chunked(data))
            if rest := relay.finish():
                write(chunked(rest))

    return handle


async def relay_process(client: str, engine_port: int) -> None:
    handler = (by_upstream if client == "upstream" else by_aiohttp)(engine_port)
    server = await asyncio.get_running_loop().create_server(lambda: Front(handler), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """The load: one keep-alive connection; counts body pieces and tells when a response is whole."""

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpResponseParser(self)
        self.done: asyncio.Future[None] | None = None
        self.body = b""
        self.pieces = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.pieces += 1
        self.body = body

    def on_message_complete(self) -> None:
        if self.done is not None:
            self.done.set_result(None)

    async def ask(self, method: str, body: bytes) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(
            b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
            % (method.encode(), PATH.encode(), len(body), body)
        )
        await self.done


async def load(port: int, connections: int, each: int, body: bytes) -> tuple[float, int, int]:
    """CPU seconds of the relay, requests and body pieces of `connections` clients asking `each` times."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(connections + 1)]
    *clients, meter = clients

    async def many(client: Client, times: int) -> None:
        for _ in range(times):
            await client.ask("POST", body)

    await asyncio.gather(*(many(client, 1) for client in clients))
    await meter.ask("GET", b"")
    before = float(meter.body)
    pieces = sum(client.pieces for client in clients)
    await asyncio.gather(*(many(client, each) for client in clients))
    await meter.ask("GET", b"")
    cpu = float(meter.body) - before
    pieces = sum(client.pieces for client in clients) - pieces
    for client in (*clients, meter):
        client.transport.close()
    return cpu, connections * each, pieces


def spawn(stack: ExitStack, *arguments: str) -> int:
    """Starts a process that prints its port; it ends with the stack."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True)

    def end() -> None:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    stack.callback(end)
    assert process.stdout is not None
    return int(process.stdout.readline())


def measure(client: str, loop: str, tokens: int, requests: int) -> tuple[float, float]:
    """Microseconds of CPU per request (not streamed) and per streamed chunk (requests taken off)."""
    message = {"model": "m", "messages": [{"role": "user", "content": "Tell me a story. " * 20}]}
    with ExitStack() as stack:
        engine = spawn(stack, "tests.fakes.engine", "--tokens", str(tokens), "--interval-ms", "20")
        relay = spawn(
            stack, "tests.bench.byte_path", "--relay", client, "--engine", str(engine), "--loop", loop
        )
        cpu, count, _ = asyncio.run(load(relay, 16, requests // 16, json.dumps(message).encode()))
        per_request = cpu / count
        streamed = json.dumps({**message, "stream": True}).encode()
        cpu, count, pieces = asyncio.run(load(relay, 64, 2, streamed))
    return per_request * 1e6, (cpu - count * per_request) / pieces * 1e6


def main() -> None:
    """Prints a table and then the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--loop", choices=LOOPS, action="append", help="of the relay; default both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--requests", type=int, default=4000)
    args = parser.parse_args()
    loops = args.loop or list(LOOPS)
    if args.relay:
        with asyncio.Runner(loop_factory=LOOPS[loops[0]]) as runner:
            runner.run(relay_process(args.relay, args.engine))
        return
    cells = [(client, loop) for loop in loops for client in CLIENTS]
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {cell: [] for cell in cells}
    for _ in range(args.rounds):
        for cell in cells:
            taken[cell].append(measure(*cell, args.tokens, args.requests))
    rows = []
    print(f"{'client':10} {'loop':8} {'us/request':>11} {'us/chunk':>9}")
    for (client, loop), results in taken.items():
        request, chunk = (statistics.median(column) for column in zip(*results, strict=True))
        rows.append({"client": client, "loop": loop, "us_per_request": request, "us_per_chunk": chunk})
        print(f"{client:10} {loop:8} {request:11.1f} {chunk:9.1f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
