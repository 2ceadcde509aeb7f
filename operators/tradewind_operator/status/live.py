"""What running Ray clusters say about themselves over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tradewind.rayapi.app_status import AppStatus
from tradewind_operator.planning.moves import Moves


@dataclass(frozen=True, slots=True)
class AdapterLive:
    """One LoRA adapter: replicas by how they have it."""

    ready: int = 0
    loading: int = 0
    failed: int = 0
    message: str = ""
    """What one of them waits for, or why it failed."""


@dataclass(frozen=True, slots=True)
class DeploymentLive:
    """One ModelDeployment as a gateway sees it."""

    replicas: int
    """In rotation: healthy by the gateway's own probes."""
    context_length: int | None = None
    """Tokens; None until a replica has told."""
    adapters: Mapping[str, AdapterLive] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unread:
    """An entry of the configuration in force that the gateway's release cannot read."""

    kind: str
    """deployment, route or tenant."""
    name: str
    why: str
    kept: bool
    """It goes on as it was before; else there is none."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {'goes on as it was' if self.kept else 'is left out'} ({self.why})"


@dataclass(frozen=True, slots=True)
class GatewayLive:
    """One gateway's `/readyz`."""

    revision: str
    """Of the configuration in force there."""
    deployments: Mapping[str, DeploymentLive] = field(default_factory=dict)
    refused: str = ""
    """Revision of a configuration that was sent since and is not in force; empty: there is none."""
    why: str = ""
    """Why it was refused."""
    unread: tuple[Unread, ...] = ()
    """As many as the gateway tells of."""

    def unread_entry(self, kind: str, name: str) -> Unread | None:
        """What the gateway says of an entry that it cannot read; None when it can."""
        return next((each for each in self.unread if (each.kind, each.name) == (kind, name)), None)


@dataclass(frozen=True, slots=True)
class Live:
    """What could be read of one Ray cluster."""

    apps: Mapping[str, AppStatus] | None = None
    """Serve's applications; None: its API could not be reached."""
    gateway: GatewayLive | None = None
    """None: no gateway could be reached."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Application → digest of the engine settings that it was deployed with, as far as it is known:
    `rayapi.app_status.deployed_revisions` of the same document as `apps`."""
    moves: Moves = field(default_factory=Moves)
    """Which worker groups its applications are on, and which are on their way."""
    placed: frozenset[str] | None = None
    """Worker groups that an application is on or was sent to; None: Serve did not say."""
    problem: str = ""
    """Why Serve could not be asked, or did not take the configuration."""
    sent: bool = False
    """It was given a configuration just now, which has not had the time to take effect."""
