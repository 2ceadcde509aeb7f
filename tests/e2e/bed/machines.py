"""Machines of the cluster: namespaces in which programs run as on a computer of their own.

A machine is one process, the first of its own pid, mount and network namespaces. When it is killed the kernel
kills everything that runs there and takes away its mounts, interfaces and firewall rules, so that the loss of
a node is one signal, and so is cleaning up. It has folders of its own at /run, /var/lib and /var/log, and
sees the rest of this machine's files.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import die_with_parent

FIRST = "catatonit"
"""Its first process: waits, and reaps what others left behind."""
OWN_FOLDERS = ("/var/lib", "/var/log")
START_S = 10.0
SAID_LINES = 30
"""Last lines of a command that failed; building an image prints hundreds."""


class MachineError(Exception):
    """A machine did not start, or a command on it failed; with what was said."""


@dataclass(frozen=True)
class Machine:
    """A machine that runs: `outer` is the process that keeps it, `first` its own first; this host's pids."""

    name: str
    outer: int
    first: int
    born: int
    """When `outer` started, in the kernel's ticks: a pid alone may be somebody else's by now."""

    @property
    def alive(self) -> bool:
        return born(self.outer) == self.born

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as one that runs on this machine."""
        where = ["--mount", "--net", "--pid", "--wd=/"]
        return ["nsenter", f"--target={self.first}", *where, "--", *command]

    def path(self, path: str) -> Path:
        """A file of this machine, as this host sees it."""
        return Path(f"/proc/{self.first}/root{path}")

    def run(self, *command: str, given: str | None = None) -> str:
        """Run to its end what takes a moment; what it printed. Raises MachineError."""
        return run(self.inside(command), given)

    def kill(self) -> None:
        """Switch it off: returns once nothing of it runs."""
        if self.alive:
            kill_and_wait(self.outer)


def run(command: Sequence[str], given: str | None = None) -> str:
    """Run to its end, with `given` as its input; what it printed. Raises MachineError."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(f"{done.stdout}{done.stderr}".strip().splitlines()[-SAID_LINES:])
        raise MachineError(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.stdout


def start_machine(name: str, folder: Path, *, outlives_us: bool) -> Machine:
    """Start the machine called `name`, with what it writes in `folder`. Raises MachineError.

    Args:
        outlives_us: whether it stays when the process that called this ends; else the kernel ends it too.
    """
    for own in OWN_FOLDERS:
        (folder / own.strip("/")).mkdir(parents=True, exist_ok=True)
    binds = "".join(f"mount --bind {folder / own.strip('/')} {own}; " for own in OWN_FOLDERS)
    script = f"set -e; {binds} mount -t tmpfs -o mode=755 run /run; exec {FIRST} -P"
    namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "machine.log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", *namespaces, "--propagation=private", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=None if outlives_us else die_with_parent,
        )
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        for child in children(process.pid):
            if command_of(child) == FIRST:
                # It is known by its pid from here: Python is not to warn that nobody waits for it.
                process.returncode = 0
                return Machine(name, process.pid, child, born(process.pid))
        time.sleep(0.01)
    raise MachineError(f"{name} did not start: {(folder / 'machine.log').read_text(errors='replace')}")


def children(pid: int) -> list[int]:
    """Processes that `pid` started; none when it has ended."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def command_of(pid: int) -> str:
    """The name of the program that `pid` runs; empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def born(pid: int) -> int:
    """When `pid` started, in ticks since the machine did; 0 when it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    return 0


def kill_and_wait(pid: int, timeout_s: float = 30.0) -> None:
    """Kill a process that may be a child of ours or not; returns once it is gone. Raises MachineError."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout_s
    while born(pid):
        if time.monotonic() > deadline:
            raise MachineError(f"process {pid} ({command_of(pid)}) did not end within {timeout_s:.0f} s")
        time.sleep(0.01)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
