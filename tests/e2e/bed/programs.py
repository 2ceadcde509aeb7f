"""Programs on the machines of the cluster, known by name, also to a process that did not start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from tests.cluster.processes import ProgramEnded
from tests.e2e.bed.machines import Machine, born, children, kill_and_wait

KEPT_LINES = 20
POLL_S = 0.05


@dataclass(frozen=True)
class Program:
    """A program that runs on a machine."""

    name: str
    machine: str
    entered: int
    """The process on this host that waits for it; the program is its child."""
    born: int
    command: tuple[str, ...]
    log: str

    @property
    def alive(self) -> bool:
        return born(self.entered) == self.born

    @property
    def pid(self) -> int:
        """The program's own, by this host's count; 0 when it has ended."""
        return next(iter(children(self.entered)), 0) if self.alive else 0

    def tail(self) -> str:
        """The last lines that it printed."""
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-KEPT_LINES:])

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return once `ready`. Raises ProgramEnded."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise ProgramEnded(f"{self.name} on {self.machine} ended:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProgramEnded(f"{self.name} was not ready within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        """A signal to the program; to one that has ended, nothing."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it as a crash would; returns once it is gone."""
        if pid := self.pid:
            kill_and_wait(pid)


def start_program(machine: Machine, name: str, command: Sequence[str], folder: Path) -> Program:
    """Start `command` on `machine`; what it prints goes on in `folder`/`name`.log."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            machine.inside(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    program = Program(name, machine.name, process.pid, born(process.pid), tuple(command), str(log))
    # It may outlive this process, and is known by its pid: Python is not to warn that nobody waits for it.
    process.returncode = 0
    return program


class Register:
    """Which machines and programs run, in a file that is current at every moment.

    So the next process can go on with them or end them, whatever became of this one.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = Lock()
        self.machines: dict[str, Machine] = {}
        self.programs: dict[tuple[str, str], Program] = {}

    @classmethod
    def read(cls, file: Path) -> Register:
        """What the file says; empty where there is none."""
        found = cls(file)
        if file.exists():
            content = json.loads(file.read_text())
            found.machines = {each["name"]: Machine(**each) for each in content["machines"]}
            programs = (
                Program(**{**each, "command": tuple(each["command"])}) for each in content["programs"]
            )
            found.programs = {(each.machine, each.name): each for each in programs}
        return found

    def add(self, entry: Machine | Program) -> None:
        """Note one that has started, in place of an earlier one of that name."""
        with self._writing:
            if isinstance(entry, Machine):
                self.machines[entry.name] = entry
            else:
                self.programs[entry.machine, entry.name] = entry
            content = {
                "machines": [asdict(each) for each in self.machines.values()],
                "programs": [asdict(each) for each in self.programs.values()],
            }
            written = self._file.with_suffix(".new")
            written.write_text(json.dumps(content, indent=1))
            written.replace(self._file)
