"""What the engine's processes print: made JSON, kept in a bounded ring, searched for the cause of a failure.

vLLM raises "See root cause above" in the process that holds the engine and prints the cause in
another. The file descriptors 1 and 2 are the only place where both meet.

Libraries print what a request said: a grammar, a schema, a tool's name. So nothing that comes by those
descriptors is taken for a line of ours, whatever it looks like: our loggers have another way out.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import selectors
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TextIO

from tradewind.telemetry.line_budget import SAY_AFTER_S
from tradewind.telemetry.line_mark import mark_of
from tradewind.telemetry.lines import LineBuffer, LineFormat
from tradewind.telemetry.logs import redirect_console
from tradewind.telemetry.printable import printable
from tradewind.telemetry.redaction import redact

_RING_BYTES = 256 * 1024
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031


class _WayOut(io.TextIOBase):
    """A descriptor that two threads write whole lines to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        self.put(text.encode(errors="backslashreplace"))
        return len(text)

    def put(self, line: bytes) -> None:
        """Write all of it; nothing where nobody reads any more."""
        with self._lock, contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._fd, line) :]

    def release(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class _Copied:
    """One of the two streams."""

    stream: str
    target: _WayOut
    buffer: LineBuffer


class OutputTee:
    """Copies what this process and its children write to file descriptors 1 and 2 into a ring.

    It also still goes where it went, line by line as `lines` makes it, each with the mark of whoever reads
    it there. The console handler of our own logs writes there directly. Children keep the pipes for as long
    as they live, so the copying thread does too: `stop` restores this process's descriptors and lets the
    thread end with the last child.
    """

    def __init__(self, lines: LineFormat) -> None:
        self._lines = lines
        self._mark = mark_of(os.environ).encode()
        self._ring: deque[bytes] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self._saved: dict[int, int] = {}
        self._console: TextIO | None = None
        self._last_read = 0.0

    def start(self) -> None:
        if self._saved:
            return
        selector = selectors.DefaultSelector()
        for fd in (1, 2):
            self._saved[fd] = os.dup(fd)
            target = _WayOut(os.dup(fd))
            if fd == 2:
                self._console = redirect_console(target)  # type: ignore[arg-type]
            source, sink = os.pipe()
            with contextlib.suppress(OSError):  # a full pipe would stall a writer that holds the GIL
                fcntl.fcntl(sink, _F_SETPIPE_SZ, _PIPE_BYTES)
            os.dup2(sink, fd)
            os.close(sink)
            copied = _Copied("stdout" if fd == 1 else "stderr", target, LineBuffer())
            selector.register(source, selectors.EVENT_READ, copied)
        threading.Thread(target=self._copy, args=(selector,), name="engine-output", daemon=True).start()

    def stop(self) -> None:
        if self._console is not None:
            # First: once the descriptors are back, the thread may close its own.
            redirect_console(self._console)
            self._console = None
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
                ready = selector.select(SAY_AFTER_S if self._lines.owes else None)
                for key, _ in ready:
                    copied: _Copied = key.data
                    block = os.read(key.fd, 65536)
                    if block:
                        self._keep(block)
                        self._pass_on(copied, self._lines.format(copied.buffer.feed(block), copied.stream))
                        continue
                    rest = self._lines.format([copied.buffer.rest()], copied.stream)
                    self._pass_on(copied, [*rest, *self._lines.overdue(last=True)])
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    copied.target.release()
                if not ready:
                    *_, key = selector.get_map().values()
                    self._pass_on(key.data, self._lines.overdue())

    def _pass_on(self, copied: _Copied, lines: list[bytes]) -> None:
        for line in lines:
            copied.target.put(self._mark + line)

    def _keep(self, block: bytes) -> None:
        with self._lock:
            self._last_read = time.monotonic()
            self._ring.append(block)
            self._held += len(block)
            while self._held > _RING_BYTES and len(self._ring) > 1:
                self._held -= len(self._ring.popleft())


_ANSI = re.compile(r"\x1b\[[\d;]*m")
_PREFIX = re.compile(
    r"^(?:\([\w.:-]+(?: [\w.:-]+)* pid=\d+(?:, [\w=. ]+)?\)\s?)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] ?)?"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?P<kind>[A-Z]\w*(?:Error|Exception|Exit)): ?(?P<text>.*)$")
_POINTER = re.compile(
    r"root cause|stack ?trace|engine core initialization failed|enginecore encountered|enginedeaderror|"
    r"workerproc (?:initialization )?failed|failed core proc",
    re.IGNORECASE,
)
_KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*?: (-?\d+)")
_FATAL = re.compile(
    r"terminate called after throwing an instance of '(?P<cpp>[\w:]+)'|"
    r"(?P<fault>Segmentation fault|Bus error)|"
    r"^(?P<fatal>Fatal Python error: .*)$"
)
_PYDANTIC = re.compile(r"\[type=\w+, input_value=.*")
_ASIDE = re.compile(
    r" Supported architectures: .*| You can update Transformers with .*| For further information .*"
    r"| To allow overriding this maximum, .*| To disable this warning.*"
)
"""Long advice that does not say what went wrong."""
_PLAIN = ("", "ValueError", "RuntimeError", "OSError", "Exception", "ValidationError", "AssertionError")
"""Kinds of exceptions whose name adds nothing to their message."""
_MESSAGE_LINES = 12
_MESSAGE_CHARS = 600


_ENGINE_LINE = re.compile(r"^(?:\x1b\[[\d;]*m)*\((?:EngineCore|Worker)")


def root_cause(text: str, *, engine_only: bool = False) -> str | None:
    """What the engine itself last said went wrong, in one line; None when it said nothing.

    Lines that only point elsewhere ("See root cause above") are passed over. `engine_only` looks at
    lines that vLLM's engine processes have marked as theirs: once requests are served, other lines could
    quote one. Those may too, for an exception says what it likes: what is quoted is one short line without
    anything that a terminal would obey.
    """
    lines = text.split("\n")
    if engine_only:
        lines = [line for line in lines if _ENGINE_LINE.match(line)]
    lines = [_PREFIX.sub("", _ANSI.sub("", line)).rstrip() for line in lines]
    for at in range(len(lines) - 1, -1, -1):
        line = lines[at]
        if _POINTER.search(line):
            continue
        if found := _EXCEPTION.match(line):
            return tidy(_with_continuation(found["text"], lines[at + 1 :]), found["kind"])
        if fatal := _FATAL.search(line):
            if fatal["cpp"]:
                return _crash(fatal["cpp"])
            return tidy(fatal["fault"] or fatal["fatal"])
    killed = _KILLED.findall(text)
    return _exit_reason(int(killed[-1])) if killed else None


def says_little(message: str) -> bool:
    """Whether an exception's own message only points to what was printed elsewhere."""
    return not message.strip() or _POINTER.search(message) is not None


def tidy(message: str, kind: str = "") -> str:
    """One line of bounded length, without pydantic's frame, Python's noise and what looks like a secret."""
    lines = [_PYDANTIC.sub("", line).strip() for line in message.splitlines()]
    kept = [
        line.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        for line in lines
        if line and not re.match(r"\d+ validation errors? for |For further information visit", line)
    ]
    text = printable(redact(_ASIDE.sub("", " ".join(kept)).strip() or kind))
    if kind not in _PLAIN and text != kind:
        text = f"{kind}: {text}"
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"


def _with_continuation(first: str, rest: list[str]) -> str:
    """The message with the lines that belong to it: indented, or up to a blank or a new record."""
    message = [first]
    for line in rest[:_MESSAGE_LINES]:
        if not line.strip() or line.startswith(
            ("Traceback", "During handling", "The above", "[rank", "  File")
        ):
            break
        if (
            not line.startswith(" ")
            and not first.rstrip().endswith((":", ","))
            and "validation error" not in first
        ):
            break
        message.append(line)
    return "\n".join(message)


def _crash(kind: str) -> str:
    if "bad_alloc" in kind:
        return "out of memory: an allocation failed in the engine process"
    return f"the engine process crashed ({kind})"


def _exit_reason(code: int) -> str:
    if code == -9:
        return "the engine process was killed (signal 9), most likely because the machine is out of memory"
    if code < 0:
        return f"the engine process was killed by signal {-code}"
    return f"the engine process ended with code {code}"
