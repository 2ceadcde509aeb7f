"""What a running platform says about itself over HTTP, and what is known of a change of its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tradewind.rayapi.app_status import AppStatus


@dataclass(frozen=True, slots=True)
class DeploymentLive:
    """One ModelDeployment as a gateway sees it."""

    replicas: int
    """In rotation: healthy by the gateway's own probes."""
    context_length: int | None = None
    """Tokens; None until a replica has told."""


@dataclass(frozen=True, slots=True)
class GatewayLive:
    """One gateway's `/readyz`."""

    revision: str
    """Of the configuration in force there."""
    deployments: Mapping[str, DeploymentLive] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """What could be read of one ServingCluster."""

    apps: Mapping[str, AppStatus] | None = None
    """Serve's applications; None: its API could not be reached."""
    gateway: GatewayLive | None = None
    """None: no gateway could be reached."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Application → digest of the engine settings that it was deployed with, as far as it is known:
    `api.app_status.deployed_revisions` of the same document as `apps`."""


class UpgradeState(Enum):
    """How far a change is that needs a second Ray cluster; the value is the condition's reason."""

    NONE = "NoUpgrade"
    NEEDED = "Needed"
    HELD = "Held"
    IN_PROGRESS = "InProgress"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What `plan` found out about a second Ray cluster."""

    state: UpgradeState = UpgradeState.NONE
    reasons: tuple[str, ...] = ()
    """What must change and cannot in the running cluster."""
    gpus: int = 0
    """GPUs that the second cluster takes beside the first."""
