"""Requests for a LoRA adapter: to replicas that have it, else a defined answer, never the bare model's."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.gateway.asgi import HOST, TOKEN, bearer, config, deployment, route, stage
from tradewind.api.wire import GatewayConfig, VariantEntry
from tradewind.routing.replica import AdapterReport

READY, LOADING = AdapterReport("ready"), AdapterReport("loading", "fetching s3://loras/tone")
FAILED = AdapterReport("failed", "s3://loras/tone: no such bucket")


def settings(**changes: object) -> GatewayConfig:
    """A model with an adapter, a route to it, and a spare model."""
    tuned = VariantEntry(name="tuned", deployment="llama", adapter="tone")
    return config(
        deployments=[deployment(adapters=("tone",)), deployment("spare")],
        routes=[route("chat", tuned, **changes)],
    )


async def test_only_replicas_that_have_it_are_asked() -> None:
    async with stage(settings(), replicas={"llama": 3}) as s:
        s.report("llama", {"tone": LOADING}, {"tone": READY}, {"tone": FAILED})
        for model in ("chat", "llama:tone"):
            assert [(await s.client.chat(model=model)).status for _ in range(10)] == [200] * 10
        assert [len(engine.seen) for engine in s.engines["llama"]] == [0, 20, 0]
        assert {seen.json["model"] for seen in s.engines["llama"][1].seen} == {"llama:tone"}
        assert (await s.client.chat(model="llama")).status == 200


async def test_while_it_loads_requests_wait_for_it() -> None:
    async with stage(settings()) as s:
        s.report("llama", {"tone": LOADING})
        waiting = asyncio.create_task(s.client.chat())
        assert (await s.client.chat(model="llama")).status == 200
        assert not waiting.done()
        s.report("llama", {"tone": READY})
        assert (await waiting).status == 200
        assert s.engine.seen[-1].json["model"] == "llama:tone"


@pytest.mark.parametrize(
    ("report", "changes"),
    [(FAILED, {}), (LOADING, {"first_token_timeout_s": 0.05})],
    ids=["failed", "takes too long"],
)
async def test_without_it_the_answer_is_503_with_a_time_to_come_back(
    report: AdapterReport, changes: dict[str, float]
) -> None:
    async with stage(settings(**changes)) as s:
        s.report("llama", {"tone": report})
        refused = await s.client.chat()
        assert (refused.status, refused.code, refused.header("retry-after")) == (
            503,
            "model_unavailable",
            "5",
        )
        assert "bucket" not in str(refused.json)
        assert s.seen() == 0


@pytest.mark.parametrize("report", [FAILED, LOADING])
async def test_without_it_the_routes_fallback_answers(report: AdapterReport) -> None:
    async with stage(settings(fallback=("spare",))) as s:
        s.report("llama", {"tone": report})
        assert (await s.client.chat()).status == 200
        assert [seen.json["model"] for seen in s.engines["spare"][0].seen] == ["spare"]


async def test_readiness_tells_how_the_replicas_have_it() -> None:
    async with stage(settings(), replicas={"llama": 3}) as s:
        s.report("llama", {"tone": LOADING}, {"tone": READY}, {"tone": FAILED})
        s.client.headers = [HOST, bearer(TOKEN)]
        told = (await s.client.get("/readyz")).json["deployments"]
        assert told["llama"]["adapters"] == {
            "tone": {"ready": 1, "loading": 1, "failed": 1, "message": FAILED.message}
        }
        assert "adapters" not in told["spare"]
