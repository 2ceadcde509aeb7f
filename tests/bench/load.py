"""The load: keep-alive connections in a process of their own, so that their CPU time counts for nobody.

`python -m tests.bench.load` reads a Plan as one line of JSON, connects and warms up, prints `ready`,
waits for a line, sends the requests and prints a Result as one line of JSON. `Load` is its handle.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self, cast

import httptools
import msgspec
import uvloop

CHAT_PATH = "/v1/chat/completions"


class Plan(msgspec.Struct):
    """What to send. Connection k sends the bodies k, k + connections, … in turn."""

    port: int
    path: str
    headers: list[tuple[str, str]]
    bodies: list[str]
    users: list[str] = []
    """Values of `x-user-id`, in turn; none: no such header."""
    host: str = "127.0.0.1"
    connections: int = 1
    requests: int = 1
    """By each connection."""
    warmup: int = 0
    """By each connection, before `ready`."""
    stagger_s: float = 0.0
    """Connections begin this far apart."""
    timeout_s: float = 120.0


class Result(msgspec.Struct):
    """What came back. Times are seconds in the order requests ended, of 2,000 requests at most.

    More would not fit into a pipe at once, and a line of megabytes was seen to arrive with a piece missing.
    """

    requests: int
    failed: int
    elapsed_s: float
    first_s: list[float]
    """Until the first token of a stream, or the first byte of another answer."""
    total_s: list[float]
    events: int
    """Server-sent events, all kinds."""


_TIMES = 2000
_ROLE_AND_TOKEN = 2
"""A stream's first event holds no text: the second one is the first token."""


class _Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.done: asyncio.Future[bool] | None = None
        self.events = 0
        self.sent_at = self.first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.ok = self.parser.get_status_code() == 200

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.streams = value.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        self.last = body
        if self.streams:
            self.events += body.count(b"data: ")
        if not self.first_s and (not self.streams or self.events >= _ROLE_AND_TOKEN):
            self.first_s = time.perf_counter() - self.sent_at

    def on_message_complete(self) -> None:
        whole = not self.streams or self.last.endswith(b"[DONE]\n\n")
        if self.done is not None and not self.done.done():
            self.done.set_result(self.ok and whole)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(False)

    async def ask(self, request: bytes) -> bool:
        self.done = asyncio.get_running_loop().create_future()
        self.events, self.first_s, self.last = 0, 0.0, b""
        self.ok = self.streams = False
        self.sent_at = time.perf_counter()
        self.transport.write(request)
        return await self.done


def _requests(plan: Plan) -> list[bytes]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in plan.headers)
    made = []
    for number, body in enumerate(plan.bodies):
        user = f"x-user-id: {plan.users[number % len(plan.users)]}\r\n" if plan.users else ""
        head = f"POST {plan.path} HTTP/1.1\r\nhost: {plan.host}:{plan.port}\r\n{lines}{user}"
        made.append(f"{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode())
    return made


async def _run(plan: Plan) -> Result:
    loop = asyncio.get_running_loop()
    requests = _requests(plan)
    clients = [
        (await loop.create_connection(_Client, plan.host, plan.port))[1] for _ in range(plan.connections)
    ]
    result = Result(plan.connections * plan.requests, 0, 0.0, [], [], 0)

    async def many(number: int, client: _Client, times: int, *, counts: bool) -> None:
        await asyncio.sleep(number * plan.stagger_s)
        for turn in range(times):
            ok = await client.ask(requests[(turn * plan.connections + number) % len(requests)])
            if not counts:
                continue
            result.failed += not ok
            result.first_s.append(client.first_s)
            result.total_s.append(time.perf_counter() - client.sent_at)
            result.events += client.events

    async def all_of(times: int, *, counts: bool) -> None:
        async with asyncio.timeout(plan.timeout_s):
            await asyncio.gather(*(many(n, c, times, counts=counts) for n, c in enumerate(clients)))

    await all_of(plan.warmup, counts=False)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    began = time.perf_counter()
    await all_of(plan.requests, counts=True)
    result.elapsed_s = time.perf_counter() - began
    for client in clients:
        client.transport.close()
    return result


class LoadFailed(Exception):
    """The load's process ended without a result, or requests failed: figures would mean nothing."""


class Load:
    """A load process, warmed up. `run` sends the requests that count."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(msgspec.json.encode(plan).decode())
        if self._hear() != "ready":
            self.close()
            raise LoadFailed("the load could not connect or warm up")

    def run(self) -> Result:
        """Raises LoadFailed when any request did."""
        self.begin()
        return self.result()

    def begin(self) -> None:
        """Send the requests that count, and return at once."""
        self._say("go")

    def result(self) -> Result:
        """What came back, when all of it has. Raises LoadFailed when any request failed."""
        line = self._hear()
        if not line:
            raise LoadFailed("the load's process ended")
        result = msgspec.json.decode(line, type=Result)
        if result.failed:
            raise LoadFailed(f"{result.failed} of {result.requests} requests failed")
        return result

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def send(plan: Plan) -> Result:
    """All of a plan at once, where nobody counts CPU."""
    with Load(plan) as load:
        return load.run()


def thinned(times: list[float]) -> list[float]:
    """At most 2,000 of them, evenly picked, to the microsecond."""
    step = -(-len(times) // _TIMES) or 1
    return [round(time_s, 6) for time_s in times[::step]]


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_run(plan))
    result.first_s, result.total_s = thinned(result.first_s), thinned(result.total_s)
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
