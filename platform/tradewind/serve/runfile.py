"""The facts of the running local platform, so that other commands find it.

One small JSON file in the state directory. It is only believed while the process it names lives:
the process id alone could have been given to another program since.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import psutil

from tradewind import home


class NotRunning(Exception):
    """No platform runs with this state directory."""


class AlreadyRunning(Exception):
    """A platform runs already with this state directory."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """What other commands need to know of a running platform."""

    pid: int
    process_started: float
    """Seconds since the epoch, as the operating system counts."""
    dashboard_url: str
    host: str
    """What the gateway listens on; a change needs a restart."""
    port: int
    endpoint: str
    """Base URL by which this machine reaches it, without `/v1`."""
    metrics_url: str
    anonymous: bool
    files: list[str]
    """Manifests in force."""
    environment: dict[str, str]
    """OTEL_* variables that the manifests stood for at the start; they cannot change while it runs."""

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.process_started) < 1.0 and lives(process)
        except psutil.NoSuchProcess:
            return False


def lives(process: psutil.Process) -> bool:
    """A process that has ended but that its parent has not asked about (a zombie) is gone for us."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _path(state: Path) -> Path:
    return state / "run.json"


def write(state: Path, run: RunFile) -> None:
    home.write_private(_path(state), msgspec.json.encode(asdict(run)).decode())


def remove(state: Path) -> None:
    _path(state).unlink(missing_ok=True)


def read(state: Path) -> RunFile:
    """The running platform of `state`.

    Raises:
        NotRunning: there is none; a file that a dead process left is taken away.
    """
    try:
        run = msgspec.json.decode(_path(state).read_bytes(), type=RunFile)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise NotRunning(f"no platform is running (state directory {state})") from None
    if not run.alive:
        remove(state)
        raise NotRunning(f"no platform is running (state directory {state})")
    return run


def refuse_second(state: Path) -> None:
    """Raise AlreadyRunning when `state` is in use."""
    try:
        run = read(state)
    except NotRunning:
        return
    raise AlreadyRunning(f"a platform is already running at {run.endpoint} (process {run.pid})")


def this_process() -> tuple[int, float]:
    """Process id and start time of the calling process."""
    process = psutil.Process()
    return process.pid, process.create_time()
