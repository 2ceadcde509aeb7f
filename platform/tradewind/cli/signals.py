"""Ends a command on SIGTERM and SIGHUP as on Ctrl-C, so that there is one way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """Somebody else than the user at the keyboard ended the command."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _ignore(number: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN, this is not inherited by a program started meanwhile."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within: SIGTERM and SIGHUP raise Terminated. A signal that is ignored (`nohup`) stays so.

    Does nothing outside the main thread, which alone may handle signals.
    """
    with _handled(_terminate, _ENDING):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within: Ctrl-C, SIGTERM and SIGHUP do nothing, so that a clean-up is not left half done."""
    with _handled(_ignore, (signal.SIGINT, *_ENDING)):
        yield


@contextmanager
def _handled(
    handler: "signal._HANDLER",  # noqa: UP037 - exists for type checkers only
    numbers: tuple[signal.Signals, ...],
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, old in previous.items() if old is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, previous[number])
