"""The gateway behind its own listener and behind an ASGI server, asked by the real SDKs and by hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anthropic
import openai
import pytest
import uvicorn

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import KEY, Stage, config, stage, user
from tests.unit.gateway.front.talking import heard
from tradewind.api.wire import GatewayConfig, RequestLimits

ASK: Any = [user("x")]
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-api-key: "
    + KEY.encode()
    + b"\r\n"
)
SLOW = Script(tokens=100_000, interval_s=0.005)


Served = Callable[..., AbstractAsyncContextManager[tuple[Stage, int]]]
"""A stage and the port on loopback where its gateway is reached."""


@contextlib.asynccontextmanager
async def by_uvicorn(
    settings: GatewayConfig | None = None, script: Script | None = None
) -> AsyncIterator[tuple[Stage, int]]:
    async with stage(settings, script=script) as s:
        listener = socket.create_server(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        options = uvicorn.Config(s.app, log_config=None, lifespan="off", http="httptools")
        server = uvicorn.Server(options)
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield s, port
        finally:
            server.should_exit = server.force_exit = True
            await task
            listener.close()


@contextlib.asynccontextmanager
async def by_listener(
    settings: GatewayConfig | None = None, script: Script | None = None
) -> AsyncIterator[tuple[Stage, int]]:
    async with stage(settings, script=script) as s, heard(s.gateway) as (_, port):
        yield s, port


@pytest.fixture(params=[by_listener, by_uvicorn])
def served(request: pytest.FixtureRequest) -> Served:
    """Both ways in."""
    way: Served = request.param
    return way


@contextlib.asynccontextmanager
async def openai_client(port: int, key: str = KEY) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=key, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def anthropic_client(port: int, key: str = KEY) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        api_key=key, base_url=f"http://127.0.0.1:{port}", max_retries=0
    ) as client:
        yield client


async def by_hand(port: int, request: bytes) -> bytes:
    """Everything the server says to raw bytes, until it closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            while part := await reader.read(65_536):
                said += part
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return said


async def test_the_openai_sdk_gets_answers_streams_and_models(served: Served) -> None:
    async with served() as (s, port), openai_client(port) as client:
        whole = await client.chat.completions.create(model="chat", messages=ASK)
        assert whole.choices[0].message.content == " word word word"
        stream = await client.chat.completions.create(model="chat", messages=ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == " word word word"
        response = await client.responses.create(model="chat", input="x")
        assert response.output_text == " word word word"
        names = [model.id async for model in client.models.list()]
        assert names == ["chat", "llama"]
        assert (await client.models.retrieve("chat")).id == "chat"
        assert {record.outcome for record in s.records.items} == {"ok"}


async def test_the_openai_sdk_understands_our_errors(served: Served) -> None:
    async with served() as (_, port), openai_client(port) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="gpt-7", messages=ASK)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert missing.value.request_id is not None
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="chat", messages=ASK, n=10**9)
        assert bad.value.code == "invalid_value"
        async with openai_client(port, "tw-wrong-key-0123456789abcdef") as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.models.list()


async def test_the_openai_sdk_is_told_of_a_broken_stream(served: Served) -> None:
    broken = Script(tokens=9, interval_s=0.005, fault=Fault.RESET_MID_STREAM, fault_after=3)
    async with served(script=broken) as (_, port), openai_client(port) as client:
        stream = await client.chat.completions.create(model="chat", messages=ASK, stream=True)
        assert (await anext(aiter(stream))).choices
        with pytest.raises(openai.APIError) as caught:
            [chunk async for chunk in stream]
        assert caught.value.code == "upstream_error"


async def test_the_anthropic_sdk_gets_answers_streams_counts_and_errors(served: Served) -> None:
    async with served() as (_, port), anthropic_client(port) as client:
        whole = await client.messages.create(model="chat", max_tokens=9, messages=ASK)
        assert whole.content[0].type == "text"
        async with client.messages.stream(model="chat", max_tokens=9, messages=ASK) as stream:
            assert await stream.get_final_text() == " word word word"
        counted = await client.messages.count_tokens(model="chat", messages=ASK)
        assert counted.input_tokens == 7
        assert [model.id async for model in client.models.list()] == ["chat", "llama"]
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.messages.create(model="gpt-7", max_tokens=9, messages=ASK)
        assert missing.value.type == "not_found_error"
        async with anthropic_client(port, "tw-wrong-key-0123456789abcdef") as stranger:
            with pytest.raises(anthropic.AuthenticationError):
                await stranger.messages.create(model="chat", max_tokens=9, messages=ASK)


async def test_a_client_that_hangs_up_frees_the_engine(served: Served) -> None:
    async with served(script=SLOW) as (s, port):
        async with openai_client(port) as client:
            stream = await client.chat.completions.create(model="chat", messages=ASK, stream=True)
            async for _ in stream:
                break
            await stream.close()
        await s.engine.until(lambda: s.engine.gone == 1, timeout_s=1)
        async with asyncio.timeout(1):
            while s.gateway.active:  # noqa: ASYNC110 - the last steps of the request's task
                await asyncio.sleep(0.001)
        assert (await s.records.next()).outcome == "cancelled"


async def test_a_client_that_hangs_up_before_the_answer_frees_the_engine(served: Served) -> None:
    async with served(script=Script(fault=Fault.NO_HEAD)) as (s, port):
        async with openai_client(port) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.with_options(timeout=0.1).chat.completions.create(
                    model="chat",
                    messages=ASK,
                )
        await s.engine.until(lambda: s.engine.gone == 1, timeout_s=1)


async def test_a_slow_reader_is_held_by_bounded_buffers(served: Served) -> None:
    flood = Script(tokens=20_000, pad_bytes=4_096)
    body = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"x"}]}'
    async with served(script=flood) as (s, port):
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.setblocking(False)
            await asyncio.get_running_loop().sock_connect(reader, ("127.0.0.1", port))
            reader.send(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            await s.engine.until(lambda: s.engine.pauses > 0)
            assert s.engine.written < 20_000 * 4_096 / 2
            async with openai_client(port) as client:
                s.engine.next.append(Script(tokens=3))
                answer = await client.chat.completions.create(model="chat", messages=ASK)
                assert answer.choices, "other callers are served meanwhile"
        await s.engine.until(lambda: s.engine.gone == 1)


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: x\r\n\r\n{}",
        b"content-length: -1\r\n\r\n{}",
        b"content-length : 2\r\n\r\n{}",
    ],
)
async def test_row_2_ambiguous_framing_is_refused_and_the_connection_closed(
    served: Served, framing: bytes
) -> None:
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n" % KEY.encode()
    async with served() as (s, port):
        said = await by_hand(port, HEAD + framing + smuggled)
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 415"))
        assert said.count(b"HTTP/1.1 ") == 1, "what follows is not taken for a request"
        assert s.seen() == 0


async def test_row_3_and_4_large_bodies_and_heads_end_the_connection(served: Served) -> None:
    limits = RequestLimits(body_bytes=1_000, header_bytes=2_000)
    async with served(config(limits=limits)) as (s, port):
        announced = await by_hand(port, HEAD + b"content-length: 999999999\r\n\r\n")
        assert announced.startswith(b"HTTP/1.1 413")
        chunks = b"".join(b"3e8\r\n" + b" " * 1_000 + b"\r\n" for _ in range(5))
        grown = await by_hand(port, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks)
        assert grown.startswith(b"HTTP/1.1 413")
        long = await by_hand(port, HEAD + b"x: " + b"y" * 5_000 + b"\r\ncontent-length: 2\r\n\r\n{}")
        assert long.startswith(b"HTTP/1.1 431")
        assert b"connection: close" in announced
        assert b"connection: close" in long
        assert s.seen() == 0


async def test_shutdown_waits_for_a_stream_over_a_socket(served: Served) -> None:
    async with served(script=Script(tokens=30, interval_s=0.005)) as (s, port), openai_client(port) as client:
        stream = await client.chat.completions.create(model="chat", messages=ASK, stream=True)
        closing = asyncio.create_task(s.gateway.shutdown())
        words = [chunk async for chunk in stream]
        assert len(words) >= 30
        await closing
