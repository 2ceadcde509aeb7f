"""Streams: bytes through, and what happens when one end goes away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import CHAT, Reply, Stage, config, route, stage, user
from tradewind.api.wire import RetryEntry

STREAMS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [user("x")]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [user("x")], "max_tokens": 5},
}
SLOW = Script(tokens=10_000, interval_s=0.005)


def body(path: str, **changes: Any) -> dict[str, Any]:
    return {"model": "chat", "stream": True, **STREAMS[path], **changes}


async def until(condition: Any) -> None:
    """Lets other tasks run until `condition()` holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)


def idle(scene: Stage) -> bool:
    return not scene.gateway.active and not scene.gateway.admission.loads()


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_passes_whole_and_is_counted(path: str) -> None:
    async with stage(script=Script(tokens=4)) as s:
        reply = await s.client.post(path, body(path))
        assert (reply.status, reply.complete) == (200, True)
        assert reply.header("content-type") == "text/event-stream; charset=utf-8"
        assert reply.header("content-length") is None
        assert reply.body.count(b" word") >= 4
        record = s.records.last
        assert (record.stream, record.input_tokens, record.output_tokens) == (True, 7, 4)
        assert record.outcome == "ok"
        assert record.finish_reason
        assert idle(s)


async def test_each_chunk_of_the_engine_is_one_message_to_the_server() -> None:
    async with stage(script=Script(tokens=5, interval_s=0.01)) as s:
        reply = await s.client.chat(stream=True)
        assert len(reply.chunks) >= 6
        assert s.records.last.chunks == len(reply.chunks)
        assert all(chunk.endswith(b"\n\n") for chunk in reply.chunks)


@pytest.mark.parametrize("asked", [None, False, True])
async def test_usage_is_always_asked_for_and_shown_to_who_asked(asked: bool | None) -> None:
    options = {} if asked is None else {"stream_options": {"include_usage": asked, "other": 1}}
    async with stage() as s:
        reply = await s.client.chat(stream=True, **options)
        sent = s.engine.seen[-1].json["stream_options"]
        assert sent["include_usage"] is True
        assert sent.get("other") == (None if asked is None else 1)
        assert ('"usage"' in reply.body.decode()) == bool(asked)
        assert reply.events[-1] == "[DONE]"
        assert s.records.last.output_tokens == 3


async def test_without_a_stream_no_stream_options_are_made_up() -> None:
    async with stage() as s:
        await s.client.chat()
        assert "stream_options" not in s.engine.seen[-1].json


@pytest.mark.parametrize("fault", [Fault.RESET_MID_STREAM, Fault.CLOSE_MID_STREAM])
@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(path: str, fault: Fault) -> None:
    script = Script(tokens=10, interval_s=0.005, fault=fault, fault_after=3)
    async with stage(config(routes=[route(retry=RetryEntry(budget_percent=100))]), script=script) as s:
        reply = await s.client.post(path, body(path))
        assert (reply.status, reply.complete) == (200, True)
        last = json.loads(reply.events[-1])
        assert (last.get("error") or last)["code"] == "upstream_error"
        assert ("event: error" in reply.body.decode()) == (path in ("/v1/messages", "/v1/responses"))
        for end in ("[DONE]", "message_stop", "response.completed"):
            assert end not in reply.body.decode()
        assert s.seen() == 1, "tokens are never replayed"
        record = await s.records.next()
        assert (record.status, record.code, record.outcome) == (200, "upstream_error", "upstream_error")
        assert idle(s)


async def test_a_stream_that_ends_early_without_breaking_is_no_success() -> None:
    part = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(part)
    async with stage(script=Script(fault=Fault.RAW, raw=head + part)) as s:
        reply = await s.client.chat(stream=True)
        assert json.loads(reply.events[-1])["error"]["code"] == "upstream_error"
        assert (await s.records.next()).outcome == "upstream_error"


async def test_an_engines_own_error_event_is_replaced_by_ours() -> None:
    token = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    fault = b'data: {"error":{"message":"secret-text EngineDeadError","code":500}}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    raw = head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (token, fault)) + b"0\r\n\r\n"
    async with stage(script=Script(fault=Fault.RAW, raw=raw)) as s:
        reply = await s.client.chat(stream=True)
        assert json.loads(reply.events[-1])["error"]["code"] == "upstream_error"
        assert b"secret-text" not in reply.body
        assert b"[DONE]" not in reply.body
        assert (await s.records.next()).outcome == "upstream_error"
        assert idle(s)


async def test_a_stream_over_the_total_timeout_is_cut() -> None:
    async with stage(config(routes=[route(total_timeout_s=0.1)]), script=SLOW) as s:
        reply = await s.client.chat(stream=True)
        assert json.loads(reply.events[-1])["error"]["code"] == "total_timeout"
        assert (await s.records.next()).outcome == "timeout"
        await s.engine.until(lambda: s.engine.gone == 1)


async def test_a_caller_that_does_not_read_is_cut_and_the_engine_set_free() -> None:
    taken: list[int] = []

    async def stuck() -> None:
        await asyncio.Event().wait()
        taken.append(1)

    def read(reply: Reply) -> Any:
        return stuck() if reply.chunks else None

    async with stage(config(routes=[route(total_timeout_s=0.1)]), script=SLOW) as s:
        await s.client.chat(stream=True, on_send=read)
        assert not taken, "left open: the server closes the connection of an answer that is not complete"
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "timeout"
        assert idle(s)


async def test_a_client_that_leaves_a_stream_frees_the_engine() -> None:
    gone = asyncio.Event()

    def leave(reply: Reply) -> None:
        if len(reply.chunks) == 3:
            gone.set()

    async with stage(script=SLOW) as s:
        task = asyncio.create_task(s.client.post(CHAT, body(CHAT), gone=gone, on_send=leave))
        await s.engine.until(lambda: s.engine.gone == 1)
        await task
        record = await s.records.next()
        assert (record.status, record.code, record.outcome) == (499, "cancelled", "cancelled")
        assert task.cancelling() == 0
        assert idle(s)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_frees_the_engine(stream: bool) -> None:
    gone = asyncio.Event()
    async with stage(script=Script(fault=Fault.NO_HEAD)) as s:
        task = asyncio.create_task(s.client.chat(stream=stream, gone=gone))
        await s.engine.until(lambda: len(s.engine.seen) == 1)
        gone.set()
        reply = await task
        assert reply.status == 0
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "cancelled"
        assert idle(s)


async def test_a_client_that_leaves_the_waiting_room_gives_up_its_place() -> None:
    gone = asyncio.Event()
    async with stage() as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        task = asyncio.create_task(s.client.chat(gone=gone))
        await until(lambda: s.gateway.admission.load("llama").waiting)
        gone.set()
        await task
        assert idle(s)


@pytest.mark.parametrize("chunks", [0, 2])
async def test_a_server_that_cancels_the_request_frees_the_engine(chunks: int) -> None:
    """Ray Serve cancels the task of a request whose client left."""
    script = SLOW if chunks else Script(fault=Fault.NO_HEAD)
    reached = asyncio.Event()

    def count(reply: Reply) -> None:
        if len(reply.chunks) == chunks:
            reached.set()

    async with stage(script=script) as s:
        task = asyncio.create_task(s.client.chat(stream=True, on_send=count))
        if chunks:
            await reached.wait()
        else:
            await s.engine.until(lambda: len(s.engine.seen) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "cancelled"
        assert len(s.records.items) == 1
        assert idle(s)


async def test_a_server_that_tells_and_cancels_at_once_is_obeyed() -> None:
    gone, begun = asyncio.Event(), asyncio.Event()

    def count(reply: Reply) -> None:
        if reply.chunks:
            begun.set()

    async with stage(script=SLOW) as s:
        task = asyncio.create_task(s.client.chat(stream=True, on_send=count, gone=gone))
        await begun.wait()
        gone.set()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "cancelled"
        assert len(s.records.items) == 1
        assert idle(s)


async def test_a_server_whose_receive_fails_does_not_end_the_answer() -> None:
    async with stage() as s:
        sent: list[Any] = []
        first = [{"type": "http.request", "body": json.dumps(body(CHAT)).encode()}]

        async def receive() -> Any:
            if first:
                return first.pop()
            raise RuntimeError("no more")

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [*s.client.headers, (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "raw_path": CHAT.encode(),
            "headers": headers,
        }
        await s.app(scope, receive, send)
        assert sent[0]["status"] == 200
        assert sent[-1]["more_body"] is False


@pytest.mark.parametrize("error", [ConnectionResetError, RuntimeError])
async def test_a_server_that_cannot_send_any_more_has_a_client_that_left(error: type[Exception]) -> None:
    def broken(reply: Reply) -> None:
        if reply.chunks:
            raise error

    async with stage(script=SLOW) as s:
        await s.client.chat(stream=True, on_send=broken)
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await s.records.next()).outcome == "cancelled"
        assert idle(s)


async def test_a_disconnect_reported_at_the_end_of_an_answer_cancels_nothing() -> None:
    """uvicorn tells of a disconnect as soon as the last byte is handed to it."""
    for stream in (False, True):
        gone = asyncio.Event()

        def finished(reply: Reply, gone: asyncio.Event = gone) -> Any:
            if reply.complete:
                gone.set()
                return asyncio.sleep(0.01)
            return None

        async with stage() as s:
            reply = await s.client.chat(stream=stream, gone=gone, on_send=finished)
            assert reply.complete
            assert s.records.last.outcome == "ok"


async def test_shutdown_lets_streams_end_and_takes_no_new_requests() -> None:
    started = asyncio.Event()

    def begun(reply: Reply) -> None:
        if reply.chunks:
            started.set()

    async with stage(script=Script(tokens=20, interval_s=0.005)) as s:
        stream = asyncio.create_task(s.client.chat(stream=True, on_send=begun))
        await started.wait()
        closing = asyncio.create_task(s.gateway.shutdown())
        await asyncio.sleep(0)
        refused = await s.client.chat()
        assert (refused.status, refused.code) == (503, "shutting_down")
        assert refused.header("connection") == "close"
        ready = await s.client.get("/readyz")
        assert (ready.status, ready.json["reason"]) == (503, "shutting_down")
        assert (await s.client.get("/healthz")).status == 503
        reply = await stream
        assert reply.events[-1] == "[DONE]"
        await closing


async def test_shutdown_waits_no_longer_than_told() -> None:
    async with stage(script=Script(fault=Fault.NO_HEAD)) as s:
        task = asyncio.create_task(s.client.chat())
        await s.engine.until(lambda: len(s.engine.seen) == 1)
        await s.gateway.shutdown(timeout_s=0.01)
        await s.engine.until(lambda: s.engine.gone == 1)
        assert (await task).status in (502, 503)


async def test_lifespan_opens_and_closes() -> None:
    async with stage() as s:
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        task = asyncio.create_task(s.app({"type": "lifespan"}, inbox.get, send))
        inbox.put_nowait({"type": "lifespan.startup"})
        await until(lambda: sent)
        assert (await s.client.chat()).status == 200
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await task
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_request_keeps_the_configuration_it_began_with() -> None:
    started = asyncio.Event()

    def begun(reply: Reply) -> None:
        if reply.chunks:
            started.set()

    async with stage(script=Script(tokens=20, interval_s=0.005)) as s:
        stream = asyncio.create_task(s.client.chat(stream=True, on_send=begun))
        await started.wait()
        s.gateway.configure(config(routes=[route("other")]))
        assert (await s.client.chat()).status == 404
        assert (await s.client.chat(model="other")).status == 200
        reply = await stream
        assert reply.events[-1] == "[DONE]"
        assert reply.header("x-tradewind-route") == "chat"
