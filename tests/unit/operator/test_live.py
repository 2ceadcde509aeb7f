"""What a platform says about itself: read where it can be, and never a reason to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tradewind_operator.credentials import Credentials
from tradewind_operator.live import LiveReader, parse_live

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
    "deployments": {"llama": {"ready": 1, "context_length": 8192}, "cold": {"ready": 0}},
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
async def reader() -> AsyncIterator[LiveReader]:
    reader = LiveReader(timeout_s=1.0)
    yield reader
    await reader.close()


async def test_serve_and_gateway_are_read_with_a_token_each(platform: Platform, reader: LiveReader) -> None:
    live = await reader.read(platform.url, platform.url, CREDENTIALS)
    assert live.apps is not None
    assert (live.apps["llama"].running, live.apps["llama"].wanted) == (1, 2)
    assert live.gateway is not None
    assert live.gateway.revision == "r1"
    assert live.gateway.deployments["llama"].context_length == 8192
    assert live.gateway.deployments["cold"].context_length is None
    assert platform.tokens == {
        "/api/serve/applications/": "Bearer ray-token",
        "/readyz": "Bearer internal-token",
    }


async def test_a_gateway_that_is_not_ready_still_says_which_configuration_it_has(
    platform: Platform, reader: LiveReader
) -> None:
    platform.status = 503
    live = await reader.read(platform.url, platform.url, CREDENTIALS)
    assert live.apps is None
    assert live.gateway is not None


@pytest.mark.parametrize(("status", "text"), [(302, ""), (200, "no JSON"), (200, "[]"), (500, "{}")])
async def test_what_makes_no_sense_counts_as_not_there(
    platform: Platform, reader: LiveReader, status: int, text: str
) -> None:
    platform.status = status
    platform.answers = dict.fromkeys(platform.answers, text)
    live = await reader.read(platform.url, platform.url, CREDENTIALS)
    assert (live.apps, live.gateway) == (None, None)


async def test_what_cannot_be_reached_is_none(reader: LiveReader) -> None:
    live = await reader.read("http://127.0.0.1:1", "http://127.0.0.1:1", CREDENTIALS)
    assert (live.apps, live.gateway) == (None, None)


@pytest.mark.parametrize(
    "serve",
    [{"applications": []}, {"applications": {"a": None}}, {"applications": {"a": {"deployments": 3}}}],
)
def test_a_document_of_another_shape_is_none(serve: dict[str, Any]) -> None:
    assert parse_live(serve, {"revision": 3}).apps is None
    assert parse_live(serve, {"revision": 3}).gateway is None
