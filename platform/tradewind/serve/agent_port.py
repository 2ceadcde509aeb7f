"""Tells Ray's node the port of its agent.

A raylet waits fifteen seconds, which no setting changes, until the Python process beside it has written a
file with the port that it listens on, and ends without. On a node that is busy, or reads an image's files
for the first time, that process needs longer. `ray start` hands the raylet every such port but this one,
though it is given; so the file is written for the agent, which later writes the same.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_GIVEN: Final = re.compile(r"--dashboard-agent-listen-port[= ](\d+)")
_RAYLET: Final = "/raylet/raylet"
_FILE: Final = "dashboard_agent_listen_port_{node}"
_POLL_S: Final = 0.25
_LONGEST_S: Final = 600.0


def tell_agent_port(pid: int, command: str) -> None:
    """Write the port that `command`, a `ray start`, gives the agent, once a raylet is below process `pid`.

    Returns when that is done, when the process has ended, after ten minutes, or at once if no port is given.
    """
    given = _GIVEN.search(command)
    if given is None:
        return
    until = time.monotonic() + _LONGEST_S
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while time.monotonic() < until and process.is_running():
            if (file := _port_file(process)) is not None:
                _write(file, given[1])
                return
            time.sleep(_POLL_S)


def _port_file(process: psutil.Process) -> Path | None:
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            program, *arguments = child.cmdline() or [""]
            if program.endswith(_RAYLET):
                options = dict(argument.lstrip("-").partition("=")[::2] for argument in arguments)
                return Path(options["session_dir"]) / _FILE.format(node=options["node_id"])
    return None


def _write(file: Path, port: str) -> None:
    if file.exists():
        return
    half = file.with_suffix(".new")
    with suppress(OSError):  # then the agent writes it, as ever
        half.write_text(port)
        half.rename(file)
