from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tradewind.serve.agent_port import tell_agent_port

COMMAND = "ray start --head --dashboard-agent-listen-port=52365 --block"
SLEEPS = "import time; time.sleep(60)"


@contextmanager
def node(session: Path) -> Iterator[int]:
    """A process with a child that is called as Ray's raylet is; the pid of the former."""
    options = f"--node_id=4f --session_dir={shlex.quote(str(session))}"
    child = f"exec -a /opt/ray/raylet/raylet {sys.executable} -c {shlex.quote(SLEEPS)} {options}"
    process = subprocess.Popen(["/bin/bash", "-c", f"({child}) & wait"])
    while not psutil.Process(process.pid).children():
        time.sleep(0.005)
    try:
        yield process.pid
    finally:
        for each in (*psutil.Process(process.pid).children(), process):
            each.kill()
        process.wait()


def test_a_given_port_is_in_the_file_that_the_raylet_waits_for(tmp_path: Path) -> None:
    with node(tmp_path) as pid:
        tell_agent_port(pid, COMMAND)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "dashboard_agent_listen_port_4f": "52365"
    }


def test_what_the_agent_wrote_stays(tmp_path: Path) -> None:
    file = tmp_path / "dashboard_agent_listen_port_4f"
    file.write_text("1")
    with node(tmp_path) as pid:
        tell_agent_port(pid, COMMAND)
    assert file.read_text() == "1"


def test_without_a_port_nothing_is_done(tmp_path: Path) -> None:
    with node(tmp_path) as pid:
        tell_agent_port(pid, "ray start --head")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_has_ended_is_not_waited_for() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    tell_agent_port(process.pid, COMMAND)
