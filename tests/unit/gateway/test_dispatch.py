"""Which engine gets a request, and what happens when it cannot answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import Stage, config, deployment, route, stage, user
from tradewind.api import refusals
from tradewind.api.wire import GatewayConfig, RetryEntry, VariantEntry
from tradewind.gateway.upstream import ConnectFailed
from tradewind.routing.replica import ReplicaAddress

TWO = {"llama": 2}


def patient(**changes: Any) -> GatewayConfig:
    """A route with a generous retry budget."""
    return config(routes=[route(retry=RetryEntry(attempts=2, budget_percent=100), **changes)])


def fail_first(scene: Stage, script: Script, count: int = 1) -> None:
    """The next `count` requests to any engine of llama meet `script`."""
    shared = [script] * count

    class Shared(list[Script]):
        def popleft(self) -> Script:
            return shared.pop()

        def __bool__(self) -> bool:
            return bool(shared)

    for engine in scene.engines["llama"]:
        engine.next = Shared()  # type: ignore[assignment]


async def waiting(scene: Stage) -> None:
    """Returns when a request waits for a replica of llama."""
    async with asyncio.timeout(5):
        while not scene.gateway.admission.load("llama").waiting:  # noqa: ASYNC110 - the room has no event for it
            await asyncio.sleep(0)


def raw(status: int, body: object, reason: str = "X") -> Script:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "content-type: application/json"
    head = f"HTTP/1.1 {status} {reason}\r\n{kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return Script(fault=Fault.RAW, raw=head.encode() + content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault", [Fault.RESET_BEFORE_HEAD, Fault.UNAVAILABLE, Fault.GARBAGE, Fault.HUGE_HEAD]
)
async def test_a_failure_before_the_first_byte_is_tried_elsewhere(fault: Fault, stream: bool) -> None:
    async with stage(patient(), replicas=TWO) as s:
        fail_first(s, Script(fault=fault))
        reply = await s.client.chat(stream=stream)
        assert reply.status == 200
        assert s.records.last.attempts == 2
        asked = [len(engine.seen) for engine in s.engines["llama"]]
        assert asked == [1, 1], "each replica once, never the same again"
        assert not s.gateway.admission.loads()


async def test_a_replica_whose_engine_has_died_is_left_for_another() -> None:
    async with stage(patient(), replicas=TWO) as s:
        fail_first(s, raw(500, {"error": {"message": "EngineCore encountered an issue"}}))
        assert (await s.client.chat()).status == 200
        assert s.records.last.attempts == 2


async def test_a_wrong_token_is_told_to_the_operator_not_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as s:
        s.engine.token = "f" * 64
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (502, "upstream_error")
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "internal token" in told


async def test_having_no_time_left_to_connect_takes_no_replica_out() -> None:
    slow: list[asyncio.Event] = []

    async with stage(config(routes=[route(first_token_timeout_s=0.02)])) as s:
        connect = s.gateway._upstream._connect

        async def late(host: str, port: int, deadline: float) -> Any:
            slow.append(asyncio.Event())
            try:
                async with asyncio.timeout_at(deadline):
                    await slow[-1].wait()
            except TimeoutError:
                raise ConnectFailed("connecting took too long") from None
            return await connect(host, port, deadline)

        s.gateway._upstream._connect = late  # type: ignore[method-assign]
        reply = await s.client.chat(stream=True)
        assert (reply.status, reply.code) == (503, "no_capacity")
        assert not any(view.down for view in s.gateway.directory.views("llama"))


async def test_attempts_are_bounded() -> None:
    async with stage(patient(), replicas={"llama": 4}, script=Script(fault=Fault.UNAVAILABLE)) as s:
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (503, "no_capacity")
        assert s.seen() == 2
        assert not s.gateway.admission.loads()


async def test_the_retry_budget_is_bounded() -> None:
    settings = config(routes=[route(retry=RetryEntry(attempts=3, budget_percent=0))])
    async with stage(settings, replicas={"llama": 4}, script=Script(fault=Fault.RESET_BEFORE_HEAD)) as s:
        assert (await s.client.chat()).code == "upstream_error"
        assert s.seen() == 1


async def test_a_refused_connection_costs_neither_attempts_nor_budget() -> None:
    settings = config(routes=[route(retry=RetryEntry(attempts=1, budget_percent=0))])
    async with stage(settings, replicas={"llama": 3}) as s:
        for engine in s.engines["llama"][:2]:
            await engine.refuse()
        for _ in range(6):
            assert (await s.client.chat()).status == 200
        assert len(s.engines["llama"][2].seen) == 6
        down = [view.down for view in s.gateway.directory.views("llama")]
        assert down in ([True, True, False], [True, False, False], [False, True, False])


async def test_with_no_replica_the_request_waits_for_one() -> None:
    async with stage() as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        task = asyncio.create_task(s.client.chat())
        await waiting(s)
        s.discover()
        assert (await task).status == 200
        record = s.records.last
        assert record.queue_ns > 0
        assert record.cold_start_ns == record.queue_ns
        assert [name for name, *_ in record.phases] == ["auth", "route", "admission", "pick"]


async def test_with_no_replica_in_time_the_model_is_unavailable() -> None:
    async with stage(config(routes=[route(first_token_timeout_s=0.02)])) as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        reply = await s.client.chat()
        assert (reply.status, reply.code, reply.header("retry-after")) == (503, "model_unavailable", "5")


async def test_with_every_replica_full_there_is_no_capacity() -> None:
    settings = config(
        deployments=[deployment(max_ongoing_requests=1)], routes=[route(first_token_timeout_s=0.05)]
    )
    async with stage(settings, script=Script(fault=Fault.NO_HEAD)) as s:
        gone = asyncio.Event()
        first = asyncio.create_task(
            s.client.post("/v1/completions", {"model": "llama", "prompt": "x"}, gone=gone)
        )
        await s.engine.until(lambda: len(s.engine.seen) == 1)
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (503, "no_capacity")
        gone.set()
        await first


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE_HEAD, Fault.UNAVAILABLE, Fault.NO_HEAD])
async def test_a_deployment_that_cannot_begin_gives_way_to_the_fallback(fault: Fault) -> None:
    settings = config(
        deployments=[deployment(), deployment("spare")],
        routes=[route(fallback=("spare",), first_token_timeout_s=0.1)],
    )
    async with stage(settings) as s:
        s.engines["llama"][0].script = Script(fault=fault)
        reply = await s.client.chat(stream=True)
        assert reply.status == 200
        assert s.engines["spare"][0].seen[-1].json["model"] == "spare"
        record = s.records.last
        assert (record.assignment, record.deployment, record.variant) == ("fallback", "spare", "control")
        assert reply.header("x-tradewind-variant") == "control"


async def test_a_deployment_without_replicas_gives_way_at_once() -> None:
    settings = config(deployments=[deployment(), deployment("spare")], routes=[route(fallback=("spare",))])
    async with stage(settings, replicas={"llama": 0}) as s:
        assert (await s.client.chat()).status == 200
        assert s.records.last.deployment == "spare"


async def test_with_nobody_anywhere_the_own_deployment_is_waited_for() -> None:
    settings = config(deployments=[deployment(), deployment("spare")], routes=[route(fallback=("spare",))])
    async with stage(settings, replicas={"spare": 0}) as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        task = asyncio.create_task(s.client.chat())
        await waiting(s)
        s.gateway.directory.update(s.config.deployments[0], [ReplicaAddress("127.0.0.1", s.engine.port)])
        assert (await task).status == 200
        assert (s.records.last.deployment, s.records.last.assignment) == ("llama", "sticky")


async def test_a_bad_request_is_not_tried_elsewhere() -> None:
    settings = config(deployments=[deployment(), deployment("spare")], routes=[route(fallback=("spare",))])
    async with stage(settings) as s:
        s.engine.script = raw(
            400, {"error": {"message": "temperature must be at least 0", "param": "temperature"}}
        )
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (400, "engine_rejected")
        assert reply.json["error"]["message"] == "temperature must be at least 0"
        assert reply.json["error"]["param"] == "temperature"
        assert s.seen() == 1


@pytest.mark.parametrize("begin", [refusals.GRAMMAR, refusals.TOOLS])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_no_engine_can_do_is_asked_of_one(begin: str, stream: bool) -> None:
    settings = config(deployments=[deployment(), deployment("spare")], routes=[route(fallback=("spare",))])
    async with stage(settings, replicas={"llama": 2, "spare": 1}) as s:
        s.engine.script = raw(400, {"error": {"message": f"{begin}because"}})
        for engines in s.engines.values():
            for engine in engines:
                engine.script = s.engine.script
        reply = await s.client.chat(stream=stream)
        assert reply.status == 400
        assert reply.json["error"]["message"] == f"{begin}because"
        assert s.records.last.attempts == 1


async def test_a_stream_with_no_first_token_in_time_times_out() -> None:
    async with stage(config(routes=[route(first_token_timeout_s=0.05)])) as s:
        s.engine.script = Script(fault=Fault.NO_HEAD)
        reply = await s.client.chat(stream=True)
        assert (reply.status, reply.code) == (504, "first_token_timeout")
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "timeout"


async def test_an_answer_that_is_not_streamed_has_until_the_total_timeout() -> None:
    async with stage(config(routes=[route(first_token_timeout_s=0.01, total_timeout_s=2)])) as s:
        s.engine.script = Script(tokens=2, head_delay_s=0.1)
        assert (await s.client.chat()).status == 200
    async with stage(config(routes=[route(total_timeout_s=0.05)])) as s:
        s.engine.script = Script(fault=Fault.NO_HEAD)
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (504, "total_timeout")


VERDICTS: dict[str, tuple[int, object, int, str]] = {
    "context": (
        400,
        {"error": {"message": "This model's maximum context length is 2048 tokens."}},
        400,
        "context_length_exceeded",
    ),
    "rejected": (400, {"error": {"message": "no"}}, 400, "engine_rejected"),
    "anthropic's shape": (400, {"type": "error", "error": {"message": "no"}}, 400, "engine_rejected"),
    "no message": (400, {"detail": [{"input": "x"}]}, 400, "engine_rejected"),
    "no JSON": (400, b"<html>", 400, "engine_rejected"),
    "a JSON list": (400, b"[]", 400, "engine_rejected"),
    "unprocessable": (422, {"error": {"message": "cannot"}}, 422, "unprocessable"),
    "too large": (413, {"error": {"message": "big"}}, 413, "body_too_large"),
    "the endpoint is not there": (404, {"error": {"message": "Not Found"}}, 400, "unsupported_endpoint"),
    "not implemented": (501, {"error": {"message": "x"}}, 400, "unsupported_endpoint"),
    "the model is not there": (
        404,
        {"error": {"message": "The model `llama` does not exist."}},
        503,
        "model_unavailable",
    ),
    "a wrong token": (401, {"error": {"message": "no token"}}, 502, "upstream_error"),
    "busy": (503, {"error": {"message": "secret-text"}}, 503, "no_capacity"),
    "too many": (429, {"error": {"message": "secret-text"}}, 503, "no_capacity"),
    "a fault": (500, {"error": {"message": "secret-text Traceback"}}, 502, "upstream_error"),
    "another fault": (599, b"secret-text", 502, "upstream_error"),
    "a redirect": (302, b"secret-text", 502, "upstream_error"),
    "a created thing": (201, b"secret-text", 502, "upstream_error"),
    "text of the inside": (
        400,
        {"error": {"message": 'secret-text File "/opt/x.py", line 3'}},
        400,
        "engine_rejected",
    ),
    "an address": (400, {"error": {"message": "secret-text 10.0.0.7:30001 refused"}}, 400, "engine_rejected"),
    "the token": (400, {"error": {"message": "secret-text " + "e" * 64}}, 400, "engine_rejected"),
    "a grammar": (
        400,
        {"error": {"message": refusals.GRAMMAR + "unbalanced\u202e (secret\x1b[2J", "param": None}},
        400,
        "grammar_rejected",
    ),
    "a grammar whose reason is of the inside": (
        400,
        {"type": "error", "error": {"message": refusals.GRAMMAR + 'secret-text File "/x.py"'}},
        400,
        "grammar_rejected",
    ),
    "no tools": (400, {"error": {"message": refusals.TOOLS + "no parser"}}, 400, "tools_not_enabled"),
    "a library about the model's words": (
        400,
        {
            "error": {
                "message": "1 validation error for AnthropicContentBlock\ninput [input_value='secret-text']"
            }
        },
        400,
        "engine_rejected",
    ),
    "a long message": (400, {"error": {"message": "long " * 1_000}}, 400, "engine_rejected"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", VERDICTS)
async def test_an_engines_refusal_becomes_our_error_and_its_faults_stay_inside(
    case: str, stream: bool
) -> None:
    engine_status, body, status, code = VERDICTS[case]
    async with stage(script=raw(engine_status, body)) as s:
        reply = await s.client.chat(stream=stream)
        assert (reply.status, reply.code) == (status, code)
        assert "secret-text" not in reply.body.decode()
        message = reply.json["error"]["message"]
        assert 0 < len(message) <= 1_000
        assert message.isprintable()
        assert not s.gateway.admission.loads()


async def test_the_salt_is_not_told_even_if_an_engine_echoes_it() -> None:
    async with stage() as s:
        await s.client.chat()
        salt = s.engine.seen[-1].json["cache_salt"]
        s.engine.script = raw(400, {"error": {"message": f"bad cache_salt {salt}"}})
        assert salt not in (await s.client.chat()).body.decode()


async def test_an_answer_too_large_for_an_error_is_cut() -> None:
    async with stage(script=raw(500, b"x" * 200_000)) as s:
        assert (await s.client.chat()).code == "upstream_error"


async def test_only_our_own_headers_come_out() -> None:
    content = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    head = (
        b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ndate: today\r\nx-request-id: engines\r\nset-cookie: a=b\r\n"
        b"connection: keep-alive\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(content)
    )
    async with stage(script=Script(fault=Fault.RAW, raw=head + content)) as s:
        reply = await s.client.chat()
        assert reply.status == 200
        assert {name for name, _ in reply.headers} == {
            b"content-type", b"content-length", b"x-request-id", b"x-tradewind-route", b"x-tradewind-variant",
        }  # fmt: skip
        assert reply.header("x-request-id") == s.records.last.request_id


async def test_a_caller_sticks_to_its_variant_and_weights_hold() -> None:
    split = route(
        "chat",
        VariantEntry(name="control", deployment="llama", weight=80),
        VariantEntry(name="candidate", deployment="llama", weight=20),
    )
    async with stage(config(routes=[split])) as s:
        variants: dict[str, set[str | None]] = {}
        for turn in range(120):
            name = f"user-{turn % 40}"
            reply = await s.client.chat([(b"x-user-id", name.encode())])
            variants.setdefault(name, set()).add(reply.header("x-tradewind-variant"))
        assert all(len(seen) == 1 for seen in variants.values())
        candidates = sum(seen == {"candidate"} for seen in variants.values())
        assert 2 <= candidates <= 16
        by_body = await s.client.chat(user="user-3")
        assert {by_body.header("x-tradewind-variant")} == variants["user-3"], "by body as by header"


async def test_units_come_from_the_dialects_own_fields() -> None:
    split = route(
        "chat",
        *(VariantEntry(name=name, deployment="llama") for name in "abcdefgh"),
        assign_by=("session", "user"),
    )
    async with stage(config(routes=[split])) as s:

        async def variant(path: str, **body: Any) -> str | None:
            reply = await s.client.post(path, {"model": "chat", "max_tokens": 5, **body})
            assert reply.status == 200
            return reply.header("x-tradewind-variant")

        messages = [user("x")]
        for unit in ("u1", "u2", "u3", "u4"):
            names = {
                await variant("/v1/chat/completions", messages=messages, user=unit),
                await variant("/v1/responses", input="x", safety_identifier=unit),
                await variant("/v1/messages", messages=messages, metadata={"user_id": unit}),
                await variant("/v1/completions", prompt="x", session_id=unit),
            }
            assert len(names) == 1


async def test_the_deployments_own_name_is_a_model() -> None:
    async with stage() as s:
        reply = await s.client.chat(model="llama")
        assert reply.header("x-tradewind-route") == reply.header("x-tradewind-variant") == "llama"
        assert s.records.last.assignment == "direct"


async def test_the_callers_trace_goes_on() -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with stage() as s:
        await s.client.chat([(b"traceparent", parent), (b"tracestate", b"vendor=1")])
        headers = s.engine.seen[-1].headers
        assert headers["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
        assert headers["traceparent"].split("-")[2] != "b7ad6b7169203331"
        assert headers["tracestate"] == "vendor=1"


async def test_a_removed_deployment_lets_its_waiters_go() -> None:
    async with stage(config(deployments=[deployment(), deployment("spare")])) as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        task = asyncio.create_task(s.client.chat())
        await waiting(s)
        s.gateway.configure(
            config(
                deployments=[deployment("spare")],
                routes=[route("x", VariantEntry(name="v", deployment="spare"))],
            )
        )
        assert (await task).code == "model_unavailable"
