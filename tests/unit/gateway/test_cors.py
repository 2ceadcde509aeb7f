"""Pages in a browser: who may call, and what the browser is told."""

from __future__ import annotations

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import CHAT, Header, Reply, config, stage, user
from tradewind.api.resources import InvalidResourceError, parse_resource

PAGE = "https://chat.example.com"
ORIGIN: Header = (b"origin", PAGE.encode())
EVIL: Header = (b"origin", b"https://evil.example")
ASKS: list[Header] = [
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type,x-user-id"),
]
SETTINGS = config(cors_origins=(PAGE, "http://localhost:3000"))
ASK = {"model": "chat", "messages": [user("x")]}


def granted(reply: Reply) -> dict[str, str]:
    return {
        name.decode(): value.decode() for name, value in reply.headers if name.startswith(b"access-control-")
    }


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/rerank", "/tokenize"])
async def test_a_preflight_needs_no_key(path: str) -> None:
    async with stage(SETTINGS) as s:
        s.client.headers = [(b"host", b"gateway")]
        reply = await s.client.send("OPTIONS", path, None, [ORIGIN, *ASKS])
        assert (reply.status, reply.body) == (204, b"")
        assert granted(reply) == {
            "access-control-allow-origin": PAGE,
            "access-control-allow-headers": "authorization,content-type,x-user-id",
            "access-control-allow-methods": reply.header("allow"),
            "access-control-max-age": "600",
        }
        assert "origin" in (reply.header("vary") or "").split(", ")
        assert s.seen() == 0


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([EVIL], id="another origin"),
        pytest.param([(b"origin", b"null")], id="no origin of its own"),
        pytest.param([(b"origin", b"https://chat.example.com.evil.example")], id="a longer name"),
        pytest.param([(b"origin", b"https://chat.example.com:444")], id="another port"),
        pytest.param([(b"origin", b"http://chat.example.com")], id="another scheme"),
        pytest.param([ORIGIN, EVIL], id="two origins"),
        pytest.param([], id="none"),
    ],
)
async def test_nobody_else_is_granted_anything(headers: list[Header]) -> None:
    async with stage(SETTINGS) as s:
        for reply in (
            await s.client.send("OPTIONS", CHAT, None, [*headers, *ASKS]),
            await s.client.post(CHAT, ASK, headers),
            await s.client.get("/v1/models", headers),
        ):
            assert granted(reply) == {}
            assert (reply.header("vary") or "").startswith("origin"), "a cache must not give it to an origin"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_what_a_page_may_read(stream: bool) -> None:
    async with stage(SETTINGS) as s:
        reply = await s.client.post(CHAT, {**ASK, "stream": stream}, [ORIGIN])
        assert reply.status == 200
        assert reply.complete
        assert granted(reply) == {
            "access-control-allow-origin": PAGE,
            "access-control-expose-headers": "x-request-id, x-tradewind-route, x-tradewind-variant, "
            "retry-after",
        }
        assert reply.header("vary") == "origin"


async def test_a_page_can_read_errors_too() -> None:
    async with stage(SETTINGS, script=Script(fault=Fault.UNAVAILABLE)) as s:
        for reply, status in (
            (await s.client.post(CHAT, ASK, [ORIGIN]), 503),
            (await s.client.post(CHAT, b"{", [ORIGIN]), 400),
            (await s.client.post(CHAT, ASK, [ORIGIN, (b"authorization", b"Bearer wrong")]), 401),
            (await s.client.post(CHAT, ASK, [ORIGIN, (b"x-long", b"x" * 40_000)]), 431),
            (await s.client.get("/nothing", [ORIGIN]), 404),
            (await s.client.get(CHAT, [ORIGIN]), 405),
        ):
            assert reply.status == status
            assert granted(reply)["access-control-allow-origin"] == PAGE


async def test_headers_that_are_no_list_of_names_are_not_repeated() -> None:
    asks = [ASKS[0], (b"access-control-request-headers", b"a\x00b")]
    async with stage(SETTINGS) as s:
        reply = await s.client.send("OPTIONS", CHAT, None, [ORIGIN, *asks])
        assert "access-control-allow-headers" not in granted(reply)


async def test_without_a_list_nothing_is_said_of_origins() -> None:
    async with stage() as s:
        for reply in (
            await s.client.send("OPTIONS", CHAT, None, [ORIGIN, *ASKS]),
            await s.client.post(CHAT, ASK, [ORIGIN]),
        ):
            assert granted(reply) == {}
            assert reply.header("vary") is None


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (PAGE, True),
        ("http://localhost:3000", True),
        ("http://[::1]:3000", True),
        ("chrome-extension://abcdefgh", True),
        ("*", False),
        ("null", False),
        ("chat.example.com", False),
        ("https://chat.example.com/", False),
        ("https://*.example.com", False),
        ("https://Chat.example.com", False),
        ("https://user@chat.example.com", False),
        ("https://chat.example.com\nx: y", False),
    ],
)
def test_an_origin_is_written_as_a_browser_sends_it(origin: str, good: bool) -> None:
    document = {
        "apiVersion": "tradewind.dev/v1alpha1",
        "kind": "ServingCluster",
        "metadata": {"name": "default"},
        "spec": {"gateway": {"cors": {"allowedOrigins": [origin]}}},
    }
    try:
        parse_resource(document)
    except InvalidResourceError:
        assert not good
    else:
        assert good
