"""What the kernel counts of processes: CPU time, memory, who they are."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_GIB = 1024**3
_SCHEDULED = 2
"""Linux's CPUCLOCK_SCHED: what the scheduler counted, user and system, to the nanosecond."""


def cpu_s(pids: list[int]) -> float:
    """CPU seconds of `pids`, user and system: all their threads, those that have ended too.

    Raises:
        ProcessLookupError: one of them is gone.
    """
    total = 0.0
    for pid in pids:
        try:
            # The kernel's clock of another process, numbered as clock_getcpuclockid(3) does it: /proc counts
            # in hundredths of a second, which is more than a cheap proxy takes for some hundred requests.
            total += time.clock_gettime((~pid << 3) | _SCHEDULED)
        except OSError as error:
            raise ProcessLookupError(f"process {pid} has ended") from error
    return total


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a set of processes, in bytes. `pss` counts a shared page once, `rss` once for each process."""

    rss: int
    pss: int
    processes: int

    @property
    def rss_gib(self) -> float:
        return self.rss / _GIB

    @property
    def pss_gib(self) -> float:
        return self.pss / _GIB


def memory(processes: list[psutil.Process]) -> Memory:
    """Processes that end meanwhile count as nothing."""
    rss = pss = count = 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB", rollup, flags=re.M))
        rss += int(sizes.get("Rss", 0)) * 1024
        pss += int(sizes.get("Pss", 0)) * 1024
        count += 1
    return Memory(rss, pss, count)


def family(pid: int, state: Path) -> list[psutil.Process]:
    """The processes of the platform that process `pid` started, itself included.

    Its descendants, and whoever lost its parent but has `state` as TRADEWIND_HOME in its environment
    (Ray's workers write their title over theirs, so that the environment alone would not do).
    """
    root = psutil.Process(pid)
    found = {process.pid: process for process in (root, *root.children(recursive=True))}
    mark = f"TRADEWIND_HOME={state}".encode()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.setdefault(process.pid, process)
    return list(found.values())


def replicas(processes: list[psutil.Process], app: str) -> list[psutil.Process]:
    """The replica processes of a Serve application."""
    return [each for each in processes if title(each).startswith(f"ray::ServeReplica:{app}:")]


def replica(processes: list[psutil.Process], app: str) -> psutil.Process:
    """The only one. Raises LookupError."""
    found = replicas(processes, app)
    if len(found) != 1:
        raise LookupError(f"{len(found)} replica processes of {app}")
    return found[0]


def title(process: psutil.Process) -> str:
    """First word of the command line, which Ray sets; empty when the process is gone."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return words[0] if words else ""


def listening_port(process: psutil.Process, ports: range) -> int:
    """The port in `ports` that a process listens on. Raises LookupError."""
    for connection in process.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports:
            return int(connection.laddr.port)
    raise LookupError(f"process {process.pid} listens on no port of the replicas")
