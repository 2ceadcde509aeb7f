"""Watches by kopf on a server of its own: what it asks for, and what is noticed when it falls silent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from tests.unit.operator.fake_clock import FakeClock
from tradewind_operator.kinds import CUSTOM, RAY_CLUSTER, TENANT, WATCHED, Resource
from tradewind_operator.kube import Connection
from tradewind_operator.watching import Heartbeats, Scope, Watches, missing, quiet_kopf

SCOPE = Scope(kinds=(TENANT,), namespaces=("ns",), period_s=0.6)
PATH = TENANT.path("ns")


def _kinds(plural: str, kind: str, *, namespaced: bool = False) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "patch"]
    about = {"name": plural, "kind": kind, "singularName": kind.lower(), "namespaced": namespaced}
    return {"resources": [about | {"verbs": verbs}]}


def _group(name: str, version: str) -> dict[str, Any]:
    about = {"version": version, "groupVersion": f"{name}/{version}"}
    return {"name": name, "versions": [about], "preferredVersion": about}


EXTENSIONS = "apiextensions.k8s.io"
DISCOVERY = {
    "/api": {"versions": ["v1"]},
    "/api/v1": _kinds("namespaces", "Namespace"),
    "/apis": {"groups": [_group(TENANT.group, TENANT.version), _group(EXTENSIONS, "v1")]},
    TENANT.root: _kinds("tenants", "Tenant", namespaced=True),
    f"/apis/{EXTENSIONS}/v1": _kinds("customresourcedefinitions", "CustomResourceDefinition"),
}
"""What kopf asks for before it watches anything."""


class Server:
    """Knows tenants: lists one, and streams what it is given. Silent: takes requests and says nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.silent = False
        self.lists = 0
        self.watches = 0
        self._ending = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._ending.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if self.silent:
            await self._ending.wait()
        if (found := DISCOVERY.get(request.path)) is not None:
            return web.json_response(found)
        if request.path != PATH:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        self.lists += 1
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [tenant("acme", "1")]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        response = web.StreamResponse()
        await response.prepare(request)
        event = {"type": "MODIFIED", "object": tenant("acme", str(self.watches + 1))}
        await response.write(json.dumps(event).encode() + b"\n")
        ends = asyncio.create_task(self._ending.wait())
        await asyncio.wait([ends], timeout=float(request.query["timeoutSeconds"]))
        ends.cancel()
        return response


def tenant(name: str, version: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": "u", "resourceVersion": version}
    return {"apiVersion": TENANT.api_version, "kind": "Tenant", "metadata": metadata}


@asynccontextmanager
async def watching(server: Server) -> AsyncIterator[tuple[Watches, list[tuple[str | None, str]]]]:
    quiet_kopf()
    seen: list[tuple[str | None, str]] = []

    def event(kind: Resource, change: str | None, body: dict[str, Any]) -> None:
        seen.append((change, body["metadata"]["resourceVersion"]))

    async def ready(_: Heartbeats) -> bool:
        return False

    configuration = Configuration(host=await server.start())
    watches = Watches(Connection(configuration, "ns"), SCOPE, event, ready)
    task = asyncio.create_task(watches.run())
    try:
        yield watches, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_kopf_lists_then_watches_and_never_writes() -> None:
    server = Server()
    async with watching(server) as (watches, seen):
        await until(lambda: server.watches >= 2)
        assert seen[:2] == [(None, "1"), ("MODIFIED", "2")]
        await until(lambda: watches.heartbeats.complete)
        assert watches.heartbeats.silent() == []
    assert {method for method, _ in server.asked} == {"GET"}
    assert not any(path.rsplit("/", 1)[-1] == "namespaces" for _, path in server.asked)
    assert not any("customresourcedefinitions" in path for _, path in server.asked)


def test_a_watch_that_is_not_answered_is_named_after_two_and_a_half_periods() -> None:
    clock = FakeClock()
    heartbeats = Heartbeats(Scope(kinds=(TENANT, RAY_CLUSTER), namespaces=("ns",), period_s=60.0), clock)
    assert heartbeats.ages() == {}
    heartbeats.start()
    clock.time += 149
    heartbeats.answered(RAY_CLUSTER.path("ns"), watch=True)
    assert heartbeats.silent() == []
    clock.time += 2
    assert heartbeats.silent() == ["the watch of tenants in ns was not answered for 151 s"]
    heartbeats.answered(PATH, watch=False)
    assert heartbeats.silent() == []
    heartbeats.answered(PATH, watch=True)
    assert heartbeats.complete
    heartbeats.answered("/some/other/path", watch=True)
    assert set(heartbeats.ages()) == {("tenants", "ns"), ("rayclusters", "ns")}
    heartbeats.stop()
    assert heartbeats.silent() == []


def test_all_namespaces_are_one_watch_per_kind() -> None:
    heartbeats = Heartbeats(Scope(kinds=CUSTOM))
    heartbeats.start()
    assert len(heartbeats.ages()) == 4
    heartbeats.answered("/apis/tradewind.dev/v1alpha1/tenants", watch=True)


def test_a_missing_definition_is_named_with_what_to_install() -> None:
    everything = {kind.root: frozenset(other.plural for other in WATCHED) for kind in WATCHED}
    assert missing(WATCHED, everything) == []
    said = missing(WATCHED, everything | {RAY_CLUSTER.root: frozenset()})
    assert said == [
        "the CustomResourceDefinition rayclusters.ray.io (v1) is not installed: install KubeRay 1.6 or later"
    ]
    assert len(missing(WATCHED, {})) == 5


@pytest.mark.timeout(30)
async def test_a_silent_server_is_noticed_although_its_connections_stay_open() -> None:
    server = Server()
    async with watching(server) as (watches, _):
        await until(lambda: server.watches >= 1)
        server.silent = True
        await until(watches.heartbeats.silent)
        assert "the watch of tenants in ns was not answered for" in watches.heartbeats.silent()[0]
