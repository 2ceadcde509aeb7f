"""Whether the engine's processes can run at all: asked of the operating system, not of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_REAP = """
read -r _
for pid in "$@"; do
    case "$(tr '\\0' ' ' < /proc/"$pid"/cmdline 2>/dev/null)" in *"$NAME"*) kill -9 "$pid" ;; esac
done
"""


class Reaper:
    """Kills child processes when this process ends without having ended them (killed, crashed).

    vLLM's engine process does not notice that its parent is gone and would keep its memory for ever. A
    shell waits at a pipe whose other end closes with this process, however that happens.
    """

    def __init__(self, pids: Iterable[int], name: str) -> None:
        """Watch `pids`, but kill only what still has `name` in its command line: pids are reused."""
        self._shell = subprocess.Popen(  # noqa: S603 - fixed script, numbers as arguments
            ["/bin/sh", "-c", _REAP, "reaper", *(str(pid) for pid in pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"NAME": name, "PATH": os.defpath},
            start_new_session=True,
        )

    def cancel(self) -> None:
        """The processes have been ended in order."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()


def end_processes(pids: Iterable[int], within_s: float) -> None:
    """Wait for these child processes to be gone; kill those that are not after `within_s` seconds."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, left = psutil.wait_procs(processes, timeout=within_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=within_s)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the engine cannot work."""

    text: str
    since: float
    """Clock reading at which it was first seen."""
    final: bool
    """It will not end by itself: a process is gone. A process that is stopped may be continued."""

    def lost(self, now: float, patience_s: float) -> bool:
        """Whether to replace the replica: at once for what is final, else when it has lasted.

        A new replica takes minutes to load its weights and ends what runs on the old one. A machine that is
        short of memory or disk, or somebody who looks at a process, stops an engine for seconds.
        """
        return self.final or now - self.since >= patience_s


class ProcessWatch:
    """Looks at an engine's processes and all their descendants, in a thread of its own.

    Which there are takes reading the whole process table (2 ms of CPU where a hundred processes run), so it
    is asked for every `family_s` seconds; what state each is in is one small file (22 µs), read every
    `interval_s`. What was seen last is read from `trouble` at no cost, by whoever must not be held up: the
    event loop.
    """

    def __init__(
        self,
        pids: Iterable[int],
        *,
        interval_s: float = 0.25,
        family_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks once before it returns, then goes on until `stop`."""
        self._roots = tuple(pids)
        self._interval_s = interval_s
        self._family_s = family_s
        self._clock = clock
        self._family: tuple[int, ...] = self._roots
        self._counted = -family_s
        self._over = threading.Event()
        self.trouble: Trouble | None = None
        """What is wrong with the first process that cannot run; None when all can."""
        self._look()
        self._thread = threading.Thread(target=self._run, name="process watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Harmless when called twice."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        now = self._clock()
        if now - self._counted >= self._family_s:
            self._family, self._counted = _with_descendants(self._roots), now
        trouble = self._first_trouble(now)
        before = self.trouble
        if trouble is not None and before is not None and before.text == trouble.text:
            return  # the same, and since then
        self.trouble = trouble

    def _first_trouble(self, now: float) -> Trouble | None:
        for pid in self._family:
            state = _state(pid)
            if state is None and pid not in self._roots:
                continue  # it has ended and was waited for, as children do
            word, final = _STATES.get(state or "", ("", False))
            if word:
                return Trouble(f"engine process {pid} {word}", now, final)
        return None


_ENDED = ("has ended", True)
_STATES = {
    "T": ("is stopped", False),
    "t": ("is stopped by a debugger", False),
    "Z": _ENDED,
    "X": _ENDED,
    "": _ENDED,
}
"""By the letter of proc(5); none: there is no such process."""


def _state(pid: int) -> str | None:
    """The process's state as one letter; None when there is none."""
    try:
        # The name before it is in brackets and may hold anything, brackets too.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1].decode("ascii")
    except OSError:
        return None


def _with_descendants(pids: Iterable[int]) -> tuple[int, ...]:
    family: list[int] = []
    for pid in pids:
        family.append(pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return tuple(family)
