"""Logs as JSON, one object a line on stderr: ts, level, logger, message, service, and given ids.

Exceptions are written as their type and the places they passed, because a message of other people's
code may quote its input, and a prompt must not get into a log. Messages of Tradewind's own errors
and of the operating system's, which quote none, are kept.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TextIO

import msgspec

from tradewind.telemetry.line_mark import mark_of
from tradewind.telemetry.printable import printable
from tradewind.telemetry.redaction import redact

LEVEL: Final = "TRADEWIND_LOG_LEVEL"
_MAX_TEXT: Final = 4_096
_MAX_FRAMES: Final = 20
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_FOREIGN: Final = frozenset({"vllm_process_name", "fileinfo"})
"""Members that vLLM gives every record; Ray's begin with an underscore."""
_OWN: Final = ("tradewind", "tradewind_operator")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_encoder: Final = msgspec.json.Encoder()


class RedactingFilter(logging.Filter):
    """Redacts a record's message. For handlers that other libraries own; ours redacts whole lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        clean = redact(record.getMessage())
        record.msg, record.args = clean, ()
        return True


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as every line has them: UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object per record. Primitive values given in `extra` become members; `fields` are in each.

    `mark` stands before it, for whoever has to tell these lines from others (`line_mark`).
    """

    def __init__(self, service: str, fields: Mapping[str, str] = _NONE, mark: str = "") -> None:
        super().__init__()
        self._fixed = {"service": service, **fields}
        self._mark = mark

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(redact(_message(record))[:_MAX_TEXT]),
            **self._fixed,
        }
        for name, value in record.__dict__.items():
            if name in _STANDARD or name in _FOREIGN or name in line or name.startswith("_"):
                continue
            if value is None or isinstance(value, bool | int | float):
                line[name] = value
            elif isinstance(value, str):
                line[name] = printable(redact(value)[:_MAX_TEXT])
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _describe(record.exc_info[1])
        return self._mark + _encoder.encode(line).decode()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # wrong arguments: logging would print a traceback between the lines
        return str(record.msg)


def _describe(error: BaseException) -> list[dict[str, object]]:
    """The chain of an exception, outermost first: type, places, and the message where it is safe."""
    chain: list[dict[str, object]] = []
    link: BaseException | None = error
    while link is not None and len(chain) < 8:
        frames = traceback.extract_tb(link.__traceback__)[-_MAX_FRAMES:]
        kind = type(link)
        entry: dict[str, object] = {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "at": [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames],
        }
        if kind.__module__.partition(".")[0] in _OWN or isinstance(link, OSError | ImportError):
            entry["message"] = printable(redact(str(link))[:_MAX_TEXT])
        chain.append(entry)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


class _Console(logging.StreamHandler[TextIO]):
    """Our handler, told from others by its type, so that a second set-up replaces it."""


def setup_logging(
    service: str,
    level: str | None = None,
    stream: TextIO | None = None,
    fields: Mapping[str, str] = _NONE,
) -> None:
    """Send this process's logs to `stream`, the real stderr by default, as JSON. Safe to call again.

    `fields` are members of every line: what this process is, beside its `service`. Lines to stderr begin
    with the mark of the process that reads them, where there is one (`line_mark`).

    Not `sys.stderr`: Serve replaces that in its replicas by one that feeds a logger of its own, which
    drops what we write.

    Plain console handlers that others put on the root are taken off; all other handlers stay (Ray's
    are on its own loggers). Tradewind's loggers get `level` (default `$TRADEWIND_LOG_LEVEL`, info);
    of other libraries only warnings are kept, unless the level is debug.

    Raises:
        ValueError: no such level.
    """
    name = (level or os.environ.get(LEVEL) or "info").upper()
    number = logging.getLevelNamesMapping().get(name)
    if number is None:
        raise ValueError(f"{LEVEL}={name.lower()}: use debug, info, warning or error")
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is _Console or _is_console(handler):
            root.removeHandler(handler)
    ours = _Console(stream or sys.__stderr__ or sys.stderr)
    ours.setFormatter(JsonFormatter(service, fields, "" if stream else mark_of(os.environ)))
    root.addHandler(ours)
    root.setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    for logger in _OWN:
        logging.getLogger(logger).setLevel(number)


def redirect_console(stream: TextIO) -> TextIO | None:
    """Have our handler write to `stream`, and return what it wrote to; None: logs were not set up.

    For whoever takes in all that this process prints: what our loggers say does not go through it, and so
    nothing that does is taken for theirs.
    """
    for handler in logging.getLogger().handlers:
        if type(handler) is _Console:
            return handler.setStream(stream)
    return None


def adopt_logger(name: str) -> None:
    """Make a library that has its own console handler write through ours.

    Call it after the library has set its logging up: vLLM does so when its engine is made. The level
    it chose stays; without one it is info.
    """
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        if _is_console(handler):
            logger.removeHandler(handler)
        else:
            handler.addFilter(RedactingFilter())
    logger.propagate = True
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def keep_open(name: str) -> None:
    """Let nobody close the handlers that a library's logger has now.

    `logging.config.dictConfig`, by which vLLM sets up its own, closes every handler of the process. A Serve
    controller that comes back asks each replica where its log file is, which one of them knows, and stops
    a replica that cannot say.
    """
    for handler in logging.getLogger(name).handlers:
        handler.close = handler.flush  # type: ignore[method-assign]


def _is_console(handler: logging.Handler) -> bool:
    """Whether it is a plain StreamHandler to the console (a subclass has a purpose of its own)."""
    console = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return type(handler) is logging.StreamHandler and handler.stream in console
