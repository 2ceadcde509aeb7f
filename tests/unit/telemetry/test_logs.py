from __future__ import annotations

import io
import json
import logging
import logging.handlers
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.telemetry.builders import CANARY
from tradewind.telemetry.logs import JsonFormatter, RedactingFilter, adopt_logger, keep_open, setup_logging
from tradewind.telemetry.redaction import redact


@pytest.fixture
def stderr() -> Iterator[io.StringIO]:
    """Logging set up on a stream that can be read; the test run's own handlers are put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    setup_logging("tradewind-gateway", "info", out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("tradewind").setLevel(logging.NOTSET)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_line_is_one_json_object_with_ids(stderr: io.StringIO) -> None:
    extra = {"trace_id": "ab" * 16, "span_id": "cd" * 8, "request_id": "req_" + "0" * 32, "port": 9464}
    logging.getLogger("tradewind.gateway").info("listening on %s\nand on", "127.0.0.1", extra=extra)
    (line,) = lines(stderr)
    ts = line.pop("ts")
    assert len(ts) == len("2026-01-01T00:00:00.000Z")
    assert line == {
        "level": "info",
        "logger": "tradewind.gateway",
        "message": "listening on 127.0.0.1\nand on",
        "service": "tradewind-gateway",
        **extra,
    }


def test_fields_of_the_process_are_in_every_line(stderr: io.StringIO) -> None:
    setup_logging("engine", "info", stderr, fields={"model": "llama", "replica": "a1"})
    logging.getLogger("tradewind").info("said")
    (line,) = lines(stderr)
    assert (line["service"], line["model"], line["replica"]) == ("engine", "llama", "a1")


def test_second_setup_does_not_double_lines(stderr: io.StringIO) -> None:
    setup_logging("tradewind-gateway", "info", stderr)
    logging.getLogger("tradewind").info("once")
    assert len(lines(stderr)) == 1


def test_other_libraries_only_warn(stderr: io.StringIO) -> None:
    logging.getLogger("httpx").info("GET https://host/?q=" + CANARY)
    logging.getLogger("httpx").warning("slow")
    assert [line["message"] for line in lines(stderr)] == ["slow"]


def test_plain_console_handler_on_the_root_is_replaced_and_others_stay(stderr: io.StringIO) -> None:
    root = logging.getLogger()
    kept = logging.NullHandler()
    root.addHandler(kept)
    plain = logging.StreamHandler(sys.stderr)
    root.addHandler(plain)
    setup_logging("tradewind-gateway", "info", stderr)
    assert kept in root.handlers
    assert plain not in root.handlers


def test_library_with_its_own_console_handler_is_adopted(stderr: io.StringIO) -> None:
    library = logging.getLogger("some_engine")
    library.propagate = False
    library.setLevel(logging.NOTSET)
    library.addHandler(logging.StreamHandler(sys.stderr))
    other = io.StringIO()
    file = logging.StreamHandler(other)
    library.addHandler(file)
    adopt_logger("some_engine")
    library.info("token: %s", "abcdefgh12345678")
    assert [line["message"] for line in lines(stderr)] == ["token: [redacted]"]
    assert other.getvalue() == "token: [redacted]\n"
    library.handlers.clear()


def test_messages_of_other_peoples_exceptions_are_left_out(stderr: io.StringIO) -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "refused")
        except OSError as cause:
            raise ValueError(CANARY) from cause
    except ValueError:
        logging.getLogger("tradewind.gateway").exception("cannot read")
    (line,) = lines(stderr)
    assert CANARY not in stderr.getvalue()
    outer, inner = line["error"]
    assert outer["type"] == "builtins.ValueError"
    assert "message" not in outer
    assert outer["at"][-1].endswith("test_messages_of_other_peoples_exceptions_are_left_out")
    assert "refused" in inner["message"]


def test_wrong_arguments_do_not_break_the_line() -> None:
    record = logging.makeLogRecord({"msg": "%d of %d", "args": (1,)})
    assert json.loads(JsonFormatter("svc").format(record))["message"] == "%d of %d"


def test_extra_cannot_replace_what_is_always_there(stderr: io.StringIO) -> None:
    logging.getLogger("tradewind").warning("x", extra={"service": "other", "body": {"prompt": CANARY}})
    assert lines(stderr)[0]["service"] == "tradewind-gateway"
    assert CANARY not in stderr.getvalue()


def test_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="use debug, info, warning or error"):
        setup_logging("svc", "loud")


SECRETS = {
    "Authorization: Bearer abcdef0123456789": "abcdef0123456789",
    "authorization=Basic dXNlcjpwYXNz": "dXNlcjpwYXNz",
    '{"api_key": "0123456789abcdef"}': "0123456789abcdef",
    "using sk-proj-abcdefghijklmnop1234": "sk-proj-abcdefghijklmnop1234",
    "hf_abcdefghijklmnopqrstuvwxyz is bad": "hf_abcdefghijklmnopqrstuvwxyz",
    "key AKIAABCDEFGHIJKLMNOP": "AKIAABCDEFGHIJKLMNOP",
    "https://user:hunter22@host/path": "hunter22",
    "x-tradewind-token: " + "ab" * 32: "ab" * 32,
    "engine got " + "0f" * 32: "0f" * 32,
    "jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl": "eyJzdWIiOiIx",
    "-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----": "MIIabc",
    "password='correct-horse'": "correct-horse",
}


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_key_is_cut_out(text: str) -> None:
    clean = redact(text)
    assert SECRETS[text] not in clean
    assert "[redacted]" in clean


@pytest.mark.parametrize(
    "text",
    [
        "48 tokens: 12 in, 36 out",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "req_00000000000000000000000000000000 ended",
        "route chat -> variant control at 127.0.0.1:30001",
        "https://host:8000/v1/models?x=1",
        "revision 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_filter_works_on_formatted_arguments() -> None:
    record = logging.makeLogRecord({"msg": "key %s", "args": ("sk-abcdefghijklmnop1234",)})
    assert RedactingFilter().filter(record)
    assert record.getMessage() == "key [redacted]"


def test_a_handler_that_is_kept_open_knows_its_file_after_another_set_up(tmp_path: Path) -> None:
    file = logging.FileHandler(tmp_path / "serve.log")
    memory = logging.handlers.MemoryHandler(1, target=file)
    logger = logging.getLogger("kept")
    logger.addHandler(memory)
    keep_open("kept")
    # What dictConfig does to every handler of the process.
    logging.shutdown([weakref.ref(memory), weakref.ref(file)])
    logger.warning("goes on")
    assert memory.target is file
    assert (tmp_path / "serve.log").read_text() == "goes on\n"
