"""Lines that Ray, vLLM and other programs print, each made one JSON object as our own log lines are.

What an object says that is one of ours stays. Of other lines the level is read where the program writes
one, and guessed for the rest: what looks like an exception is an error. Their time is that at which they were
read. Progress bars keep their last state only, and what Ray says below a warning is left out unless it is
asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from tradewind.telemetry.logs import timestamp
from tradewind.telemetry.redaction import redact

_MAX_TEXT: Final = 4_096
_MAX_LINE: Final = 65_536
"""Of a line in bytes; what follows is dropped."""
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
_QUIET: Final = frozenset({"debug", "info"})

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
        ray_info: keep what Ray says below a warning.
        clock: seconds since the epoch.
    """

    def __init__(
        self, fields: Mapping[str, str], *, ray_info: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._fields = {name: value for name, value in fields.items() if value}
        self._ray_info = ray_info
        self._clock = clock

    def format(self, lines: Iterable[bytes], stream: str) -> list[bytes]:
        """One JSON object with a line's end for each line, or for several that are one record; never raises.

        Args:
            lines: without their ends, as they came together. A program writes a record at once, so what
                follows a line and looks like its rest, a traceback above all, is a part of it.
            stream: `stdout` or `stderr`.
        """
        records = _Records(stream)
        for line in lines:
            records.take(line)
        return [self._written(record) for record in records.whole() if self._wanted(record)]

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

    def take(self, line: bytes) -> None:
        if line.startswith(b"{") and (record := _object(line)) is not None:
            self._found.append(record)
            self._open = self._in_traceback = False
            return
        text = _ANSI.sub("", line.decode(errors="replace")).rstrip().rpartition("\r")[2]
        if not text or _MARK.match(text):
            return
        record = _recognised(text)
        said = text if record is None else str(record["message"])
        indented, begins = said[:1] in (" ", "\t", ""), _TRACEBACK.match(said) is not None
        rest = self._in_traceback or indented or begins
        if self._open and rest and self._goes_on(record, begins=begins):
            last = self._found[-1]
            last["message"] = f"{last['message']}\n{redact(said)}"[:_MAX_TEXT]
            self._in_traceback = begins or (self._in_traceback and indented)
            return
        self._found.append(record or _plain(text, self._stream))
        self._open, self._in_traceback = True, begins

    def _goes_on(self, record: Record | None, *, begins: bool) -> bool:
        """Whether a line with this record of its own, or none, can belong to the last record."""
        last = self._found[-1]
        if record is not None:  # vLLM writes its head before each line of a record
            return record["logger"] == "vllm" and all(
                record.get(name) == last.get(name) for name in ("logger", "process", "pid", "place", "level")
            )
        return self._in_traceback or not begins or last["logger"] != self._stream


def _object(line: bytes) -> Record | None:
    """The record of a line that we or Ray's native code wrote as JSON; None for any other."""
    try:
        found = _decode(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found.get("message"), str):
        return None
    if "levelname" in found:
        return _native(found)
    return found if isinstance(found.get("level"), str) and "logger" in found else None


def _native(found: Mapping[str, object]) -> Record:
    """Of Ray's native code, with RAY_BACKEND_LOG_JSON."""
    name = str(found["levelname"])
    ids = {key: value for key, value in found.items() if key.endswith("_id") or key == "component"}
    return {
        "level": _LEVELS.get(name, name.lower()),
        "logger": "ray",
        "message": redact(str(found["message"]))[:_MAX_TEXT],
        "place": f"{found.get('filename')}:{found.get('lineno')}",
        **ids,
    }


def _recognised(text: str) -> Record | None:
    """A line of a program whose form is known."""
    for logger, pattern in _FORMATS:
        if (match := pattern.match(text)) is not None:
            parts = {name: value for name, value in match.groupdict().items() if value is not None}
            level, message = parts.pop("level"), parts.pop("message")
            level = _LEVELS.get(level, level.lower())
            return {"level": level, "logger": logger, "message": redact(message)[:_MAX_TEXT], **parts}
    return None


def _plain(text: str, stream: str) -> Record:
    level = "error" if _FAULT.match(text) else "info"
    return {"level": level, "logger": stream, "message": redact(text)[:_MAX_TEXT]}


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
