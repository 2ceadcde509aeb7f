"""Whether the engine's processes can run at all: asked of the operating system, not of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable

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
