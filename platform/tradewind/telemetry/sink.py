"""Where finished requests and spans go: a bounded queue, and a thread that writes batches of it.

Not OpenTelemetry's BatchSpanProcessor: that one takes finished span objects only (building them
would be on the event loop), cannot say how many it dropped, and logs on the caller's thread when it
is full. The environment variables of the specification (`OTEL_BSP_*`) set this queue just as well.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from opentelemetry.sdk.trace import ReadableSpan

from tradewind.telemetry.record import RequestRecord

Item = RequestRecord | ReadableSpan
"""A finished request (all its spans are made of it), or one span of OpenTelemetry's SDK."""

_log = logging.getLogger(__name__)


class SpanSink(Protocol):
    """Takes what has finished. No method raises, and only `flush` and `shutdown` ever block."""

    @property
    def dropped(self) -> int:
        """Items lost so far."""

    def put(self, item: Item) -> None:
        """Take one item, or count it as dropped."""

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Write all that was put. False when the time was not enough."""

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Flush, then take no more."""


class Writer(Protocol):
    """The far end of a queue. Called by one thread at a time, never by the event loop."""

    def write(self, batch: Sequence[Item]) -> int:
        """Write a batch; returns how many items were lost."""

    def close(self) -> None:
        """Give up files and connections, and end any export that hangs."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent process."""


class NullSink:
    """For tracing that is switched off."""

    dropped = 0

    def put(self, item: Item) -> None:
        """Nothing."""

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Nothing to wait for."""
        return True

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Bounds of a queue: items held, items per batch, and seconds from first item to write."""

    max_queue: int = 2048
    batch: int = 64
    delay_s: float = 0.2


class QueueSink:
    """A bounded queue before a Writer. The thread starts with the first item, and again after a fork."""

    def __init__(self, writer: Writer, settings: QueueSettings) -> None:
        self._writer = writer
        self._settings = settings
        self._rush_at = max(1, settings.max_queue // 2)
        self._dropped = 0
        self._closed = False
        self._reset()
        again = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := again()) and method())

    def _reset(self) -> None:
        self._queue: deque[Item] = deque()
        self._wake = threading.Event()
        self._rush = threading.Event()
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None

    def _after_fork(self) -> None:
        self._reset()
        self._writer.after_fork()

    @property
    def dropped(self) -> int:
        return self._dropped

    def put(self, item: Item) -> None:
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._settings.max_queue or self._closed:
            self._lose(1)
            return
        queue.append(item)
        if not self._wake.is_set():
            self._start()
            self._wake.set()
        elif waiting >= self._rush_at and not self._rush.is_set():
            self._rush.set()

    def flush(self, timeout_s: float = 5.0) -> bool:
        if not self._writing.acquire(timeout=timeout_s):
            return False
        try:
            self._drain()
        finally:
            self._writing.release()
        return True

    def shutdown(self, timeout_s: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._rush.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if not self._writing.acquire(blocking=False):
            self._writer.close()  # breaks off the export that hangs; what it held is lost
            self._lose(len(self._queue))
            return
        try:
            self._drain()
            self._writer.close()
        finally:
            self._writing.release()

    def _start(self) -> None:
        with self._counting:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="tradewind-spans", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._rush.wait(self._settings.delay_s)
            self._wake.clear()
            self._rush.clear()
            with self._writing:
                self._drain()

    def _drain(self) -> None:
        queue = self._queue
        while queue:
            # Small batches: between two of them (a write, a send) the event loop gets the interpreter.
            batch = [queue.popleft() for _ in range(min(self._settings.batch, len(queue)))]
            try:
                lost = self._writer.write(batch)
            except Exception:
                _log.exception("cannot export spans")
                lost = len(batch)
            if lost:
                self._lose(lost)

    def _lose(self, count: int) -> None:
        with self._counting:
            self._dropped += count
