"""Lines that Ray, vLLM and other programs print, each made one JSON object as our own log lines are.

What an object says that is one of ours stays: it is one of ours only where it begins with the mark
(`line_mark`), for a program may print what a request said, and that may look like anything. Of other lines
the level is read where the program writes one, and guessed for the rest: what looks like an exception is an
error. Their time is that at which they were read, what a terminal would obey is written out, and how many of
them are written is bounded. Progress bars keep their last state only, and what Ray says below a warning is
left out unless it is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from tradewind.telemetry.line_budget import LineBudget
from tradewind.telemetry.logs import timestamp
from tradewind.telemetry.printable import printable
from tradewind.telemetry.redaction import redact

_MAX_TEXT: Final = 4_096
_MAX_LINE: Final = 65_536
"""Of a line in bytes; what follows is dropped."""
_MAX_ID: Final = 200
"""Characters of what a line says of itself besides its message."""
Record = dict[str, object]
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, object]).decode

_ANSI: Final = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_VLLM: Final = re.compile(
    r"^\((?P<process>\S+) pid=(?P<pid>\d+)\) (?P<level>[A-Z]+) [\d-]+ [\d:]+ "
    r"\[(?P<place>[^\]]+)\] ?(?P<message>.*)$"
)
_SERVE: Final = re.compile(
    r"^(?P<level>[A-Z]+) \d{4}-\d\d-\d\d [\d:,]+ (?P<component>\S+) (?P<component_id>\S+) "
    r"(?:\S+ )?-- (?P<message>.*)$"
)
_RAY: Final = re.compile(
    r"^\d{4}-\d\d-\d\d [\d:,]+\t(?P<level>[A-Z]+) (?:\((?P<component>\w+)\) )?"
    r"(?P<place>\S+:\d+) -- ?(?P<message>.*)$"
)
_RAY_NATIVE: Final = re.compile(
    r"^\[\d{4}-\d\d-\d\d [\d:,]+ (?P<level>[DIWECF]) \d+ \d+\] (?:\((?P<component>\S+)\) )?"
    r"(?P<place>\S+:\d+): ?(?P<message>.*)$"
)
_FAULT: Final = re.compile(
    r"^(?:Traceback \(|\s+File \"|(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit)\b|Fatal Python error|"
    r"terminate called|Segmentation fault|Bus error|\*\*\* SIG)"
)
_TRACEBACK: Final = re.compile(r"^(?:Traceback \(most recent|During handling of|The above exception)")
_MARK: Final = re.compile(r"^:(?:job_id|actor_name|task_name):")
"""What Ray's workers print for Ray's own reader of log files."""
_LEVELS: Final = {
    "D": "debug", "I": "info", "W": "warning", "E": "error", "C": "critical", "F": "critical",
    "WARN": "warning", "FATAL": "critical", "SUCC": "info", "ERR": "error",
}  # fmt: skip
_KNOWN: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_QUIET: Final = frozenset({"debug", "info"})
_NATIVE_IDS: Final = frozenset(
    f"{kind}_id"
    for kind in ("actor", "job", "node", "object", "task", "worker", "placement_group", "component")
) | {"component"}

_FORMATS: Final = (
    ("vllm", _VLLM),
    ("ray.serve", _SERVE),
    ("ray", _RAY),
    ("ray", _RAY_NATIVE),
)


class LineFormat:
    """Makes JSON of lines.

    Args:
        fields: what is known of whoever prints: pod, model, replica. A line's own values come first.
        mark: what a line of ours begins with; it is taken off. Empty: none is ours.
        ray_info: keep what Ray says below a warning.
        clock: seconds since the epoch.
        budget: how much of others is written.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        *,
        mark: str = "",
        ray_info: bool = False,
        clock: Callable[[], float] = time.time,
        budget: LineBudget | None = None,
    ) -> None:
        self._fields = {name: value for name, value in fields.items() if value}
        self._mark = mark.encode()
        self._ray_info = ray_info
        self._clock = clock
        self._budget = budget or LineBudget(time.monotonic)

    def format(self, lines: Iterable[bytes], stream: str) -> list[bytes]:
        """One JSON object with a line's end for each line, or for several that are one record; never raises.

        Args:
            lines: without their ends, as they came together. A program writes a record at once, so what
                follows a line and looks like its rest, a traceback above all, is a part of it.
            stream: `stdout` or `stderr`.
        """
        records = _Records(stream)
        others = False
        for line in lines:
            if (own := self._own(line)) is not None:
                records.add(own)
                continue
            others = True
            if line and self._budget.admit(len(line)):
                records.take(line)
        written = [self._written(record) for record in records.whole() if self._wanted(record)]
        if others:
            self._budget.spend(sum(map(len, written)))
            written += self.overdue()
        return written

    @property
    def owes(self) -> bool:
        """Whether lines were dropped and nothing has been said of them yet."""
        return self._budget.dropped_lines > 0

    def overdue(self, *, last: bool = False) -> list[bytes]:
        """The line that says how many others were dropped: once a second, or at the `last`; else none."""
        if not (self.owes if last else self._budget.due()):
            return []
        lines, size = self._budget.account()
        message = f"{lines} lines ({size} bytes) that were printed are left out: too many in too short a time"
        return [self._written({"level": "warning", "logger": "tradewind.lines", "message": message})]

    def _own(self, line: bytes) -> Record | None:
        """The record of a line that has the mark, and is one as our loggers write them."""
        if not self._mark or not line.startswith(self._mark):
            return None
        found = _decoded(line[len(self._mark) :])
        if found is None or not isinstance(found.get("level"), str) or "logger" not in found:
            return None
        return found

    def _wanted(self, record: Mapping[str, object]) -> bool:
        return self._ray_info or record["logger"] != "ray" or record["level"] not in _QUIET

    def _written(self, record: Record) -> bytes:
        if "ts" not in record:
            record = {"ts": timestamp(self._clock()), **record}
        for name, value in self._fields.items():
            record.setdefault(name, value)
        return _encode(record) + b"\n"


class _Records:
    """Records of lines that came together: what looks like the rest of the last one is joined to it."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._found: list[Record] = []
        self._open = False
        """Whether the last one may have a rest."""
        self._in_traceback = False

    def whole(self) -> list[Record]:
        return [record for record in self._found if record["message"]]

    def add(self, record: Record) -> None:
        """A record that came as one."""
        self._found.append(record)
        self._open = self._in_traceback = False

    def take(self, line: bytes) -> None:
        """A line of another program."""
        if line.startswith(b"{") and (native := _native(line)) is not None:
            self.add(native)
            return
        text = _ANSI.sub("", line.decode(errors="replace")).rstrip().rpartition("\r")[2]
        if not text or _MARK.match(text):
            return
        record = _recognised(text)
        said = _message(text) if record is None else str(record["message"])
        indented, begins = said[:1] in (" ", "\t", ""), _TRACEBACK.match(said) is not None
        rest = self._in_traceback or indented or begins
        if self._open and rest and self._goes_on(record, begins=begins):
            last = self._found[-1]
            last["message"] = f"{last['message']}\n{said}"[:_MAX_TEXT]
            self._in_traceback = begins or (self._in_traceback and indented)
            return
        self._found.append(record or _plain(text, said, self._stream))
        self._open, self._in_traceback = True, begins

    def _goes_on(self, record: Record | None, *, begins: bool) -> bool:
        """Whether a line with this record of its own, or none, can belong to the last record."""
        last = self._found[-1]
        if record is not None:  # vLLM writes its head before each line of a record
            return record["logger"] == "vllm" and all(
                record.get(name) == last.get(name) for name in ("logger", "process", "pid", "place", "level")
            )
        return self._in_traceback or not begins or last["logger"] != self._stream


def _decoded(line: bytes) -> Record | None:
    """The object of a line that is JSON and has a message; None for any other."""
    try:
        found = _decode(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found.get("message"), str) else None


def _native(line: bytes) -> Record | None:
    """The record of a line of Ray's native code, with RAY_BACKEND_LOG_JSON.

    Anybody can print what looks like one, so it may say of itself what it could in plain text too, no more.
    """
    found = _decoded(line)
    if found is None or "levelname" not in found:
        return None
    ids = {
        key: _short(value) for key, value in found.items() if key in _NATIVE_IDS and isinstance(value, str)
    }
    return {
        "level": _level(str(found["levelname"])),
        "logger": "ray",
        "message": _message(str(found["message"])),
        "place": _short(f"{found.get('filename')}:{found.get('lineno')}"),
        **ids,
    }


def _recognised(text: str) -> Record | None:
    """A line of a program whose form is known."""
    for logger, pattern in _FORMATS:
        if (match := pattern.match(text)) is not None:
            parts = {name: value for name, value in match.groupdict().items() if value is not None}
            level, message = _level(parts.pop("level")), _message(parts.pop("message"))
            about = {name: _short(value) for name, value in parts.items()}
            return {"level": level, "logger": logger, "message": message, **about}
    return None


def _plain(text: str, message: str, stream: str) -> Record:
    level = "error" if _FAULT.match(text) else "info"
    return {"level": level, "logger": stream, "message": message}


def _level(written: str) -> str:
    level = _LEVELS.get(written, written.lower())
    return level if level in _KNOWN else "info"


def _message(text: str) -> str:
    return printable(redact(text)[:_MAX_TEXT])


def _short(text: str) -> str:
    return printable(text[:_MAX_ID])


class LineBuffer:
    """Cuts what comes in blocks into lines, and holds the last one until its end has come."""

    def __init__(self) -> None:
        self._held = b""
        self._over = False

    def feed(self, block: bytes) -> list[bytes]:
        """Lines that have come to their end, without it."""
        *whole, rest = (self._held + block).split(b"\n")
        if whole and self._over:
            # The part that was too long is already out.
            whole, self._over = whole[1:], False
        if self._over:
            rest = b""
        elif len(rest) > _MAX_LINE:
            whole, rest, self._over = [*whole, rest], b"", True
        self._held = rest
        return [line[:_MAX_LINE] for line in whole]

    def rest(self) -> bytes:
        """The last line when no more comes; empty where there is none."""
        held, self._held = self._held, b""
        return held
