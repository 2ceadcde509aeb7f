"""Long work in short steps, so that an event loop has its turn between them.

What computes is a generator that yields where it may be interrupted and returns its result; who runs it
decides when. A thread would not do: pure Python there takes the interpreter from the loop's thread for 5 ms
at a time.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Work that returns `Result`, each step well under a millisecond."""

SLICE_S: Final = 0.001


class Superseded(Exception):
    """The work was given up before its end, because nobody wants it any more."""


def at_once(steps: Steps[Result]) -> Result:
    """Do all of it now."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def in_slices(
    steps: Steps[Result],
    *,
    wanted: Callable[[], bool] = lambda: True,
    slice_s: float = SLICE_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Do it on the running loop, which has its turn whenever `slice_s` seconds have been spent.

    What a slice has made the collector looks at in its end. Else it would look at all that was made at once,
    which takes longer than any slice: 9 ms for a thousand models.

    Raises:
        Superseded: `wanted` says no after such a turn; nothing of the rest was done.
    """
    try:
        until = clock() + slice_s
        while True:
            next(steps)
            if clock() >= until:
                gc.collect(0)
                await asyncio.sleep(0)
                if not wanted():
                    raise Superseded
                until = clock() + slice_s
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        steps.close()
