"""Shared by the upstream tests: one request to a fake engine."""

from __future__ import annotations

import asyncio
import json

from tests.fakes.engine import FakeEngine
from tradewind.gateway.upstream import Upstream, UpstreamResponse, request_head


async def ask(
    upstream: Upstream,
    engine: FakeEngine,
    path: str = "/v1/chat/completions",
    *,
    within: float = 2.0,
    total: float = 5.0,
    **body: object,
) -> UpstreamResponse:
    """POSTs `body` as JSON. `within` and `total` are seconds until the deadlines."""
    content = json.dumps({"model": "m", **body}).encode()
    head = request_head(b"POST", path.encode(), f"127.0.0.1:{engine.port}", [(b"x-a", b"b")], len(content))
    now = asyncio.get_running_loop().time()
    return await upstream.send(
        "127.0.0.1", engine.port, head, content, first_byte_deadline=now + within, total_deadline=now + total
    )
