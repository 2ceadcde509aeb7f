"""A peer that runs: started with every place filled in, asked until it answers, ended with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil

from tests.bench.load import CHAT_PATH
from tests.bench.peers.install import reason
from tests.bench.peers.peer import Peer, Place, start_of
from tests.bench.peers.way import Way

_STOP_S = 10.0
_STEP_S = 0.25
_LOG = "said.log"
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")


class NotStarted(Exception):
    """It ended, or never answered; the message ends with what it said last."""


def free_ports(count: int) -> list[int]:
    """So many different ports of loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def environment(own: Mapping[str, str], work: Path) -> dict[str, str]:
    """Little of ours: no proxy, key or PYTHONPATH gets to a peer, and what it keeps is in `work`."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "HOME": str(work), "PYTHONDONTWRITEBYTECODE": "1", **own}


class Running:
    """One start of a peer. `end` it."""

    def __init__(self, peer: Peer, env: Path, work: Path, engines: tuple[int, int]) -> None:
        port, admin = free_ports(2)
        start = start_of(peer, Place(env, work, port, admin, engines, sys.version_info[:2]))
        for name, text in start.files.items():
            (work / name).write_text(text)
        self._peer, self._port, self._log = peer, port, work / _LOG
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                start.command,
                cwd=work,
                env=environment(start.environ, work),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._seen = {self._process.pid: psutil.Process(self._process.pid)}

    def way(self) -> Way:
        return Way(self._peer.name, self._port, self.pids, model=self._peer.model)

    def pids(self) -> list[int]:
        """Its processes: itself and all descendants."""
        root = self._seen[self._process.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= {child.pid: child for child in root.children(recursive=True)}
        return [process.pid for process in self._seen.values() if process.is_running()]

    def until_ready(self) -> None:
        """Return when it has answered a request. Raises NotStarted."""
        deadline = time.monotonic() + self._peer.ready_s
        body = {
            "model": self._peer.model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
        }
        last = ""
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    raise NotStarted(f"ended with {self._process.returncode}: {self._said()}")
                try:
                    answer = client.post(f"http://127.0.0.1:{self._port}{CHAT_PATH}", json=body)
                except httpx.HTTPError:
                    pass
                else:
                    if answer.status_code == httpx.codes.OK and "choices" in answer.text:
                        return
                    last = f"{answer.status_code} {answer.text[:200]} "
                time.sleep(_STEP_S)
        raise NotStarted(f"no answer within {self._peer.ready_s:.0f} s: {last}{self._said()}")

    def _said(self) -> str:
        return reason(self._log.read_text(errors="replace"))[-500:]

    def end(self) -> None:
        """End it and all that it started; those that do not heed it are killed."""
        self.pids()
        left = [process for process in self._seen.values() if process.is_running()]
        _signal(left, signal.SIGTERM)
        _, left = psutil.wait_procs(left, _STOP_S)
        _signal(left, signal.SIGKILL)
        psutil.wait_procs(left, _STOP_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
