"""The gateway behind its own listener, and people without a key, or with one and no patience."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import CHAT, KEY, config, stage, user
from tests.unit.gateway.front.talking import hear, heard, talk, until
from tradewind.api.wire import RequestLimits
from tradewind.gateway.front.limits import FrontLimits

BODY = json.dumps({"model": "chat", "messages": [user("x")]}).encode()
KEYED = b"host: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"
JSON = b"content-type: application/json\r\n"
STRANGER = b"host: x\r\nauthorization: Bearer wrong\r\n"


def post(*headers: bytes, who: bytes = KEYED, kind: bytes = JSON, body: bytes = BODY) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    length = b"content-length: %d\r\n\r\n" % len(body)
    return b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + who + kind + lines + length + body


def said(answer: bytes) -> tuple[int, str]:
    """Status and code of the one JSON error that the answer is."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def flood(port: int, head: bytes, most: int) -> tuple[bytes, int]:
    """What comes back while a body is sent and sent, and how many bytes could be sent."""
    loop = asyncio.get_running_loop()
    sent, block = 0, b"a" * 65_536
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        caller.setblocking(False)
        await loop.sock_connect(caller, ("127.0.0.1", port))
        await loop.sock_sendall(caller, head)
        answer = await loop.sock_recv(caller, 65_536)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(4):
                while sent < most:
                    await loop.sock_sendall(caller, block)
                    sent += len(block)
    return answer, sent


@pytest.mark.parametrize("framing", [b"content-length: 90000000", b"transfer-encoding: chunked"])
@pytest.mark.parametrize(("who", "code"), [(STRANGER, "invalid_api_key"), (KEYED, "no_capacity")])
async def test_of_a_body_that_is_refused_little_is_read(framing: bytes, who: bytes, code: str) -> None:
    full = config(limits=RequestLimits(concurrent_requests=1))
    async with stage(full, script=Script(fault=Fault.NO_HEAD)) as s, heard(s.gateway) as (listener, port):
        busy: asyncio.Task[object] | None = None
        if who is KEYED:
            busy = asyncio.create_task(talk(port, post(), pause_s=0))
            await until(lambda: s.gateway.active)
            held = listener.held
        else:
            held = 0
        chunk = b"" if framing.startswith(b"content") else b"ffffff\r\n"
        head = b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + who + JSON + framing + b"\r\n\r\n" + chunk
        answer, sent = await flood(port, head, 50_000_000)
        assert said(answer)[1] == code
        assert b"connection: close" in answer
        assert sent < 2_000_000
        assert listener.held <= held
        if busy is not None:
            await busy


@pytest.mark.parametrize("keyed", [False, True])
async def test_unfinished_bodies_do_not_shut_anybody_out(keyed: bool) -> None:
    """4,150 of them from one address: as many as took all of a proxy's places, for an hour."""
    clock = [0.0]
    limits = RequestLimits(body_timeout_s=0.05)
    front = FrontLimits(connections=4_200, connections_per_address=4_100)
    unfinished = post(who=KEYED if keyed else STRANGER)[:-5]
    async with stage(config(limits=limits)) as s, heard(s.gateway, front, clock) as (listener, port):
        callers = []
        for number in range(4_150):
            caller = socket.create_connection(("127.0.0.1", port))
            caller.sendall(unfinished)
            callers.append(caller)
            if number % 100 == 99:
                await asyncio.sleep(0)
        await until(lambda: s.gateway.active == 0 and listener.refused["address"], 20)
        assert listener.open <= 4_100
        assert listener.refused["address"] >= 50

        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other[1].write(post())
        assert (await hear(other[0]))[0].startswith(b"HTTP/1.1 200 OK")
        other[1].close()

        answered = callers[0].recv(65_536)
        assert said(answered) == ((408, "request_timeout") if keyed else (401, "invalid_api_key"))
        await until(lambda: not listener.held)
        clock[0] = 2.1
        listener.sweep()
        await until(lambda: not listener.open)
        assert (await talk(port, post()))[0].startswith(b"HTTP/1.1 200 OK")
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(
    "path",
    [
        b"/engines/llama/v1/chat/completions",
        b"/engines/llama/tradewind/stats",
        b"/engines%2fllama/v1/chat/completions",
        b"/-/routes",
        b"/-/healthz",
        b"/%2d/routes",
        b"/%2D/routes",
        b"/-/%72outes",
        b"/-%2froutes",
        b"//-/routes",
        b"/./-/routes",
        b"/v1/../-/routes",
        b"/-/routes?x=/v1/models",
        b"/api/serve/applications/",
        b"http://gateway/-/routes",
        b"HTTP://gateway/engines/llama/v1/chat/completions",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_no_path_leads_around_the_gateway(path: bytes, method: bytes) -> None:
    async with stage() as s, heard(s.gateway) as (_, port):
        answer, _ = await talk(port, method + b" " + path + b" HTTP/1.1\r\n" + KEYED + b"\r\n")
        assert said(answer) == (404, "not_found")
        assert s.seen() == 0


async def test_without_a_replica_nobody_without_a_key_is_held_or_buffered() -> None:
    async with stage() as s, heard(s.gateway) as (listener, port):
        s.gateway.directory.update(s.config.deployments[0], [])
        answers = await asyncio.gather(*(talk(port, post(who=STRANGER)) for _ in range(50)))
        assert {said(answer) for answer, _ in answers} == {(401, "invalid_api_key")}
        assert listener.held == 0


@pytest.mark.parametrize(
    "header",
    [
        b"te: trailers, deflate;q=0.5",
        b"te: \x80\xff",
        b"x-request-timeout-seconds: 0.000001",
        b"x-request-timeout-seconds: nonsense",
        b"x-session-id: \xc3\xa9\xff",
        b"x-multiplexed-model-id: other",
        b"proxy-connection: keep-alive",
    ],
)
async def test_a_header_that_means_something_to_others_changes_nothing(header: bytes) -> None:
    async with stage() as s, heard(s.gateway) as (_, port):
        answer, closed = await talk(port, post(header))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert not closed
        assert not {name for name in s.engine.seen[-1].headers if name in header.decode("latin-1")}


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json;",
        b"application/json; ",
        b"application/json; charset=utf-8;",
        b"Application/JSON ;charset=UTF-8",
    ],
)
async def test_a_content_type_may_end_with_a_semicolon(kind: bytes) -> None:
    async with stage() as s, heard(s.gateway) as (_, port):
        answer, _ = await talk(port, post(kind=b"content-type: " + kind + b"\r\n"))
        assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET * HTTP/1.1\r\n" + KEYED + b"\r\n", 404, "not_found"),
        (b"OPTIONS * HTTP/1.1\r\n" + KEYED + b"\r\n", 404, "not_found"),
        (b"CONNECT gateway:443 HTTP/1.1\r\n" + KEYED + b"\r\n", 400, "invalid_request"),
        (b"TRACE / HTTP/1.1\r\n" + KEYED + b"\r\n", 404, "not_found"),
        (b"GET /v1/chat/completions HTTP/1.1\r\n" + KEYED + b"\r\n", 405, "method_not_allowed"),
        (post(b"transfer-encoding: chunked"), 400, "invalid_request"),
        (post(b"transfer-encoding: gzip, chunked"), 400, "invalid_request"),
        (post(b"transfer-encoding: identity", body=b"")[:-2], 400, "invalid_request"),
        (post(kind=b"content-type: text/plain;\r\n"), 415, "unsupported_media_type"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "invalid_request"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request"),
    ],
)
async def test_what_is_odd_is_answered_by_our_own_errors(sent: bytes, status: int, code: str) -> None:
    async with stage() as s, heard(s.gateway) as (_, port):
        answer, _ = await talk(port, sent)
        assert said(answer) == (status, code)
        assert s.seen() == 0
