"""A way to the API server that ends its caller at a write of one's choosing.

    with Cutter(api, user) as cutter:
        operator = place.start(kubeconfig=cutter.kubeconfig(home))
        cutter.cut(operator.kill)      # at the next write, when it has happened and nobody was told

Writes are those that mean something: neither the Lease, by which a process only says that it lives, nor
Events, which are a courtesy.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from tests.cluster.cluster import LOOPBACK, Cluster, write_kubeconfig

READS = frozenset({"GET", "HEAD", "OPTIONS"})
UNCOUNTED = frozenset({"leases", "events"})
PASSED_ON = ("Accept", "Accept-Encoding", "Content-Type")
DROPPED = frozenset({"transfer-encoding", "content-length", "connection"})
START_S = 10.0


class Cutter:
    """Speaks plain HTTP to its caller, and is `user` to the API server."""

    def __init__(self, api: Cluster, user: str) -> None:
        self._kubeconfig = yaml.safe_load(api.kubeconfig(user).read_text())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutter")
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._cut: Callable[[], None] | None = None
        self._done = False
        self._writing = asyncio.Lock()
        self.writes: list[str] = []
        """Method and path of every write that had an effect, in order."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, end: Callable[[], None] | None) -> None:
        """Call `end` at the next write, once it has happened, and never answer it. None: let all through."""
        self._cut, self._done = end, False

    def kubeconfig(self, home: Path) -> Path:
        """With which one speaks through this."""
        assert self._runner is not None
        port = self._runner.addresses[0][1]
        return write_kubeconfig(home / "cutter.yaml", {"server": f"http://{LOOPBACK}:{port}"}, {})

    async def _start(self) -> None:
        user = self._kubeconfig["users"][0]["user"]
        cluster = self._kubeconfig["clusters"][0]["cluster"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        headers = {}
        if "token" in user:
            headers["Authorization"] = f"Bearer {user['token']}"
        else:
            context.load_cert_chain(user["client-certificate"], user["client-key"])
        self._session = aiohttp.ClientSession(
            cluster["server"],
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers=headers,
            # A long list comes compressed to whom asked for that, and goes on as it came.
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
        )
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if not self._counts(request):
            return await self._forward(request, None)
        # One at a time: what is sent beside a write that is cut must not get through.
        async with self._writing:
            if self._done:
                return web.Response(status=503)
            return await self._forward(request, self._cut)

    async def _forward(self, request: web.Request, cut: Callable[[], None] | None) -> web.StreamResponse:
        assert self._session is not None
        headers = {key: ", ".join(request.headers.getall(key)) for key in PASSED_ON if key in request.headers}
        async with self._session.request(
            request.method,
            URL(request.raw_path, encoded=True),
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            if answer.ok and self._counts(request):
                self.writes.append(f"{request.method} {request.path}")
                if cut is not None:
                    await answer.read()
                    self._done = True
                    await asyncio.to_thread(cut)
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in DROPPED}
            response = web.StreamResponse(status=answer.status, headers=kept)
            with suppress(ConnectionError):
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
            return response

    def _counts(self, request: web.Request) -> bool:
        """It is a write that means something."""
        return request.method not in READS and not UNCOUNTED & set(request.path.split("/"))
