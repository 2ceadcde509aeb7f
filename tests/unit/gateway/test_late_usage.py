"""The usage of cut answers: whoever cut them, at whatever byte, in every dialect."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.fakes import engine_answers
from tests.fakes.engine import FakeEngine, Fault, Script, chunked
from tests.unit.gateway.asgi import CHAT, TOKEN, Records, Reply, Stage, config, deployment, route, stage, user
from tradewind.api.wire import RetryEntry
from tradewind.gateway.late_usage import LateUsage
from tradewind.routing.replica import ReplicaAddress
from tradewind.telemetry import names
from tradewind.telemetry.metrics import GatewayMetrics, Series
from tradewind.telemetry.names import MetricSpec
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.requests import RequestTelemetry
from tradewind.telemetry.sampling import HeadSampler

STREAMS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [user("x")]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [user("x")], "max_tokens": 5},
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
SLOW = Script(tokens=10_000, interval_s=0.005)
TOLD = {"input_tokens": 11, "output_tokens": 5, "running": False}
KNOWN = (11, 5)
UNKNOWN = (-1, -1)


def body(path: str, **changes: Any) -> dict[str, Any]:
    return {"model": "chat", "stream": True, **STREAMS[path], **changes}


def tokens(record: RequestRecord) -> tuple[int, int]:
    return record.input_tokens, record.output_tokens


def series(metrics: GatewayMetrics, spec: MetricSpec) -> dict[tuple[str, ...], Series]:
    (family,) = [family for family in metrics.snapshot() if family.spec is spec]
    return {one.labels: one for one in family.series}


def events(path: str) -> bytes:
    parts = engine_answers.stream(path, "m", 1, True)
    return b"".join([parts.first, parts.token, *parts.last])


def leaving(after: int) -> tuple[asyncio.Event, Any]:
    """A client that leaves once it has that many chunks."""
    gone = asyncio.Event()

    def on_send(reply: Reply) -> None:
        if len(reply.chunks) >= after:
            gone.set()

    return gone, on_send


async def left(s: Stage, path: str = CHAT, after: int = 3) -> RequestRecord:
    before = len(s.records.items)
    gone, on_send = leaving(after)
    await s.client.post(path, body(path), gone=gone, on_send=on_send)
    return await s.records.next(before)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_cut_by_its_client_has_what_the_engine_counted(path: str) -> None:
    async with stage(script=SLOW) as s:
        s.engine.usage = [TOLD]
        record = await left(s, path)
        assert (record.status, record.code, record.outcome) == (499, "cancelled", "cancelled")
        assert tokens(record) == KNOWN
        assert s.engine.asked == [record.request_id]
        usage = series(s.metrics, names.TOKEN_USAGE)
        assert sorted(one.total for one in usage.values()) == [5, 11]
        assert series(s.metrics, names.TENANT_TOKENS)["acme", "output"].value == 5


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_that_breaks_at_any_byte_has_what_the_engine_counted(path: str) -> None:
    """Whole in HTTP's eyes but short by some bytes, so that each length is cut at exactly that byte."""
    data = events(path)
    async with stage(config(routes=[route(retry=RetryEntry(attempts=1))])) as s:
        s.engine.usage = [TOLD]
        for length in range(len(data) + 1):
            part = chunked(data[:length]) if length else b""
            s.engine.next.append(Script(fault=Fault.RAW, raw=HEAD + part + b"0\r\n\r\n"))
            before = len(s.records.items)
            await s.client.post(path, body(path))
            record = await s.records.next(before)
            if length == len(data):
                assert (record.outcome, tokens(record)) == ("ok", (engine_answers.PROMPT_TOKENS, 1))
            else:
                assert (record.outcome, tokens(record)) == ("upstream_error", KNOWN), length
        assert len(s.engine.asked) == len(data)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_client_that_leaves_has_what_the_engine_counted_wherever_the_stream_is(path: str) -> None:
    data = events(path)
    async with stage() as s:
        s.engine.usage = [TOLD]
        for length in range(1, len(data), 9):
            s.engine.next.append(Script(fault=Fault.RAW, raw=HEAD + chunked(data[:length])))
            before, gone = len(s.records.items), asyncio.Event()

            def begun(reply: Reply, gone: asyncio.Event = gone) -> None:
                asyncio.get_running_loop().call_soon(gone.set)  # once what came was read

            await s.client.post(path, body(path), gone=gone, on_send=begun)
            record = await s.records.next(before)
            assert record.outcome == "cancelled"
            assert tokens(record) == KNOWN, length


@pytest.mark.parametrize("length", [0, 1, 40])
@pytest.mark.parametrize("path", STREAMS)
async def test_a_whole_answer_whose_caller_leaves_has_what_the_engine_counted(path: str, length: int) -> None:
    answer = engine_answers.whole(path, body(path), 9)
    raw = WHOLE_HEAD % len(answer) + answer[:length] if length else b""
    async with stage(script=Script(fault=Fault.RAW, raw=raw)) as s:
        s.engine.usage = [TOLD]
        gone = asyncio.Event()
        task = asyncio.create_task(s.client.post(path, body(path, stream=False), gone=gone))
        await s.engine.until(lambda: len(s.engine.seen) == 1)
        gone.set()
        await task
        record = await s.records.next()
        assert (record.outcome, tokens(record)) == ("cancelled", KNOWN)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_total_deadline_counts_what_was_made_until_then(stream: bool) -> None:
    script = SLOW if stream else Script(fault=Fault.NO_HEAD)
    async with stage(config(routes=[route(total_timeout_s=0.1)]), script=script) as s:
        s.engine.usage = [TOLD]
        await s.client.chat(stream=stream)
        record = await s.records.next()
        assert (record.outcome, tokens(record)) == ("timeout", KNOWN)


async def test_a_caller_that_does_not_read_is_charged_for_what_was_made() -> None:
    def read(reply: Reply) -> Any:
        return asyncio.Event().wait() if reply.chunks else None

    async with stage(config(routes=[route(total_timeout_s=0.6)]), script=SLOW) as s:
        s.engine.usage = [TOLD]
        await s.client.chat(stream=True, on_send=read)
        record = await s.records.next()
        assert (record.outcome, tokens(record)) == ("timeout", KNOWN)


async def test_an_engines_error_event_ends_with_what_it_had_made() -> None:
    token = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    fault = b'data: {"error":{"message":"EngineDeadError","code":500}}\n\ndata: [DONE]\n\n'
    async with stage(script=Script(fault=Fault.RAW, raw=HEAD + chunked(token) + chunked(fault))) as s:
        s.engine.usage = [TOLD]
        await s.client.chat(stream=True)
        record = await s.records.next()
        assert (record.outcome, tokens(record)) == ("upstream_error", KNOWN)


async def test_a_shutdown_asks_for_the_usage_of_the_streams_that_it_cuts() -> None:
    started = asyncio.Event()

    def begun(reply: Reply) -> None:
        if reply.chunks:
            started.set()

    async with stage(script=SLOW) as s:
        s.engine.usage = [TOLD]
        task = asyncio.create_task(s.client.chat(stream=True, on_send=begun))
        await started.wait()
        await s.gateway.shutdown(timeout_s=0.01)
        assert tokens(s.records.last) == KNOWN, "all is written when the shutdown is over"
        await task


async def test_an_answer_that_came_whole_is_not_asked_about() -> None:
    async with stage(script=Script(tokens=4)) as s:
        s.engine.usage = [TOLD]
        for path in STREAMS:
            for stream in (False, True):
                await s.client.post(path, body(path, stream=stream))
                assert tokens(s.records.last) == (engine_answers.PROMPT_TOKENS, 4)
        assert s.engine.asked == []


@pytest.mark.parametrize("status", [400, 404, 429, 503])
async def test_a_refusal_is_not_asked_about(status: int) -> None:
    answer = engine_answers.error(status, "no")
    raw = b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    script = Script(fault=Fault.RAW, raw=raw % (status, len(answer), answer))
    async with stage(config(routes=[route(retry=RetryEntry(attempts=1))]), script=script) as s:
        s.engine.usage = [TOLD]
        await s.client.chat()
        assert tokens(s.records.last) == UNKNOWN
        assert s.engine.asked == []


async def test_who_left_before_an_engine_was_asked_used_nothing() -> None:
    gone = asyncio.Event()
    async with stage() as s:
        s.engine.usage = [TOLD]
        s.gateway.directory.update(s.config.deployments[0], [])
        task = asyncio.create_task(s.client.chat(gone=gone))
        async with asyncio.timeout(5):
            while not s.gateway.admission.load("llama").waiting:  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.001)
        gone.set()
        await task
        assert tokens(s.records.last) == UNKNOWN
        assert s.engine.asked == []


async def test_a_request_that_still_runs_is_asked_about_once_more() -> None:
    async with stage(script=SLOW) as s:
        s.engine.usage = [{"input_tokens": 11, "output_tokens": 4, "running": True}, TOLD]
        assert tokens(await left(s)) == KNOWN
        assert len(s.engine.asked) == 2
        s.engine.usage = [{"input_tokens": 11, "output_tokens": 4, "running": True}]
        assert tokens(await left(s)) == (11, 4), "a count that goes on is better than none"
        assert len(s.engine.asked) == 4


@pytest.mark.parametrize("path", STREAMS)
async def test_a_replica_that_died_leaves_unknown_what_nobody_knows(path: str) -> None:
    """Not zero: what Anthropic's first event says of the output is no count."""
    async with stage(script=SLOW) as s:
        gone, on_send = leaving(2)
        task = asyncio.create_task(s.client.post(path, body(path), gone=gone, on_send=on_send))
        await gone.wait()
        await s.engine.refuse()
        await task
        record = await s.records.next()
        assert record.output_tokens == -1
        assert record.input_tokens == (engine_answers.PROMPT_TOKENS if path == "/v1/messages" else -1)
        labels = series(s.metrics, names.TOKEN_USAGE)
        assert not [one for one in labels if one[-1] == "output"]


@pytest.mark.parametrize(
    "told", [{"input_tokens": None, "output_tokens": None, "running": False}, {"output_tokens": "5"}, {}]
)
async def test_an_engine_that_knows_nothing_leaves_it_unknown(told: dict[str, object]) -> None:
    async with stage(script=SLOW) as s:
        s.engine.usage = [told]
        assert tokens(await left(s)) == UNKNOWN
        s.engine.usage = []
        assert tokens(await left(s)) == UNKNOWN


async def test_of_two_attempts_the_one_that_was_cut_counts() -> None:
    settings = config(routes=[route(retry=RetryEntry(attempts=2, budget_percent=100))])
    async with stage(settings, replicas={"llama": 2}) as s:
        first, second = s.engines["llama"]
        for engine, count in ((first, 1), (second, 2)):
            engine.usage = [{"input_tokens": count, "output_tokens": count, "running": False}]
        address = [ReplicaAddress("127.0.0.1", first.port), ReplicaAddress("127.0.0.1", second.port)]
        view = s.gateway.directory.views("llama")[1]
        s.gateway.directory.report(view, running=50, waiting=0)  # so the first is chosen first
        first.next.append(Script(fault=Fault.RESET_BEFORE_HEAD))
        second.script = SLOW
        record = await left(s)
        assert record.attempts == 2
        assert record.replica == address[1].id
        assert tokens(record) == (2, 2)
        assert first.asked == []


async def test_a_fallbacks_engine_is_asked_under_its_own_prefix() -> None:
    settings = config(
        deployments=[deployment("llama"), deployment("mistral")], routes=[route(fallback=("mistral",))]
    )
    async with stage(settings, replicas={"llama": 0}) as s:
        (mistral,) = s.engines["mistral"]
        mistral.script, mistral.usage = SLOW, [TOLD]
        record = await left(s)
        assert (record.deployment, tokens(record)) == ("mistral", KNOWN)


async def test_the_caller_is_done_with_before_the_engine_is_asked() -> None:
    """And the time of the request is that of its end, not of its record."""
    async with stage(script=SLOW) as s:
        s.engine.usage = [TOLD]
        gone, on_send = leaving(3)
        await s.client.post(CHAT, body(CHAT), gone=gone, on_send=on_send)
        assert s.records.items == []
        assert s.gateway.active == 0
        assert series(s.metrics, names.ACTIVE_REQUESTS)[()].value == 0
        over = time.time_ns()
        record = await s.records.next()
        assert record.ended_ns <= over


async def test_the_token_is_shown() -> None:
    async with stage(script=SLOW) as s:
        assert s.engine.token == TOKEN
        s.engine.usage = [TOLD]
        assert tokens(await left(s)) == KNOWN


def cut(engine: FakeEngine) -> RequestRecord:
    """A record of a request that the engine had when it was cut."""
    telemetry = RequestTelemetry(Records(), GatewayMetrics(), HeadSampler(ALWAYS_ON))
    record = telemetry.start(CHAT, "chat", None, None)
    record.replica = f"127.0.0.1:{engine.port}"
    return record


async def test_an_engine_that_says_nothing_is_waited_for_no_longer_than_told() -> None:
    async with FakeEngine(deaf=True) as engine:
        late = LateUsage(TOKEN, ask_s=0.05)
        record = cut(engine)
        late.complete(record, "")
        began = time.monotonic()
        await late.close()
        assert time.monotonic() - began < 1
        assert record.pending.done()
        assert tokens(record) == UNKNOWN
        assert len(engine.asked) == 1


async def test_only_so_many_are_asked_about_at_a_time() -> None:
    async with FakeEngine(usage=[TOLD]) as engine:
        late = LateUsage(TOKEN, max_pending=1)
        records = [cut(engine) for _ in range(3)]
        for record in records:
            late.complete(record, "")
        await late.close()
        assert [tokens(record) for record in records] == [KNOWN, UNKNOWN, UNKNOWN]
        assert [record.pending for record in records[1:]] == [None, None]
