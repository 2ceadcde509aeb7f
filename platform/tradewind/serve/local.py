"""A platform on this machine: a private Ray with Serve, started and stopped by one process.

Ray is started inside the calling process, so that its daemons die with it however it ends. Only
`LocalPlatform.start` imports Ray, after the environment is in place: Ray reads its settings when it
is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tradewind import home
from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.rayapi.client import ControlError, ServeControl
from tradewind.serve import local_gcs, loopback
from tradewind.serve.runfile import lives
from tradewind.serve.starting import PATIENCE, StartFailed, start_patiently

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
GCS = "gcs_server"
DAEMONS = ("raylet", GCS)
HEALS_AFTER_S = 60.0
"""A GCS that dies again within this time is not started a second time."""
KEPT_SESSIONS = 2
STOP_S = 15.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Requests do not travel through Ray's object store; this is near the least Ray accepts."""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to start the platform.

    `cpus` is what Ray may hand out; it is bookkeeping, not a limit, so that two engines fit a
    laptop. GPUs are those that Ray finds. Ports are where to begin to look: one that is taken is
    passed over, so that several platforms (with a state directory and an endpoint each) fit one machine.
    """

    home: Path
    cpus: int
    ports: Ports = field(default_factory=Ports)
    dashboard_port: int = 8265
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray labels of this machine, so that it can stand for a pool of nodes."""


class PortInUse(Exception):
    """Another process listens where the platform wants to."""


def check_port(host: str, port: int) -> None:
    """Raise PortInUse when nothing more can listen on `host:port`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(f"port {port} on {host} is in use by another program") from error


def free_port(first: int, taken: Collection[int] = (), tries: int = 100) -> int:
    """The first port from `first` on that is free on loopback and not in `taken`.

    Raises:
        PortInUse: none of `tries` ports is.
    """
    for port in range(first, min(first + tries, 65_536)):
        with contextlib.suppress(PortInUse):
            if port not in taken:
                check_port("127.0.0.1", port)
                return port
    raise PortInUse(f"ports {first} to {first + tries - 1} on 127.0.0.1 are in use by other programs")


def run_dir(state: Path) -> Path:
    """A short private directory for sockets, the same for the same state directory."""
    tag = hashlib.blake2b(str(state.resolve()).encode(), digest_size=4).hexdigest()
    return Path(tempfile.gettempdir()) / f"tradewind-{os.getuid()}-{tag}"


class LocalPlatform:
    """Ray and Serve in this process' care. Use as a context manager: leaving stops everything."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._control: ServeControl | None = None
        self._dashboard_port = options.dashboard_port
        self._daemons: dict[psutil.Process, str] = {}
        self._heals_from = 0.0
        self.dashboard_url = ""

    def start(self, tell: Callable[[str], object]) -> None:
        """Start Ray and the Serve controller's API; returns when the API answers.

        Args:
            tell: is given a line for people when Ray was too slow for itself and is started again.

        Raises:
            PortInUse: no port for the dashboard is free.
            ControlError: Ray could not be started.
        """
        options = self._options
        _adopt_orphans()
        self._dashboard_port = free_port(options.dashboard_port)
        runtime = _owned_private_dir(run_dir(options.home))
        _prune_sessions(runtime / "ray")
        ray_token = home.ensure_secret(options.home / "ray-token")
        home.ensure_secret(options.home / home.INTERNAL_TOKEN)
        os.environ.update(ray_environment(token_file=options.home / "ray-token", ports=options.ports))
        os.environ.update(
            {
                home.HOME: str(options.home),
                home.CACHE: str(home.cache_dir()),
                home.TOKEN_FILE: str(options.home / home.INTERNAL_TOKEN),
                **loopback.ENVIRONMENT,
            }
        )
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            address = start_patiently(lambda: self._start_ray(runtime), _clear(_descendants()), tell)
        except StartFailed as error:
            raise ControlError(f"Ray did not start: {error}") from error
        self._find_daemons()
        self.dashboard_url = f"http://{address}"
        self._control = ServeControl(self.dashboard_url, ray_token)

    def _start_ray(self, runtime: Path) -> str:
        """Host and port of the dashboard."""
        os.environ.update(local_gcs.gcs_environment(runtime / "gcs"))
        import ray

        context = ray.init(
            num_cpus=self._options.cpus,
            labels=dict(self._options.labels),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=True,
            dashboard_host=loopback.ADDRESS,
            dashboard_port=self._dashboard_port,
            log_to_driver=False,
            logging_level="warning",
            _node_ip_address=loopback.ADDRESS,
            _temp_dir=str(runtime / "ray"),
        )
        return str(context.dashboard_url)

    def _find_daemons(self) -> None:
        self._daemons = {
            child: child.name() for child in psutil.Process().children() if child.name() in DAEMONS
        }

    def dead(self) -> list[str]:
        """Names of Ray's daemons that have died since the start."""
        return sorted(name for process, name in self._daemons.items() if not lives(process))

    def heal(self) -> bool:
        """Start the GCS anew if it alone has died, and not just after it was started anew.

        Requests go on without it; changes wait. Whether it was started.
        """
        if self.dead() != [GCS] or time.monotonic() < self._heals_from:
            return False
        local_gcs.start_again()
        self._heals_from = time.monotonic() + HEALS_AFTER_S
        self._find_daemons()
        return True

    @property
    def control(self) -> ServeControl:
        if self._control is None:
            raise RuntimeError("the platform has not been started")
        return self._control

    def apply(self, serve_config: Mapping[str, Any]) -> None:
        """Make `serve_config` the desired state. See `ServeControl.apply`."""
        self.control.apply(serve_config)

    def stop(self) -> None:
        """Stop every application and Ray. Safe to call twice; leaves no process behind."""
        import ray
        from ray import serve

        children = _descendants()
        if self._control is not None:
            self._control.close()
            self._control = None
        if ray.is_initialized():
            # A stream may go on for as long as its deployment's drain timeout: whoever stops a whole
            # platform does not want to wait for that.
            _within(STOP_S, serve.shutdown)
            _within(STOP_S, ray.shutdown)
        _end(children)

    def __enter__(self) -> LocalPlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _clear(before: Collection[psutil.Process]) -> Callable[[], None]:
    """Ends what a start of Ray has left: all but the processes there were `before`."""

    def clear() -> None:
        import ray

        _within(STOP_S, ray.shutdown)
        _end([process for process in _descendants() if process not in before])

    return clear


def _within(seconds: float, action: Callable[[], object]) -> None:
    """Run `action` in a thread, for `seconds` at most; what it raises is of no use while stopping."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            action()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(seconds)


def _owned_private_dir(path: Path) -> Path:
    """`path` as a private directory; refuses one that somebody else made there."""
    directory = home.private_dir(path)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise ControlError(f"{path} belongs to another user")
    return directory


def _prune_sessions(directory: Path) -> None:
    """Take away Ray's logs and sockets of all but the last few starts.

    Ray keeps every session for ever. Only called while no platform uses the directory.
    """
    sessions = [path for path in directory.glob("session_2*") if path.is_dir() and not path.is_symlink()]
    for path in sorted(sessions)[:-KEPT_SESSIONS]:
        shutil.rmtree(path, ignore_errors=True)


def _adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies.

    When a daemon of Ray is killed, its workers would otherwise escape the clean-up.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants() -> list[psutil.Process]:
    """Every process below this one, grandchildren that Ray's daemons started included."""
    return psutil.Process().children(recursive=True)


def _end(processes: list[psutil.Process], grace_s: float = 5.0) -> None:
    """Wait for `processes` to end, then end those that remain."""
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)
