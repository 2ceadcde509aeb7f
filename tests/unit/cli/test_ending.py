"""How commands end: exit codes, signals, closed pipes, bugs. Where it matters, in a process of their own."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.endpoint import FakeEndpoint, Script
from tests.unit.cli.running import platform, run, start, wrong
from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.cli.ending import BUG_FILE
from tradewind.cli.main import main
from tradewind.cli.signals import Terminated, interruptible, uninterrupted
from tradewind.telemetry.localfile import LocalFile

SECRET = "tw-do-not-leak"


@contextlib.contextmanager
def streaming(endpoint: FakeEndpoint, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A `chat` in the middle of an answer."""
    endpoint.script = Script(hangs_after=2)
    process = start("chat", "hi", "--url", endpoint.url, **options)  # type: ignore[arg-type]
    try:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"Paris")
        assert endpoint.hanging.wait(10)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "Interrupted.\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 143, "")],
)
def test_a_signal_ends_a_command_without_a_traceback(
    endpoint: FakeEndpoint, number: signal.Signals, code: int, said: str
) -> None:
    with streaming(endpoint) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=45)
    assert (process.returncode, err.decode()) == (code, said)
    assert out == b"\n", "the line of the answer is ended"


def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path: Path) -> None:
    read, written = os.pipe()
    os.close(read)
    process = start("render", str(platform(tmp_path)), stdout=written)
    os.close(written)
    _, err = process.communicate(timeout=45)
    assert (process.returncode, err) == (141, b"")


def test_mistakes_are_told_in_any_locale_and_to_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "caf\u00e9"
    folder.mkdir()
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("render", str(wrong(folder)), env=environment)
    _, err = process.communicate(timeout=45)
    assert process.returncode == 2
    assert b"spec.variants[0].weight" in err
    assert b"Traceback" not in err


def test_in_a_terminal_a_conversation_survives_a_failed_answer(endpoint: FakeEndpoint) -> None:
    ours, theirs = pty.openpty()
    process = start(
        "chat", "--url", endpoint.url, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm"}
    )
    os.close(theirs)
    try:
        rest = read_until(ours, b"> ")
        endpoint.script = Script(status=503, code="no_capacity")
        os.write(ours, b"one\n")
        rest = read_until(ours, b"no_capacity)", rest)
        endpoint.script = Script()
        os.write(ours, b"two\n")
        rest = read_until(ours, b"Paris.", rest)
        read_until(ours, b"> ", rest)
        os.write(ours, b"\x04")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert [message["content"] for message in endpoint.seen[-1].body["messages"]] == ["two"]


def read_until(handle: int, wanted: bytes, seen: bytes = b"") -> bytes:
    """Read on from `seen` until `wanted`; what came after it in the same breath."""
    while wanted not in seen:
        seen += os.read(handle, 4096)
    return seen.partition(wanted)[2]


def test_a_bug_is_a_line_and_where_to_look_and_shows_no_secret(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(f"Bearer {SECRET}") from error

    with pytest.raises(SystemExit) as ended:
        main(broken)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ValueError in ")
    assert "this is a bug in Tradewind" in said
    assert str(home / BUG_FILE) in said
    kept = (home / BUG_FILE).read_text()
    assert "builtins.KeyError" in kept
    assert "in broken" in kept
    assert SECRET not in said + kept
    assert "Traceback" not in said


def test_a_bug_shows_its_traceback_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEWIND_LOG_LEVEL", "debug")
    with pytest.raises(SystemExit):
        main(lambda: 1 // 0)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_where_nothing_can_be_written_is_still_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEWIND_HOME", "/dev/null/home")
    with pytest.raises(SystemExit):
        main(lambda: 1 // 0)
    said = capsys.readouterr().err
    assert "this is a bug" in said
    assert BUG_FILE not in said


def test_what_the_operating_system_refuses_is_no_bug(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where a directory should be")
    result = run("trace", "req_" + "0" * 32)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {home}/traces: ")


@pytest.mark.parametrize(
    ("request_id", "code", "said"),
    [
        ("nonsense", 2, "is no request id"),
        ("../../etc/passwd", 2, "is no request id"),
        ("req_" + "0" * 32, 1, "no trace of req_0000"),
        ("0" * 32, 1, "no trace of 0000"),
    ],
)
def test_an_id_that_no_file_knows_is_told_from_one_that_is_none(
    request_id: str, code: int, said: str
) -> None:
    result = run("trace", request_id)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_the_trace_of_a_request_is_a_tree_that_fits_a_pipe(home: Path) -> None:
    clock = Clock()
    record = request(telemetry(clock), clock)
    written = LocalFile(home / "traces", "tradewind-gateway")
    written.write([record])
    written.close()
    result = run("trace", f" {record.request_id}\n")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(record.request_id)
    for span in ("POST /v1/chat/completions", "auth", "route", "admission", "pick", "upstream"):
        assert any(f"── {span}  +" in line for line in result.stdout.splitlines()), span
    by_trace = run("trace", f"{record.trace_id:032x}")
    assert by_trace.exit_code == 0


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Terminated), interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_clean_up_is_not_interrupted_and_what_was_handled_is_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        inherited = subprocess.run(
            [sys.executable, "-c", "import signal;print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"],
            capture_output=True,
            check=True,
        )
    assert inherited.stdout == b"True\n"
    assert signal.getsignal(signal.SIGINT) is before
