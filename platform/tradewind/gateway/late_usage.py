"""The usage of answers that were cut, asked of the engine that made them.

Engines tell usage in the last event of a stream, or in the body of an answer. Where a caller left, a
deadline passed or the stream broke, that was never seen; the engine has counted all the same
(`engine/usage.py`). It is asked when the caller is done with, so nobody waits for it; the request's record is
written when the answer is here or the time is over. An engine that does not answer leaves unknown what nobody
knows: never a zero.
"""

from __future__ import annotations

import asyncio

import msgspec

from tradewind.api.headers import ENGINE_TOKEN, ENGINE_USAGE_PATH
from tradewind.gateway.http1 import UpstreamError, request_head
from tradewind.gateway.upstream import Upstream
from tradewind.telemetry.record import RequestRecord

ASK_S = 1.0
"""For one question. An engine waits for a request that is being aborted, but not that long."""
ALL_S = 2.5
"""For all questions about one request, waiting for their turn included."""
QUESTIONS = 2
"""The second is for a request that still ran."""
MAX_PENDING = 2_000
"""Cut answers that wait for their usage at a time; of more the usage stays unknown."""
_AT_ONCE = 64
_BODY_BYTES = 4 * 1024


class _Told(msgspec.Struct):
    """The engine's answer (`engine.usage.RequestUsage`)."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    running: bool = False


class LateUsage:
    """Completes the records of cut answers. For one event loop.

    It has connections of its own, so that it can still ask about the answers that a shutdown cuts.
    """

    def __init__(self, engine_token: str, *, ask_s: float = ASK_S, max_pending: int = MAX_PENDING) -> None:
        self._headers = [(ENGINE_TOKEN.encode(), engine_token.encode())]
        self._ask_s = ask_s
        self._max_pending = max_pending
        self._upstream = Upstream(connect_timeout_s=ask_s, max_idle_per_replica=8)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._decode = msgspec.json.Decoder(_Told).decode

    def complete(self, record: RequestRecord, prefix: str) -> None:
        """Begin to complete the record's tokens: it has something `pending` until that is over.

        `prefix` is the route prefix of the engine that was asked last, whose address the record holds.
        """
        if len(self._tasks) >= self._max_pending:
            return
        task = asyncio.get_running_loop().create_task(self._complete(record, prefix), name="late usage")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        record.pending = task

    async def close(self) -> None:
        """Wait for what is pending, which has a deadline of its own, and close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._upstream.close()

    async def _complete(self, record: RequestRecord, prefix: str) -> None:
        try:
            async with asyncio.timeout(ALL_S), self._turn:
                for _ in range(QUESTIONS):
                    told = await self._ask(record, prefix)
                    if told is None:
                        return
                    if told.input_tokens is not None:
                        record.input_tokens = told.input_tokens
                    if told.output_tokens is not None:
                        record.output_tokens = told.output_tokens
                    if not told.running:
                        return
        except (TimeoutError, UpstreamError, msgspec.DecodeError, UnicodeDecodeError):
            return  # nobody there, or an engine that cannot tell: what was seen stays

    async def _ask(self, record: RequestRecord, prefix: str) -> _Told | None:
        host, _, port = record.replica.rpartition(":")
        target = (prefix + ENGINE_USAGE_PATH + record.request_id).encode()
        head = request_head(b"GET", target, record.replica, self._headers, 0)
        deadline = asyncio.get_running_loop().time() + self._ask_s
        response = await self._upstream.send(
            host.strip("[]"), int(port), head, b"", first_byte_deadline=deadline, total_deadline=deadline
        )
        body = await response.read_all(_BODY_BYTES)
        return self._decode(body) if response.status == 200 else None
