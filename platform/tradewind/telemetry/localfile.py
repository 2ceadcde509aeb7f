"""Spans in local files, for a laptop with no collector: bounded, one pair of files per process.

`<home>/traces/<service>-<pid>.jsonl` is written until it is full, then becomes `….1.jsonl`. A line is a
JSON array: a whole request (`"r"`, the fields of its record; a reader makes spans of them) or one
span of the SDK (`"s"`). Fields are only ever added at the end, so that older files stay readable.
Files of processes that have ended are removed, oldest first, once the directory is over its bound.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.sink import Item
from tradewind.telemetry.spans import SpanData, StatusName, request_spans

_log = logging.getLogger(__name__)
FILE_BYTES: Final = 4 * 1024 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024
_MAX_TEXT: Final = 256
_FILE: Final = re.compile(r"(?P<service>[A-Za-z0-9_.-]+)-(?P<pid>[0-9]+)(\.1)?\.jsonl")


class RequestLine(msgspec.Struct, array_like=True, tag="r"):
    """A finished request. Ids are in hex, for grep and because JSON numbers end at 64 bits."""

    trace: str
    span: str
    parent: str
    upstream: str
    request_id: str
    operation: str
    method: str
    path: str
    started_ns: int
    ended_ns: int
    upstream_started_ns: int
    first_byte_ns: int
    phases: list[tuple[str, int, int]]
    route: str
    variant: str
    deployment: str
    tenant: str
    assignment: str
    request_model: str
    stream: bool
    replica: str
    attempts: int
    queue_ns: int
    cold_start_ns: int
    status: int
    code: str
    input_tokens: int
    output_tokens: int
    finish_reason: str
    chunks: int


class SpanLine(msgspec.Struct, array_like=True, tag="s"):
    """A span of OpenTelemetry's SDK."""

    trace: str
    span: str
    parent: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: StatusName
    attributes: dict[str, Any]
    events: list[tuple[str, int]]


Line = RequestLine | SpanLine
_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


def encode(item: Item) -> bytes:
    """One line, without its end."""
    return _encoder.encode(_request_line(item) if isinstance(item, RequestRecord) else _span_line(item))


def decode(line: bytes) -> Line | None:
    """The line read back, or None for a torn or foreign one."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _request_line(r: RequestRecord) -> RequestLine:
    return RequestLine(
        f"{r.trace_id:032x}", f"{r.span_id:016x}", "" if r.parent_id is None else f"{r.parent_id:016x}",
        f"{r.upstream_span_id:016x}", r.request_id, r.operation, r.method, r.path, r.started_ns, r.ended_ns,
        r.upstream_started_ns, r.first_byte_ns, r.phases, r.route, r.variant, r.deployment, r.tenant,
        r.assignment, r.request_model[:_MAX_TEXT], r.stream, r.replica, r.attempts, r.queue_ns,
        r.cold_start_ns, r.status, r.code, r.input_tokens, r.output_tokens,
        r.finish_reason[:_MAX_TEXT], r.chunks,
    )  # fmt: skip


def _span_line(span: ReadableSpan) -> SpanLine:
    assert span.context is not None
    return SpanLine(
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
        f"{span.parent.span_id:016x}" if span.parent else "",
        span.name[:_MAX_TEXT],
        span.kind.name,
        span.start_time or 0,
        span.end_time or 0,
        "error"
        if span.status.status_code.value == 2
        else "ok"
        if span.status.status_code.value == 1
        else "unset",
        {name: _bounded(value) for name, value in (span.attributes or {}).items()},
        [(event.name[:_MAX_TEXT], event.timestamp) for event in span.events],
    )


def _bounded(value: object) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_bounded(part) for part in value[:16]]
    return str(value)[:_MAX_TEXT]


def spans_of(line: Line, service: str) -> list[SpanData]:
    """The spans that a line stands for."""
    if isinstance(line, SpanLine):
        kind = SpanKind[line.kind] if line.kind in SpanKind.__members__ else SpanKind.INTERNAL
        parent = int(line.parent, 16) if line.parent else None
        return [
            SpanData(
                int(line.trace, 16), int(line.span, 16), parent, line.name, kind, line.start_ns, line.end_ns,
                line.attributes, line.status, tuple(line.events), service,
            )
        ]  # fmt: skip
    record = RequestRecord(
        line.request_id, int(line.trace, 16), int(line.span, 16),
        int(line.parent, 16) if line.parent else None, True, "", int(line.upstream, 16),
        line.operation, line.path, line.method, line.started_ns,
    )  # fmt: skip
    for name in RequestLine.__struct_fields__[9:]:
        setattr(record, name, getattr(line, name))
    # Phases have no id on file, for nothing names them: any that differ will do.
    unused = iter(range(1, len(record.phases) + 1))
    return request_spans(record, lambda: record.span_id ^ next(unused))


def service_of(file: str) -> tuple[str, int] | None:
    """(service, pid) of a trace file's name, or None when it is no trace file."""
    match = _FILE.fullmatch(file)
    return (match["service"], int(match["pid"])) if match else None


class LocalFile:
    """A Writer to the files of this process. Opens them when there is something to write."""

    def __init__(
        self, directory: Path, service: str, file_bytes: int = FILE_BYTES, total_bytes: int = TOTAL_BYTES
    ) -> None:
        self._directory = directory
        self._service = service
        self._file_bytes = file_bytes
        self._total_bytes = total_bytes
        self._fd = -1
        self._size = 0
        self._torn = False
        self._complained = False

    @property
    def path(self) -> Path:
        """The file being written."""
        return self._directory / f"{self._service}-{os.getpid()}.jsonl"

    def write(self, batch: Sequence[Item]) -> int:
        lines = [encode(item) for item in batch]
        lines.append(b"")
        block = b"\n".join(lines)
        try:
            if self._fd >= 0 and self._size + len(block) > self._file_bytes:
                self._rotate()
            if self._fd < 0:
                self._open()
            if self._torn:
                block = b"\n" + block
            written = os.write(self._fd, block)
        except OSError as error:
            if not self._complained:
                self._complained = True  # once: the count of dropped spans tells the rest
                _log.warning("cannot write traces to %s: %s", self._directory, error.strerror)
            return len(batch)
        self._size += written
        self._torn = written < len(block)
        return len(batch) if self._torn else 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def after_fork(self) -> None:
        self.close()

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        prune(self._directory, self._total_bytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0  # an earlier process of this pid may have been cut off mid-line

    def _rotate(self) -> None:
        self.close()
        self.path.replace(self.path.with_suffix(".1.jsonl"))


def prune(directory: Path, total_bytes: int) -> None:
    """Remove files of processes that have ended, oldest first, until `directory` is within its bound.

    Files of live processes stay: each process bounds its own.
    """
    held: list[tuple[float, int, Path, bool]] = []
    for path in directory.iterdir():
        named = service_of(path.name)
        if named is None:
            continue
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue  # another process prunes too
        held.append((facts.st_mtime, facts.st_size, path, _alive(named[1])))
    total = sum(size for _, size, _, _ in held)
    for _, size, path, alive in sorted(held):
        if total <= total_bytes:
            return
        if not alive:
            path.unlink(missing_ok=True)
            total -= size


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False  # no such pid can be
    except PermissionError:
        return True  # somebody else's
    return True
