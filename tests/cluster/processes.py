"""Programs that tests start in the background, none of which outlives the tests.

Each has a process group of its own, is killed at the end, and is killed by the kernel when the test process
dies without an end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PRCTL = ctypes.CDLL(None).prctl
KEPT_LINES = 20
POLL_S = 0.02


class ProgramEnded(Exception):
    """A program ended, or did not become ready in time; with the end of its log."""


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Program:
    """A program that runs, and the file with all it printed."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return once `ready`; raises ProgramEnded when the program ends before or `timeout_s` passes."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None:
                raise ProgramEnded(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProgramEnded(f"{self.name} was not ready within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-KEPT_LINES:])

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; to a program that has ended, nothing."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def pause(self) -> None:
        """Stop it in its tracks; returns once its last thread stands still."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End it at once, as a crash would, and wait for that."""
        self.send(signal.SIGKILL)
        self.process.wait(10)


class Programs:
    """The programs of one test session, with their logs in `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._started: list[Program] = []
        # The kernel watches the thread that starts a process, and a test's own may be short-lived.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starts-programs")

    def start(self, command: Sequence[str]) -> Program:
        """Start `command`, an absolute path and arguments; its log is called after it and goes on."""
        name = Path(command[0]).name
        log = self._home / f"{name}.log"
        program = Program(name, self._starter.submit(_spawn, command, self._home, log).result(), log)
        self._started.append(program)
        return program

    def kill_all(self) -> None:
        """End every program, the last one first."""
        for program in reversed(self._started):
            program.kill()
        self._starter.shutdown()


def _spawn(command: Sequence[str], home: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
