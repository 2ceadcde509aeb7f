"""The gateway's client is tested on both event loops it may find itself on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.fakes.engine import FakeEngine
from tradewind.gateway.upstream import Upstream


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.stem.startswith("test_upstream"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream(sweep_interval_s=0.02)
    yield upstream
    await upstream.close()
    assert upstream.open_connections == 0
