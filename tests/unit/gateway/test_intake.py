"""A gateway that runs keeps what it has, whatever it is sent, and says so."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.gateway.asgi import (
    HOST,
    SECRETS,
    TOKEN,
    Stage,
    bearer,
    config,
    deployment,
    make_gateway,
    route,
    stage,
    tenant,
)
from tradewind.api.steps import Steps
from tradewind.api.wire import GatewayConfig, VariantEntry, written
from tradewind.gateway.intake import Intake
from tradewind.gateway.problems import ConfigRefused
from tradewind.telemetry import names
from tradewind.telemetry.names import MetricSpec


def sent(settings: GatewayConfig, revision: str = "next", **changes: Any) -> dict[str, Any]:
    """As it comes from Serve."""
    data: dict[str, Any] = json.loads(json.dumps(written(settings)))
    return data | {"revision": revision} | changes


@dataclass
class Scene:
    """A stage whose configurations come by an intake."""

    on: Stage
    intake: Intake
    followed: list[str] = field(default_factory=list)

    async def standing(self) -> dict[str, Any]:
        """What the platform is told."""
        self.on.client.headers = [HOST, bearer(TOKEN)]
        found: dict[str, Any] = (await self.on.client.get("/readyz")).json["configuration"]
        return found

    def shown(self, spec: MetricSpec) -> dict[tuple[str, ...], float]:
        (family,) = [each for each in self.on.metrics.snapshot() if each.spec is spec]
        return {series.labels: series.value for series in family.series}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with stage() as s:
        followed: list[str] = []

        def follow(settings: GatewayConfig) -> Steps[None]:
            yield
            followed.append(settings.revision)

        scene = Scene(s, Intake(s.gateway, s.metrics, follow), followed)
        await scene.intake.offer(sent(s.config, "first"))
        yield scene


class Odd(dict[str, Any]):
    """Raises what nobody thought of."""

    def get(self, *_: Any) -> Any:
        raise RecursionError("canary-in-an-error")


WRONG: dict[str, tuple[Any, str, str]] = {
    "nothing": (None, "", "a configuration is a mapping, and this is a NoneType"),
    "a list": ([{"revision": "x"}], "", "a configuration is a mapping, and this is a list"),
    "a text": ("revision: x", "", "a configuration is a mapping, and this is a str"),
    "a number in the place of a list": (
        {"revision": "x", "routes": 7},
        "x",
        "routes: it must be a list, and is a int",
    ),
    "no revision": ({"routes": []}, "", "revision: Field required"),
    "a contradiction": (sent(config(routes=[route(fallback=("gone",))]), "x"), "x", "gone"),
    "a key that is not there": (sent(config(tenants=[tenant(env="GONE")]), "x"), "x", "GONE"),
    "what this release has not": (
        sent(config(), "x", requires=["mirrors"]),
        "x",
        "it needs mirrors, which this release does not have",
    ),
    "an error that nobody thought of": (Odd(revision="x"), "x", "RecursionError while it was read"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_cannot_be_used_changes_nothing_and_is_told(
    case: str, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    data, revision, why = WRONG[case]
    before = scene.on.gateway._state
    with caplog.at_level(logging.ERROR):
        await scene.intake.offer(data)
    assert scene.on.gateway._state is before
    assert (await scene.on.client.chat()).status == 200
    standing = await scene.standing()
    assert standing["revision"] == "first"
    assert standing["age_s"] >= 0
    assert standing["refused"]["revision"] == revision
    assert why in standing["refused"]["why"]
    assert scene.shown(names.CONFIG_REFUSED) == {(): 1}
    assert list(scene.shown(names.CONFIG_AGE)) == [("first",)]
    (record,) = caplog.records
    assert "first stays in force" in record.getMessage()
    assert "canary-in-an-error" not in json.dumps(standing) + record.getMessage()
    assert scene.followed == ["first"]


async def test_the_next_one_that_can_be_used_clears_the_refusal(scene: Scene) -> None:
    await scene.intake.offer(None)
    await scene.intake.offer(sent(config(routes=[route("other")]), "second"))
    standing = await scene.standing()
    assert (standing["revision"], standing["refused"], standing["left_out"]) == ("second", None, [])
    assert scene.shown(names.CONFIG_REFUSED) == {(): 0}
    assert list(scene.shown(names.CONFIG_AGE)) == [("second",)]
    assert scene.followed == ["first", "second"]


async def test_a_refusal_is_for_the_platform_alone(scene: Scene) -> None:
    await scene.intake.offer(None)
    assert "configuration" not in (await scene.on.client.get("/readyz")).json


async def test_fields_of_a_later_release_change_nothing_else(scene: Scene) -> None:
    data = sent(config(), "newer", mirrors=[{"to": "x"}])
    data["routes"][0]["rollout"] = {"steps": [1, 5]}
    await scene.intake.offer(data)
    assert scene.on.gateway.revision == "newer"
    assert (await scene.on.client.chat()).status == 200


async def test_one_route_that_cannot_be_read_takes_no_other_down(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    data = sent(config(routes=[route(), route("new", assign_by=("cookie:x",))]), "second")
    SECRETS["ACME_KEY"], old = "tw-rotated-key-0123456789", SECRETS["ACME_KEY"]
    try:
        await scene.intake.offer(data)
    finally:
        SECRETS["ACME_KEY"] = old
    assert (await scene.on.client.chat()).status == 401  # what was revoked is revoked all the same
    scene.on.client.headers = [HOST, bearer("tw-rotated-key-0123456789")]
    assert (await scene.on.client.chat()).status == 200
    assert (await scene.on.client.chat(model="new")).status == 404
    standing = await scene.standing()
    assert (standing["revision"], standing["refused"], standing["left_out_count"]) == ("second", None, 1)
    (left,) = standing["left_out"]
    assert (left["kind"], left["name"], left["kept"]) == ("route", "new", False)
    assert scene.shown(names.CONFIG_LEFT_OUT) == {("deployment",): 0, ("route",): 1, ("tenant",): 0}
    assert "route new cannot be read and is left out" in caplog.text


async def test_the_deployment_of_a_route_that_is_left_out_does_not_answer_in_its_place() -> None:
    """The route may hold a prompt, or a rule about who is sent where."""
    routes = [route("llama", VariantEntry(name="v", deployment="llama"), assign_by=("cookie:x",))]
    async with stage() as s:
        intake = Intake(s.gateway, s.metrics, lambda _: iter_nothing())
        await intake.offer(sent(config(routes=[*routes, route()])))
        assert (await s.client.chat(model="llama")).status == 404
        assert (await s.client.chat(model="chat")).status == 200


def iter_nothing() -> Steps[None]:
    yield


async def test_what_is_told_is_bounded(scene: Scene) -> None:
    routes = [sent(config(routes=[route(f"r{number}")]))["routes"][0] for number in range(100)]
    await scene.intake.offer(sent(config(), "x", routes=[each | {"requires": ["y"]} for each in routes]))
    standing = await scene.standing()
    assert (len(standing["left_out"]), standing["left_out_count"]) == (20, 100)
    await scene.intake.offer({"revision": "r" * 9_999, "requires": ["z" * 9_999]})
    standing = await scene.standing()
    assert len(standing["refused"]["revision"]) <= 64
    assert len(standing["refused"]["why"]) <= 300


@pytest.mark.parametrize("case", WRONG)
async def test_a_first_configuration_that_cannot_be_used_ends_the_replica(case: str) -> None:
    gateway, _, metrics, upstream = make_gateway()
    intake = Intake(gateway, metrics, lambda _: iter_nothing())
    with pytest.raises(ConfigRefused):
        await intake.offer(WRONG[case][0])
    assert gateway.revision is None
    await upstream.close()


async def test_before_the_first_one_the_platform_is_told_that_there_is_none() -> None:
    from tests.unit.gateway.asgi import Client

    gateway, *_, upstream = make_gateway()
    client = Client(gateway)
    client.headers = [HOST, bearer(TOKEN)]
    told = (await client.get("/readyz")).json
    assert (told["reason"], told["configuration"]["revision"]) == ("not_configured", None)
    await upstream.close()


async def test_what_follows_may_fail_and_the_configuration_is_in_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: GatewayConfig) -> Steps[None]:
        yield
        raise LookupError("canary")

    async with stage() as s:
        intake = Intake(s.gateway, s.metrics, fail)
        await intake.offer(sent(config(), "second"))
        assert s.gateway.revision == "second"
        assert "what follows configuration second failed" in caplog.text


def large(revision: str, models: int = 1_000, routes: int = 500) -> dict[str, Any]:
    deployments = [deployment(f"m{number}") for number in range(models)]
    made = [
        route(f"r{number}", *(VariantEntry(name=v, deployment=f"m{number}") for v in ("a", "b")))
        for number in range(routes)
    ]
    return sent(config(deployments=deployments, routes=made), revision)


async def test_of_several_that_come_fast_the_last_ends_in_force(scene: Scene) -> None:
    seen: list[str | None] = []

    async def watch() -> None:
        while True:
            seen.append(scene.on.gateway.revision)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    offers = [asyncio.create_task(scene.intake.offer(large(name, 300, 100))) for name in ("a", "b", "c")]
    await asyncio.wait(offers)
    watcher.cancel()
    assert [offer.exception() for offer in offers] == [None] * 3
    assert scene.on.gateway.revision == "c"
    assert set(seen) == {"first", "c"}  # those that were overtaken were never in force
    assert scene.followed == ["first", "c"]


async def test_one_that_is_overtaken_by_what_cannot_be_used_is_given_up_too(scene: Scene) -> None:
    await asyncio.gather(scene.intake.offer(large("a", 300, 100)), scene.intake.offer(None))
    standing = await scene.standing()
    assert (standing["revision"], standing["refused"]["revision"]) == ("first", "")


async def test_requests_go_on_while_a_thousand_models_are_taken_over(scene: Scene) -> None:
    data, pauses = large("large"), list[float]()

    async def tick() -> None:
        last = time.thread_time()  # of the processor: a busy machine makes no pause
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            pauses.append(now - last)
            last = now

    gc.collect()
    gc.freeze()  # as a gateway's process does when it starts
    ticking = asyncio.create_task(tick())
    try:
        await scene.intake.offer(data)
    finally:
        gc.unfreeze()
        ticking.cancel()
    assert scene.on.gateway.revision == "large"
    assert len(pauses) >= 10
    # 2 to 4 ms, where one piece took 33 or more.
    assert max(pauses) < 0.015
