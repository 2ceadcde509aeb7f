"""Has the peers' programs: each in an environment of its own in the tests' cache, never in the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers.peer import GoProgram, Peer
from tools.cluster_binaries import cache_dir

_TIMEOUT_S = 900.0
_READY = "ready"
_SAID_LINES = 3


class NotInstalled(Exception):
    """Why a peer's program cannot be had."""


def home_of(peer: Peer, cache: Path) -> Path:
    """Its environment: another one for other pins or another Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(f"{python} {peer.install.pins}".encode()).hexdigest()[:8]
    word = peer.install.pins.split("/")[-1]
    name = "".join(each if each.isalnum() or each in ".-" else "-" for each in word)
    return cache / "peers" / f"{name}-{digest}"


def obtain(peer: Peer, cache: Path | None = None) -> Path:
    """The directory of a peer's environment; made first when missing, by one process at a time.

    Raises:
        NotInstalled: with the last words of pip or Go.
    """
    home = home_of(peer, cache or cache_dir())
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name(home.name + ".lock")):
        if not (home / _READY).exists():
            shutil.rmtree(home, ignore_errors=True)
            if isinstance(peer.install, GoProgram):
                _build(home, peer.install)
            else:
                _fill(home, peer.install.requirements)
            (home / _READY).touch()
    return home


def _fill(home: Path, requirements: Sequence[str]) -> None:
    _do([sys.executable, "-m", "venv", str(home)], os.environ)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    # A cap in pip's own configuration is for the checkout's environment.
    environ = os.environ | {"PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    _do([*pip, *requirements], {name: text for name, text in environ.items() if name != "PYTHONPATH"})


def _build(home: Path, program: GoProgram) -> None:
    go = shutil.which("go")
    if go is None:
        raise NotInstalled("no Go on PATH")
    switches = {"GOBIN": str(home / "bin"), "GOWORK": "off", "GOFLAGS": ""}
    _do([go, "install", program.pins], os.environ | switches)


def _do(command: Sequence[str], environ: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{Path(command[0]).name} took over {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise NotInstalled(reason(done.stdout + done.stderr) or f"exit code {done.returncode}")


def reason(said: str) -> str:
    """The last lines of what a tool said, as one, without the addresses of registries."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = " ".join(lines[-_SAID_LINES:]).split()
    return " ".join("(a registry)" if "://" in word else word for word in words)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
