"""Waits for a platform that is slow, says so, and gives up on one that is dead.

A machine that is busy with other things may take minutes for what else takes a second. Only evidence ends a
wait before its bound: a process that has died, or a port that nobody listens on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from rich.console import Console

from tradewind.cli.console import plain
from tradewind.cli.errors import CommandFailed
from tradewind.rayapi.client import ControlError, Unreachable

SILENCE_S: Final = 1800.0
"""How long Ray's API may leave unanswered."""
REFUSED_S: Final = 30.0
"""How long its port may be closed: it listens before anything is asked."""
TOLD_S: Final = 15.0
"""How often a wait is told of."""
WATCH_S: Final = 1.0
"""How often it is looked, while an answer is waited for, whether something has died."""

Answer = TypeVar("Answer")
Gone = Callable[[], str]
"""What has died, in words for people; empty while all live."""


def nothing_gone() -> str:
    """A `Gone` for where there is nobody to look at."""
    return ""


@contextlib.contextmanager
def telling(
    console: Console, what: str, *, every_s: float = TOLD_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Show that `what` is waited for: at once in a terminal, and now and then by a line with the time."""
    began, over = clock(), threading.Event()

    def tell() -> None:
        while not over.wait(every_s):
            console.print(plain(f"  still waiting for {what} ({clock() - began:.0f} s)"))

    teller = threading.Thread(target=tell, name="telling", daemon=True)
    with console.status(plain(f"Waiting for {what} …")):
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()


class Silence:
    """Counts for how long Ray's API has not answered, and decides when that is too long."""

    def __init__(self, gone: Gone = nothing_gone, clock: Callable[[], float] = time.monotonic) -> None:
        self._gone = gone
        self._clock = clock
        self._since: float | None = None
        self._refused_since: float | None = None

    def answered(self) -> None:
        """It did."""
        self._since = self._refused_since = None

    def look(self) -> None:
        """Raise CommandFailed when something has died."""
        if dead := self._gone():
            raise CommandFailed(dead)

    def bear(self, error: Exception) -> float:
        """Seconds of silence with `error`, its latest sign.

        Raises:
            CommandFailed: something has died, nobody listens, or it has been too long.
        """
        self.look()
        now = self._clock()
        self._since = now if self._since is None else self._since
        if isinstance(error, Unreachable) and error.refused:
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since > REFUSED_S:
                raise CommandFailed(f"{error}; nobody listens there") from error
        else:
            self._refused_since = None
        if now - self._since > SILENCE_S:
            raise CommandFailed(f"{error}; without an answer for {now - self._since:.0f} s") from error
        return now - self._since


def ask(
    call: Callable[[], Answer],
    silence: Silence,
    *,
    sleep: Callable[[float], None] = time.sleep,
    pause_s: float = 1.0,
) -> Answer:
    """The answer of `call`, which may be asked more than once; what Ray refuses is raised as it is.

    Raises:
        CommandFailed: see `Silence.bear`. A death is seen while `call` waits, which is left to itself then.
    """
    while True:
        try:
            return _watched(call, silence)
        except Unreachable as error:
            silence.bear(error)
            sleep(pause_s)
        except ControlError:
            silence.look()  # a Ray that has lost a part of itself refuses everything
            raise


def _watched(call: Callable[[], Answer], silence: Silence) -> Answer:
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="asking", daemon=True).start()
    while not wait([answer], WATCH_S).done:
        silence.look()
    return answer.result()
