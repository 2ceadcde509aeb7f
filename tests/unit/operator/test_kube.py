"""The client on a server of its own: paths, pages, retries, and errors that say what may be said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from tradewind_operator.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotServed,
    SettingsError,
    Unreachable,
)
from tradewind_operator.kinds import MODEL_ROUTE, SECRET, SERVICE, TENANT
from tradewind_operator.kube import Connection, Kube, calls_made, connect

Answer = tuple[int, Any]


class Server:
    """Answers from a list, and notes what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.headers: dict[str, str] = {}
        self.asked: list[web.Request] = []
        self.bodies: list[Any] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        content = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=content, headers=self.headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    answering = Server()
    runner = web.AppRunner(_app(answering), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answering.headers["X-Port"] = str(runner.addresses[0][1])
    yield answering
    await runner.cleanup()


def _app(handler: Server) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.answer)
    return app


class Waits:
    """Sleeps that take no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def kube(server: Server, waits: Waits) -> AsyncIterator[Kube]:
    configuration = Configuration(host=f"http://127.0.0.1:{server.headers['X-Port']}")
    configuration.api_key["BearerToken"] = "bearer abc"
    client = Kube(Connection(configuration, "ns"), sleep=waits)
    yield client
    await client.close()


async def test_a_list_follows_its_pages_and_says_what_the_items_are(server: Server, kube: Kube) -> None:
    server.answers = [
        (200, {"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}}]}),
        (200, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]}),
    ]
    found = await kube.list(SERVICE, "ns", "a=b")
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert found[0]["kind"] == "Service"
    first, second = server.asked
    assert first.path == "/api/v1/namespaces/ns/services"
    assert first.query["labelSelector"] == "a=b"
    assert second.query["continue"] == "next"
    assert first.headers["Authorization"] == "bearer abc"


async def test_server_side_apply_is_forced_under_one_field_manager(server: Server, kube: Kube) -> None:
    server.answers = [(200, {"metadata": {"name": "a"}})]
    manifest = {
        "apiVersion": "tradewind.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "a", "namespace": "ns"},
    }
    await kube.apply(manifest)
    (request,) = server.asked
    assert (request.method, request.path) == (
        "PATCH",
        "/apis/tradewind.dev/v1alpha1/namespaces/ns/tenants/a",
    )
    assert dict(request.query) == {"fieldManager": "tradewind-operator", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert server.bodies == [manifest]


async def test_a_status_is_written_to_that_very_object(server: Server, kube: Kube) -> None:
    server.answers = [(200, {})]
    await kube.put_status(TENANT, "ns", "a", "uid-1", "17", {"keys": 1})
    assert server.asked[0].path.endswith("/tenants/a/status")
    assert server.bodies[0][0] == {"op": "test", "path": "/metadata/uid", "value": "uid-1"}
    assert server.bodies[0][1] == {"op": "replace", "path": "/metadata/resourceVersion", "value": "17"}


async def test_a_deletion_names_the_object_by_its_uid(server: Server, kube: Kube) -> None:
    server.answers = [(200, {})]
    await kube.delete(TENANT, "ns", "a", "uid-1")
    assert server.bodies == [{"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}]


STATUS = {"kind": "Status", "details": {"name": "a"}}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, STATUS | {"reason": "NotFound"}), NotFound),
        ((404, "404 page not found\n"), NotServed),
        ((409, STATUS | {"reason": "Conflict"}), Conflict),
        ((409, STATUS | {"reason": "AlreadyExists"}), AlreadyExists),
        ((410, STATUS | {"reason": "Expired"}), Gone),
        ((422, STATUS | {"reason": "Invalid"}), Invalid),
        ((400, STATUS | {"reason": "BadRequest"}), Invalid),
        ((403, STATUS | {"reason": "Forbidden"}), Forbidden),
        ((401, STATUS | {"reason": "Unauthorized"}), Forbidden),
        ((418, STATUS), ApiError),
    ],
)
async def test_every_refusal_has_its_own_error_and_is_not_tried_again(
    server: Server, kube: Kube, answer: Answer, error: type[ApiError]
) -> None:
    server.answers = [answer]
    with pytest.raises(error) as caught:
        await kube.get(TENANT, "ns", "a")
    assert type(caught.value) is error
    assert str(caught.value).startswith("get Tenant ns/a: ")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_pass_is_tried_again_with_growing_pauses(
    server: Server, kube: Kube, waits: Waits, status: int
) -> None:
    server.answers = [(status, STATUS)] * 3 + [(200, {"metadata": {}})]
    assert await kube.get(TENANT, "ns", "a") == {"metadata": {}}
    assert len(waits.seconds) == 3
    assert waits.seconds == sorted(waits.seconds)


async def test_it_gives_up_after_four_tries_and_obeys_retry_after(
    server: Server, kube: Kube, waits: Waits
) -> None:
    server.answers = [(429, STATUS | {"message": "slow down"})]
    server.headers["Retry-After"] = "3"
    with pytest.raises(Unreachable, match="slow down"):
        await kube.get(TENANT, "ns", "a")
    assert len(server.asked) == 4
    assert all(seconds >= 3.0 for seconds in waits.seconds)


async def test_no_server_is_unreachable(waits: Waits) -> None:
    client = Kube(Connection(Configuration(host="http://127.0.0.1:1"), "ns"), attempts=2, sleep=waits)
    with pytest.raises(Unreachable, match="list ModelRoute in all namespaces: ClientConnector"):
        await client.list(MODEL_ROUTE, "")
    await client.close()


async def test_what_the_server_says_about_a_secret_is_never_repeated(server: Server, kube: Kube) -> None:
    server.answers = [(422, STATUS | {"reason": "Invalid", "message": 'Invalid value: "tw-canary-key"'})]
    with pytest.raises(Invalid) as caught:
        await kube.get(SECRET, "ns", "a")
    assert "canary" not in str(caught.value)
    assert str(caught.value) == "get Secret ns/a: Invalid (422)"


async def test_calls_are_counted_for_whoever_asks(server: Server, kube: Kube) -> None:
    server.answers = [(503, STATUS), (200, {"items": []})]
    counter: Counter[str] = Counter()
    token = calls_made.set(counter)
    await kube.list(TENANT, "ns")
    calls_made.reset(token)
    await kube.list(TENANT, "ns")
    assert counter == {"list tenants": 2}


async def test_which_kinds_there_are(server: Server, kube: Kube) -> None:
    listed = [{"name": "tenants", "storageVersionHash": "aGFzaA=="}, {"name": "tenants/status"}]
    server.answers = [(200, {"resources": listed}), (404, "404 page not found")]
    assert await kube.served("/apis/tradewind.dev/v1alpha1") == {"tenants": "aGFzaA==", "tenants/status": ""}
    assert await kube.served("/apis/ray.io/v1") == {}


async def test_a_kubeconfig_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path) -> None:
    broken = tmp_path / "config"
    broken.write_text("clusters: []\n")
    with pytest.raises(SettingsError, match=r"kubeconfig .* cannot be used"):
        await connect(str(broken))
