"""Two gateways before one engine that is asked for more than it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.guarded_engine import Model, guarded_engine
from tests.unit.api.builders import model as resource
from tests.unit.compiler.worlds import compiled
from tests.unit.gateway.asgi import TOKEN, config, deployment, route
from tests.unit.gateway.ways import until, way
from tradewind.api.wire import GatewayConfig, RetryEntry
from tradewind.gateway.prober import Pace

BOUND = 64
PREFIX = "/engines/llama"


def serves_own_bound() -> int:
    """What Serve is told for a model with BOUND."""
    (app,) = compiled(resource(limits={"maxOngoingRequests": BOUND})).serve_config["applications"][1:]
    bound: int = app["deployments"][0]["max_ongoing_requests"]
    return bound


def settings(bound: int = BOUND, first_token_s: float = 20.0, **changes: Any) -> GatewayConfig:
    # No retry is allowed: what is full is no failure, so it needs none.
    strict = RetryEntry(attempts=1, budget_percent=0)
    return config(
        deployments=[deployment(max_ongoing_requests=bound)],
        routes=[route(first_token_timeout_s=first_token_s, retry=strict, **changes)],
    )


async def test_a_storm_from_two_gateways_evicts_nobody_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Longer than a replica may say nothing, which in turn is longer than a busy machine holds this test up.
    model, pace = Model(hold_s=0.8), Pace(interval_s=0.05, deadline_s=0.3, silence_s=0.6, held_s=0.1)
    door = serves_own_bound()
    async with (
        guarded_engine(model, token=TOKEN, prefix=PREFIX, bound=BOUND, door=door) as port,
        way(settings(), port, pace=pace) as one,
        way(settings(), port, pace=pace) as two,
    ):
        replies = await asyncio.gather(*(each.client.chat() for each in (one, two) * BOUND))
        assert [reply.status for reply in replies] == [200] * 2 * BOUND
        assert model.served == 2 * BOUND
        assert model.most == BOUND, "the bound is one for both, and it is used"
        assert all(view.ready and not view.outstanding for each in (one, two) for view in each.views)
        assert not one.gateway.admission.loads()
    assert not [line for line in caplog.messages if "out (" in line]


async def test_what_finds_no_room_until_its_deadline_is_told_so_and_nothing_else() -> None:
    model = Model(hold_s=60)
    async with (
        guarded_engine(model, token=TOKEN, prefix=PREFIX, bound=4) as port,
        way(settings(4, first_token_s=0.4), port) as one,
        way(settings(4, first_token_s=0.4), port) as two,
    ):
        tasks = [asyncio.create_task(each.client.chat()) for each in (one, two) * 10]
        await until(lambda: sum(task.done() for task in tasks) == 16, 2)
        model.ended.set()
        replies = [await task for task in tasks]
        assert sorted(reply.status for reply in replies) == [200] * 4 + [503] * 16
        refused = [reply for reply in replies if reply.status == 503]
        assert {(reply.code, reply.header("retry-after")) for reply in refused} == {("no_capacity", "1")}
        assert all(view.ready for each in (one, two) for view in each.views)


async def test_a_gateway_that_comes_later_gets_its_share_while_the_first_has_a_queue() -> None:
    model = Model(hold_s=0.05)
    async with (
        guarded_engine(model, token=TOKEN, prefix=PREFIX, bound=4) as port,
        way(settings(4), port) as one,
        way(settings(4), port) as two,
    ):
        first = [asyncio.create_task(one.client.chat()) for _ in range(60)]
        await until(lambda: model.served > 4, 2)
        later = await asyncio.gather(*(two.client.chat() for _ in range(6)))
        assert [reply.status for reply in later] == [200] * 6
        left = sum(not task.done() for task in first)
        assert left > 10, "they did not have to wait for the others' queue to end"
        assert {(await task).status for task in first} == {200}


async def test_a_full_replica_is_left_for_another_at_no_cost() -> None:
    busy, idle = Model(hold_s=60), Model()
    async with (
        guarded_engine(busy, token=TOKEN, prefix=PREFIX, bound=1) as first,
        guarded_engine(idle, token=TOKEN, prefix=PREFIX, bound=1) as second,
        way(settings(1), first) as other,
        way(settings(1), first, second) as both,
    ):
        held = asyncio.create_task(other.client.chat())
        await until(lambda: busy.running == 1, 2)
        replies = [await both.client.chat() for _ in range(4)]
        assert [reply.status for reply in replies] == [200] * 4
        assert idle.served == 4
        busy.ended.set()
        assert (await held).status == 200
