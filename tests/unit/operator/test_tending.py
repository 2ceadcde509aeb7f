"""What a platform says about itself: read where it can be, and never a reason to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.unit.operator.desired.worlds import busy
from tradewind.rayapi.client import ControlError
from tradewind_operator.credentials import Credentials
from tradewind_operator.status.live import AdapterLive, Live, Unread
from tradewind_operator.tending import Charge, Tender, parse_gateway

CREDENTIALS = Credentials("ray-token", "internal-token", b"k" * 64)
SERVE = {
    "applications": {
        "llama": {
            "status": "RUNNING",
            "deployments": {"e": {"target_num_replicas": 2, "replicas": [{"state": "RUNNING"}]}},
        }
    }
}
READY = {
    "status": "ready",
    "revision": "r1",
    "deployments": {
        "llama": {
            "ready": 1,
            "context_length": 8192,
            "adapters": {"tone": {"ready": 0, "loading": 1, "failed": 0, "message": "fetching s3://a/b"}},
        },
        "cold": {"ready": 0},
    },
}


class Platform:
    """Both servers in one."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/serve/applications/": SERVE, "/readyz": READY}
        self.status = 200
        self.tokens: dict[str, str] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.tokens[request.path] = request.headers.get("Authorization", "")
        found = self.answers[request.path]
        if isinstance(found, str):
            return web.Response(text=found, status=self.status, headers={"Location": "http://elsewhere/"})
        return web.json_response(found, status=self.status)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform()
    app = web.Application()
    app.router.add_get("/{path:.*}", platform.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    platform.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield platform
    await runner.cleanup()


@pytest.fixture
async def tender() -> AsyncIterator[Tender]:
    tender = Tender()
    yield tender
    await tender.close()


async def nothing() -> None:
    """There is nothing to note before Serve is given applications."""


async def look(tender: Tender, url: str) -> Live:
    charge = Charge("default-0a1b2c3d", url, url, ("gateway-1",), ("gateway-1",), frozenset(), None)
    return await tender.tend(charge, CREDENTIALS, nothing)


async def test_both_sides_are_read_with_a_token_each(platform: Platform, tender: Tender) -> None:
    live = await look(tender, platform.url)
    assert live.apps is not None
    assert (live.apps["llama"].running, live.apps["llama"].wanted) == (1, 2)
    assert live.gateway is not None
    assert live.gateway.revision == "r1"
    assert live.gateway.deployments["llama"].context_length == 8192
    assert live.gateway.deployments["cold"].context_length is None
    assert live.gateway.deployments["cold"].adapters == {}
    assert live.gateway.deployments["llama"].adapters == {
        "tone": AdapterLive(loading=1, message="fetching s3://a/b")
    }
    assert platform.tokens == {
        "/api/serve/applications/": "Bearer ray-token",
        "/readyz": "Bearer internal-token",
    }


async def test_a_gateway_that_is_not_ready_still_says_which_configuration_it_has(
    platform: Platform, tender: Tender
) -> None:
    platform.status = 503
    live = await look(tender, platform.url)
    assert live.apps is None
    assert live.gateway is not None


@pytest.mark.parametrize(("status", "text"), [(302, ""), (200, "no JSON"), (200, "[]"), (500, "{}")])
async def test_what_makes_no_sense_counts_as_not_there(
    platform: Platform, tender: Tender, status: int, text: str
) -> None:
    platform.status = status
    platform.answers = dict.fromkeys(platform.answers, text)
    live = await look(tender, platform.url)
    assert (live.apps, live.gateway) == (None, None)
    assert live.problem


async def test_what_cannot_be_reached_is_none_and_says_so(tender: Tender) -> None:
    live = await look(tender, "http://127.0.0.1:1")
    assert (live.apps, live.gateway) == (None, None)
    assert "cannot be reached" in live.problem


@pytest.mark.parametrize(
    "serve",
    [{"applications": []}, {"applications": {"a": None}}, {"applications": {"a": {"deployments": 3}}}],
)
async def test_a_document_of_another_shape_is_none(
    platform: Platform, tender: Tender, serve: dict[str, Any]
) -> None:
    platform.answers["/api/serve/applications/"] = serve
    assert (await look(tender, platform.url)).apps is None
    assert parse_gateway({"revision": 3}) is None


async def test_nothing_is_sent_where_it_could_not_be_noted_before(platform: Platform, tender: Tender) -> None:
    async def refuse() -> None:
        raise ControlError("it could not be noted")

    found = busy()
    charge = Charge("c", platform.url, platform.url, (), (), frozenset(), found.compiled)
    live = await tender.tend(charge, CREDENTIALS, refuse)
    assert (live.sent, live.problem) == (False, "it could not be noted")
    assert live.apps is not None


def test_what_a_gateway_refuses_and_cannot_read_is_learned() -> None:
    left_out = {"kind": "route", "name": "chat", "why": "assign_by: ...", "kept": True}
    told = {
        "revision": "r1",
        "age_s": 3.0,
        "refused": {"revision": "r2", "why": "token=0123456789abcdef is wrong"},
        "left_out": [left_out, {"kind": 3}, "text"],
    }
    live = parse_gateway({"revision": "r1", "configuration": told})
    assert live is not None
    assert (live.refused, live.why) == ("r2", "token=[redacted] is wrong")
    assert live.unread == (
        Unread("route", "chat", "assign_by: ...", kept=True),
        Unread("3", "", "", kept=False),
    )
    assert live.unread_entry("route", "chat") == live.unread[0]
    assert live.unread_entry("deployment", "chat") is None


@pytest.mark.parametrize(
    "configuration",
    [None, 3, {}, {"refused": None, "left_out": None}, {"refused": "r", "left_out": {"a": 1}}],
)
def test_a_gateway_that_says_less_refuses_nothing(configuration: Any) -> None:
    live = parse_gateway({"revision": "r1", "configuration": configuration})
    assert live is not None
    assert (live.refused, live.unread) == ("", ())


def test_a_refusal_without_words_is_one_all_the_same() -> None:
    live = parse_gateway({"revision": "r1", "configuration": {"refused": {"why": "x" * 9_999}}})
    assert live is not None
    assert live.refused == "without a revision"
    assert len(live.why) == 300
