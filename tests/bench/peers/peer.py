"""What a peer is: a value that says how it is installed, configured, started and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

MODEL = "bench"
"""The model's name in requests, as the fake engine has it."""


@dataclass(frozen=True, slots=True)
class Wheels:
    """From the registry that pip is configured for, into an environment of its own."""

    requirements: tuple[str, ...]

    @property
    def pins(self) -> str:
        return " ".join(self.requirements)


@dataclass(frozen=True, slots=True)
class GoProgram:
    """Built by Go from a module, which comes from where GOPROXY says."""

    package: str
    version: str

    @property
    def pins(self) -> str:
        return f"{self.package}@{self.version}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another proxy for models. Words of `command`, `files` and `environ` may hold the places of `Place`."""

    name: str
    version: str
    what: str
    """How it is set up here, in a few words for the table's legend."""
    install: Wheels | GoProgram
    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Name to contents, written into the working directory before the start."""
    environ: Mapping[str, str] = field(default_factory=dict)
    model: str = MODEL
    ready_s: float = 120.0
    """At most, from its start to its first answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one start of a peer happens."""

    env: Path
    """Its environment; `$site` is the site-packages in it, `$bin` its programs."""
    work: Path
    """Its working directory, HOME too."""
    port: int
    """It answers here: `$port`."""
    admin: int
    """Another free port, for metrics and the like: `$admin`."""
    engines: tuple[int, int]
    """The fake engine's two ports: `$engine1`, `$engine2`."""
    python: tuple[int, int]

    def words(self) -> dict[str, str]:
        major, minor = self.python
        return {
            "bin": str(self.env / "bin"),
            "site": str(self.env / "lib" / f"python{major}.{minor}" / "site-packages"),
            "work": str(self.work),
            "port": str(self.port),
            "admin": str(self.admin),
            "engine1": str(self.engines[0]),
            "engine2": str(self.engines[1]),
        }


@dataclass(frozen=True, slots=True)
class Start:
    """A peer's start with every place filled in."""

    command: list[str]
    files: dict[str, str]
    environ: dict[str, str]


def start_of(peer: Peer, place: Place) -> Start:
    """Raises KeyError or ValueError where a template names a place that there is not."""
    words = place.words()

    def fill(text: str) -> str:
        return Template(text).substitute(words)

    return Start(
        [fill(word) for word in peer.command],
        {name: fill(text) for name, text in peer.files.items()},
        {name: fill(text) for name, text in peer.environ.items()},
    )
