"""Whether the engine's processes can run at all: asked of the operating system, not of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil


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


def process_problem(pids: Iterable[int]) -> str | None:
    """What is wrong with the first of these processes or their descendants that cannot run; else None."""
    for pid in pids:
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
            for process in family:
                if problem := _STATES.get(process.status()):
                    return f"engine process {process.pid} {problem}"
        except psutil.NoSuchProcess as gone:
            if gone.pid == pid:
                return f"engine process {pid} has ended"
    return None


_STATES = {
    psutil.STATUS_STOPPED: "is stopped",
    psutil.STATUS_TRACING_STOP: "is stopped by a debugger",
    psutil.STATUS_ZOMBIE: "has ended",
    psutil.STATUS_DEAD: "has ended",
}
