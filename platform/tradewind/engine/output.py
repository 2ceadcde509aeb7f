"""What the engine's processes print: kept in a bounded ring, and searched for the cause of a failure.

vLLM raises "See root cause above" in the process that holds the engine and prints the cause in
another. The file descriptors 1 and 2 are the only place where both meet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import threading
import time
from collections import deque

_RING_BYTES = 256 * 1024
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


class OutputTee:
    """Copies what this process and its children write to file descriptors 1 and 2 into a ring.

    It also still goes where it went. Children keep the pipes for as long as they live, so the copying
    thread does too: `stop` restores this process's descriptors and lets the thread end with the last
    child.
    """

    def __init__(self) -> None:
        self._ring: deque[bytes] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self._saved: dict[int, int] = {}
        self._last_read = 0.0

    def start(self) -> None:
        if self._saved:
            return
        selector = selectors.DefaultSelector()
        for fd in (1, 2):
            self._saved[fd] = os.dup(fd)
            source, sink = os.pipe()
            with contextlib.suppress(OSError):  # a full pipe would stall a writer that holds the GIL
                fcntl.fcntl(sink, _F_SETPIPE_SZ, _PIPE_BYTES)
            os.dup2(sink, fd)
            os.close(sink)
            selector.register(source, selectors.EVENT_READ, os.dup(self._saved[fd]))
        threading.Thread(target=self._copy, args=(selector,), name="engine-output", daemon=True).start()

    def stop(self) -> None:
        for fd, original in self._saved.items():
            os.dup2(original, fd)
            os.close(original)
        self._saved = {}

    def text(self) -> str:
        """The last part of the output, up to 256 KiB."""
        with self._lock:
            return b"".join(self._ring).decode(errors="replace")

    def settle(self, quiet_s: float = 0.2, timeout_s: float = 2.0) -> None:
        """Wait until nothing more comes: a process that just died may have words in the pipe."""
        end = time.monotonic() + timeout_s
        begin = time.monotonic()
        while time.monotonic() < end:
            if time.monotonic() - max(self._last_read, begin) >= quiet_s:
                return
            time.sleep(0.02)

    def _copy(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while selector.get_map():
                for key, _ in selector.select():
                    block = os.read(key.fd, 65536)
                    if block:
                        self._keep(block)
                        with contextlib.suppress(OSError):
                            os.write(key.data, block)
                        continue
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.close(key.data)

    def _keep(self, block: bytes) -> None:
        with self._lock:
            self._last_read = time.monotonic()
            self._ring.append(block)
            self._held += len(block)
            while self._held > _RING_BYTES and len(self._ring) > 1:
                self._held -= len(self._ring.popleft())


_POINTER = re.compile(
    r"see (the )?(root cause|stack ?trace|stack trace \(above\)|above)|engine core initialization failed|"
    r"enginecore encountered|enginecore failed to start|worker failed with error|workerproc (initialization )?failed",
    re.IGNORECASE,
)
_EXCEPTION = re.compile(
    r"^(?:[\w.]+\.)?(?P<kind>[A-Z]\w*(?:Error|Exception|Interrupt|Exit)|OSError)(?:: (?P<text>.*))?$"
)
_LOG_PREFIX = re.compile(
    r"^(?:\x1b\[[\d;]*m)*(?:\((?P<who>[\w. -]*pid=\d+)\)\s?)?(?:\x1b\[[\d;]*m)*"
    r"(?:(?:ERROR|WARNING|INFO|DEBUG|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] ?)?"
)
