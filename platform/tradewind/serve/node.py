"""First process of a pod's Ray container: `python -m tradewind.serve.node`.

Starts Ray by the command that KubeRay made and writes what Ray, its workers and the engines print to the
container's output, one JSON object a line. Ray is told to keep no files for that (`RAY_SWITCHES`).

The engines must never wait for a log: what cannot be written in time is kept up to a bound and then dropped,
and a line says how many were. As process 1 it also hands on the signal to end and takes in orphans.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Final

import psutil

from tradewind.serve.agent_port import tell_agent_port
from tradewind.telemetry.line_budget import SAY_AFTER_S
from tradewind.telemetry.line_mark import MARK, new_mark
from tradewind.telemetry.lines import LineBuffer, LineFormat
from tradewind.telemetry.logs import LEVEL

COMMAND: Final = "KUBERAY_GEN_RAY_START_CMD"
RAY_SWITCHES: Final[Mapping[str, str]] = {
    "RAY_LOG_TO_STDERR": "1",
    # Serve's own lines too: its files hold back up to a thousand of them.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    # Records of several lines stay one record.
    "RAY_BACKEND_LOG_JSON": "1",
}
"""Where Ray writes. A variable of the pod comes first."""
_BACKEND_LEVEL: Final = "RAY_BACKEND_LOG_LEVEL"
_FILES: Final = 65_536
"""Open files that KubeRay gives Ray in its own command."""
_HELD_BYTES: Final = 8 * 2**20
_PIPE_BYTES: Final = 2**20
_F_SETPIPE_SZ: Final = 1031
_ENDS_S: Final = 20.0
"""From the signal to end to Ray's end. Ray that is starting hears no signal before its head has answered, and
a head that is gone for good never does. Whatever had to be drained is, before the signal comes."""
_DRAIN_S: Final = 3.0
"""For the last lines, after Ray has ended."""


class Output:
    """Writes lines from a thread of its own, so that `put` never waits.

    Args:
        write: takes a block of lines, and may wait.
        held_bytes: kept while `write` waits; further lines are dropped.
        dropped: makes a line that says how many were.
    """

    def __init__(
        self, write: Callable[[bytes], object], dropped: Callable[[int], bytes], held_bytes: int = _HELD_BYTES
    ) -> None:
        self._write = write
        self._dropped_line = dropped
        self._limit = held_bytes
        self._lines: deque[bytes] = deque()
        self._held = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a line, or count it as dropped."""
        with self._changed:
            if self._held + len(line) > self._limit:
                self._dropped += 1
                return
            self._lines.append(line)
            self._held += len(line)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Write what is held, for so long at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._dropped or self._closed)
                lines, self._held = list(self._lines), 0
                self._lines.clear()
                dropped, self._dropped = self._dropped, 0
                ends = self._closed and not lines and not dropped
            if ends:
                return
            if dropped:
                lines.append(self._dropped_line(dropped))
            # Line by line: the runtime that reads a container's output cuts long blocks anywhere.
            for line in lines:
                with suppress(OSError):  # nobody reads any more: Ray goes on
                    self._write(line)


class _Reader:
    """Reads Ray's two streams until every process that could write to them has ended."""

    def __init__(self, streams: Mapping[str, IO[bytes]], lines: LineFormat, output: Output) -> None:
        self._lines = lines
        self._output = output
        self._selector = selectors.DefaultSelector()
        for name, stream in streams.items():
            with suppress(OSError):
                fcntl.fcntl(stream.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
            self._selector.register(stream.fileno(), selectors.EVENT_READ, (name, LineBuffer()))
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._selector:
            while self._selector.get_map():
                ready = self._selector.select(SAY_AFTER_S if self._lines.owes else None)
                for line in self._lines.overdue():
                    self._output.put(line)
                for key, _ in ready:
                    name, buffer = key.data
                    block = os.read(key.fd, 65_536)
                    for line in self._lines.format(buffer.feed(block) if block else [buffer.rest()], name):
                        self._output.put(line)
                    if not block:
                        self._selector.unregister(key.fd)
        for line in self._lines.overdue(last=True):
            self._output.put(line)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Ray's variables: those of the pod, and where Ray's lines go."""
    switches = dict(RAY_SWITCHES)
    if not _debug(given):
        switches[_BACKEND_LEVEL] = "warning"
    return {**switches, **given}


def _debug(given: Mapping[str, str]) -> bool:
    return given.get(LEVEL, "").lower() == "debug"


def run(command: str, given: Mapping[str, str], write: Callable[[bytes], object]) -> int:
    """Run a shell's command to its end, its lines to `write`. Its exit status, as a shell tells it."""
    mark = new_mark()
    lines = LineFormat({"pod": given.get("HOSTNAME", "")}, mark=mark, ray_info=_debug(given))

    def own(level: str, message: str) -> bytes:
        record = {"level": level, "logger": "tradewind.node", "message": message, "service": "node"}
        return b"".join(lines.format([(mark + json.dumps(record)).encode()], "stdout"))

    output = Output(
        write, lambda count: own("warning", f"{count} lines were dropped: the output is not read in time")
    )
    output.put(own("info", "Ray starts on this node"))
    process = subprocess.Popen(  # noqa: S603 - KubeRay's own command, which it would give to bash too
        ["/bin/bash", "-c", f"exec {command}"],
        env={**environment(given), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    told: list[int] = []

    def hand_on(number: int, _: object) -> None:
        if not told:
            bound = threading.Timer(_ENDS_S, _kill, [process.pid])
            bound.daemon = True
            bound.start()
        told.append(number)
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    assert process.stdout is not None
    assert process.stderr is not None
    reader = _Reader({"stdout": process.stdout, "stderr": process.stderr}, lines, output)
    threading.Thread(target=tell_agent_port, args=(process.pid, command), daemon=True).start()
    process.returncode = status = _wait(process.pid)
    reader.join(_DRAIN_S)
    # Told to end, Ray does so with status 1.
    output.put(own("info" if told or not status else "error", f"Ray has ended with status {status}"))
    output.close(_DRAIN_S)
    return status


def _kill(pid: int) -> None:
    """End the process and all below it, which have not ended when they were asked to."""
    with suppress(psutil.NoSuchProcess):
        node = psutil.Process(pid)
        for each in (*node.children(recursive=True), node):
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _wait(pid: int) -> int:
    """Status of this child; others that end before are orphans and need no more than this."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> int:
    """Run KubeRay's command."""
    command = os.environ.get(COMMAND)
    if not command:
        sys.stderr.write(f"{COMMAND} is not set: KubeRay sets it in the pods that it makes\n")
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return run(command, os.environ, _write)


def _write(line: bytes) -> None:
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    sys.exit(main())
