"""Structured output is tried before the engine hears of a request.

vLLM reads a schema or a grammar when a request is handed to its engine, and compiles it there. What it
cannot take is found out after a stream's 200, or as a failure of the engine that nobody can tell from a
fault; and a slow one holds the event loop. So both steps are made first, in a thread and within a bound:
the caller's mistake is a 400 before the first byte, and what takes longer than the bound is one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from tradewind.api.refusals import GRAMMAR
from tradewind.telemetry.printable import printable

BOUND_S: Final = 5.0
"""From when a thread takes it."""
WORKERS: Final = 2
"""Grammars that are tried at once. A thread cannot be stopped: one that is over its bound keeps its place."""
_WAIT_S: Final = 10.0
"""For a place."""
_KNOWN: Final = 1_024
"""Digests of those that passed."""
_REASON_CHARS: Final = 300
_PLACE: Final = re.compile(r"^(?:\[\d\d:\d\d:\d\d\] )?(?:<path>|/\S+):\d+:\s*")
"""Where in the library's code it was noticed."""


class GrammarRefused(Exception):
    """The caller's constraint cannot be used. The message may quote it, and belongs to the caller alone."""


class GrammarsBusy(Exception):
    """No place was free in time to try a constraint: it says nothing about it."""


class Grammars:
    """Tries constraints.

    Args:
        attempt: validates and compiles one; raises whatever the library raises. Called in threads.
        key: text that two constraints share only if they are the same.
    """

    def __init__(
        self,
        attempt: Callable[[Any], None],
        key: Callable[[Any], str],
        *,
        bound_s: float = BOUND_S,
        wait_s: float = _WAIT_S,
        workers: int = WORKERS,
    ) -> None:
        self._attempt = attempt
        self._key = key
        self._bound_s = bound_s
        self._wait_s = wait_s
        self._free = asyncio.Semaphore(workers)
        self._passed: OrderedDict[bytes, None] = OrderedDict()

    async def check(self, constraint: Any) -> None:
        """Return when the engine can take `constraint`.

        Raises:
            GrammarRefused: it cannot, or that is not known within the bound.
            GrammarsBusy: others take all the time there is.
        """
        digest = hashlib.blake2b(
            self._key(constraint).encode(errors="surrogatepass"), digest_size=16
        ).digest()
        if digest in self._passed:
            self._passed.move_to_end(digest)
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise GrammarsBusy("too many grammars are being compiled") from None
        attempt = self._begin(constraint)
        done, _ = await asyncio.wait([attempt], timeout=self._bound_s)
        if not done:
            raise GrammarRefused(f"{GRAMMAR}it takes longer than {self._bound_s:g} s.")
        error = attempt.exception()
        if error is not None:
            raise GrammarRefused(GRAMMAR + reason(error)) from None
        self._passed[digest] = None
        while len(self._passed) > _KNOWN:
            self._passed.popitem(last=False)

    def _begin(self, constraint: Any) -> asyncio.Future[None]:
        """Try it in a thread of its own, which gives its place back, and keeps no process alive."""
        loop = asyncio.get_running_loop()
        attempt: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            self._free.release()
            if attempt.cancelled():
                return
            if error is None:
                attempt.set_result(None)
            else:
                attempt.set_exception(error)
                attempt.exception()  # it is asked for, or nobody waits any more

        def run() -> None:
            error: Exception | None = None
            try:
                self._attempt(constraint)
            except Exception as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=run, name="grammar", daemon=True).start()
        return attempt


def reason(error: BaseException) -> str:
    """What a library says of a constraint, as one bounded line without places in its code."""
    lines = [_PLACE.sub("", line).strip() for line in str(error).splitlines()]
    text = printable(" ".join(line for line in lines if line)) or "the library says no more."
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 1] + "…"
