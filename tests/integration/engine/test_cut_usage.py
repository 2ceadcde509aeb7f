"""A real vLLM, and a gateway before it whose callers leave: what is counted is what vLLM counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.fixtures import models
from tests.integration.engine.process import PREFIX, TOKEN, EngineProcess, launch, wait_ready
from tests.unit.gateway.asgi import CHAT, Client, Records, Reply, config, deployment, read_secret, route, user
from tradewind.api.wire import EngineSettings, SourceSettings, VariantEntry
from tradewind.gateway.app import Gateway
from tradewind.gateway.upstream import Upstream
from tradewind.routing.replica import ReplicaAddress
from tradewind.telemetry.metrics import GatewayMetrics
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.requests import RequestTelemetry
from tradewind.telemetry.sampling import HeadSampler

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.xdist_group("engine")]

LONG = 1_500
PROMPT = "Tell me everything about the sea."
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [user(PROMPT)], "max_tokens": LONG, "ignore_eos": True},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": LONG, "ignore_eos": True},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": LONG, "ignore_eos": True},
    "/v1/messages": {"messages": [user(PROMPT)], "max_tokens": LONG},
}
MANY = {"messages": [user(PROMPT)], "max_tokens": LONG, "ignore_eos": True, "n": 3}
LISTED = {"prompt": [PROMPT, PROMPT + " Now."], "max_tokens": LONG, "ignore_eos": True}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    source = SourceSettings(uri=f"file://{models.llama()}")
    running = launch(EngineSettings(name="tiny", source=source), tmp_path_factory.mktemp("engine"))
    try:
        yield wait_ready(running)
    finally:
        running.stop()


class Scene:
    """A gateway before the engine, and vLLM's own counters."""

    def __init__(self, engine: EngineProcess, gateway: Gateway, records: Records) -> None:
        self.client = Client(gateway)
        self.records = records
        self._observer = httpx.AsyncClient(
            base_url=engine.url + PREFIX, headers={"x-tradewind-token": TOKEN}, timeout=60
        )

    async def vllm(self, name: str) -> float:
        page = (await self._observer.get("/metrics")).text
        return sum(
            float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"vllm:{name}{{")
        )

    async def until(self, name: str, condition: Callable[[float], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition(await self.vllm(name)):  # noqa: ASYNC110 - another process's counter
                await asyncio.sleep(0.02)

    async def prompt_tokens(self, path: str, body: dict[str, Any]) -> int:
        """Of a short answer to the same prompt, as vLLM tells them."""
        short = body | {name: 1 for name in body if name.startswith("max_")}
        before = len(self.records.items)
        reply = await self.client.post(path, {"model": "tiny", **short})
        assert reply.status == 200, reply.body
        return (await self.records.next(before)).input_tokens

    async def cut(self, path: str, body: dict[str, Any], after: int | None) -> tuple[RequestRecord, float]:
        """A request whose caller leaves after that many chunks, or without a stream once it runs.

        Returns its record and the tokens that vLLM counted meanwhile.
        """
        before, made, gone = (
            len(self.records.items),
            await self.vllm("generation_tokens_total"),
            asyncio.Event(),
        )

        def left(reply: Reply) -> None:
            if after is not None and len(reply.chunks) >= after:
                gone.set()

        request = {"model": "tiny", **body, "stream": after is not None}
        task = asyncio.create_task(self.client.post(path, request, gone=gone, on_send=left))
        if after is None:
            await self.until("generation_tokens_total", lambda now: now >= made + 3)
            gone.set()
        reply = await task
        record = await self.records.next(before)
        assert (reply.complete, record.outcome) == (False, "cancelled"), reply.body[:500]
        await self.until("num_requests_running", lambda now: now == 0)
        return record, await self.vllm("generation_tokens_total") - made

    async def close(self) -> None:
        await self._observer.aclose()


@pytest.fixture
async def scene(engine: EngineProcess) -> AsyncIterator[Scene]:
    records = Records()
    telemetry = RequestTelemetry(records, GatewayMetrics(), HeadSampler(ALWAYS_ON))
    gateway = Gateway(telemetry=telemetry, upstream=Upstream(), engine_token=TOKEN, read_secret=read_secret)
    settings = config(
        deployments=[deployment("tiny")], routes=[route("chat", VariantEntry(name="all", deployment="tiny"))]
    )
    gateway.configure(settings)
    gateway.directory.update(settings.deployments[0], [ReplicaAddress("127.0.0.1", engine.port)])
    made = Scene(engine, gateway, records)
    yield made
    await made.close()
    await gateway.shutdown()


@pytest.mark.parametrize("after", [1, 4, 30])
@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_whose_caller_leaves_is_counted_to_the_token(
    scene: Scene, path: str, after: int
) -> None:
    expected = await scene.prompt_tokens(path, BODIES[path])
    record, made = await scene.cut(path, BODIES[path], after)
    assert record.input_tokens == expected > 5
    assert record.output_tokens == made
    assert after // 2 <= made < LONG


@pytest.mark.parametrize("path", BODIES)
async def test_a_whole_answer_whose_caller_leaves_is_counted_to_the_token(scene: Scene, path: str) -> None:
    expected = await scene.prompt_tokens(path, BODIES[path])
    record, made = await scene.cut(path, BODIES[path], None)
    assert record.input_tokens == expected
    assert 3 <= record.output_tokens == made < LONG


@pytest.mark.parametrize(("path", "body"), [(CHAT, MANY), ("/v1/completions", LISTED)])
@pytest.mark.parametrize("after", [6, None])
async def test_all_sequences_of_a_request_are_counted(
    scene: Scene, path: str, body: dict[str, Any], after: int | None
) -> None:
    expected = await scene.prompt_tokens(path, body)
    record, made = await scene.cut(path, body, after)
    assert record.input_tokens == expected
    assert 3 <= record.output_tokens == made


async def test_what_is_complete_is_told_alike_by_the_answer_and_by_the_engine(
    scene: Scene, engine: EngineProcess
) -> None:
    for path, body in BODIES.items():
        short = body | {name: 20 for name in body if name.startswith("max_")}
        for stream in (False, True):
            before = len(scene.records.items)
            await scene.client.post(path, {"model": "tiny", **short, "stream": stream})
            record = await scene.records.next(before)
            with engine.client() as client:
                told = client.get(f"/tradewind/usage/{record.request_id}").json()
            assert told == {
                "input_tokens": record.input_tokens, "output_tokens": record.output_tokens, "running": False
            }, path  # fmt: skip


def test_only_the_platform_is_told(engine: EngineProcess) -> None:
    with engine.client(token="") as client:
        assert client.get("/tradewind/usage/req_" + "0" * 32).status_code == 401
    with engine.client() as client:
        assert client.get("/tradewind/usage/req_" + "0" * 32).status_code == 404
        assert client.get("/tradewind/usage/").status_code == 404
        assert client.post("/tradewind/usage/req_" + "0" * 32).status_code == 404
