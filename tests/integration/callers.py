"""Callers that ask for streams, on new connections and on ones they keep, and count what became of them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

WORDS: Final = 20
_BODY: Final = json.dumps(
    {
        "model": "chat",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": WORDS,
        "stream": True,
    }
).encode()
_REST_S: Final = 0.1


class Callers:
    """`kept` keep a connection each; besides, `rate` a second call once. Nobody asks twice for one answer."""

    def __init__(self, port: int, *, kept: int = 8, rate: float = 15.0) -> None:
        self.answers: Counter[str] = Counter()
        """`whole`, or what was wrong."""
        self._port = port
        self._kept = kept
        self._rate = rate
        self._ends = False

    @property
    def lost(self) -> dict[str, int]:
        """Everything but whole answers."""
        return {what: count for what, count in self.answers.items() if what != "whole"}

    async def _call(self) -> None:
        calls = [asyncio.create_task(self._keep()) for _ in range(self._kept)]
        while not self._ends:
            calls.append(asyncio.create_task(self._once(close=True)))
            await asyncio.sleep(1 / self._rate)
        await asyncio.gather(*calls)

    async def _keep(self) -> None:
        while not self._ends:
            await self._once(close=False)

    async def _once(self, *, close: bool) -> None:
        """One answer; without `close` as many as the connection is kept for."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            self.answers[f"no connection: {type(error).__name__}"] += 1
            await asyncio.sleep(_REST_S)
            return
        try:
            goes_on = True
            while goes_on and not self._ends and not reader.at_eof():
                goes_on = await self._ask(reader, writer, close=close) and not close
                await asyncio.sleep(_REST_S)
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, close: bool) -> bool:
        """Whether the connection can be used again."""
        headers = b"host: x\r\ncontent-type: application/json\r\n" + b"connection: close\r\n" * close
        head = b"POST /v1/chat/completions HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (headers, len(_BODY))
        answer = b""
        try:
            writer.write(head + _BODY)
            answer = await reader.readuntil(b"\r\n\r\n")
            while not answer.endswith(b"0\r\n\r\n"):
                if not (more := await reader.read(65_536)):
                    break
                answer += more
        except (OSError, asyncio.IncompleteReadError) as error:
            self.answers[f"cut: {type(error).__name__}"] += 1
            return False
        self.answers[_verdict(answer)] += 1
        return b"\r\nconnection: close\r\n" not in answer


def _verdict(answer: bytes) -> str:
    if not answer.startswith(b"HTTP/1.1 200 "):
        return answer.split(b"\r\n")[0].decode()
    if b'"error"' in answer:
        return "an error event"
    whole = answer.count(b'"content":" word"') == WORDS and b"data: [DONE]" in answer
    return "whole" if whole else "cut"


@contextmanager
def calling(port: int, *, kept: int = 8, rate: float = 15.0) -> Iterator[Callers]:
    """They call from a thread of their own; when this ends, every answer has."""
    callers = Callers(port, kept=kept, rate=rate)
    thread = threading.Thread(target=lambda: asyncio.run(callers._call()))
    thread.start()
    try:
        until = time.monotonic() + 30
        while not callers.answers and time.monotonic() < until:
            time.sleep(0.05)
        yield callers
    finally:
        callers._ends = True
        thread.join()
