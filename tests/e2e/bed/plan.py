"""Where everything of the test bed is: nodes and their addresses, and the folder of one running cluster.

Every machine of the cluster (the control plane and each node) has a network namespace of its own, joined by a
bridge in the control plane's. The machine that runs the tests is a neighbour on that bridge: it reaches the
API server, services and pods, and pods reach servers that a test runs at `HOST`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tools.cluster_binaries import cache_dir

CONTROL_PLANE = "control-plane"
API = "10.210.0.1"
"""The control plane, the API server and the bridge."""
HOST = "10.210.0.254"
"""The machine that runs the tests, as pods see it."""
API_PORT = 6443
PREFIX = 24
PODS = "10.211.0.0/16"
SERVICES = "10.96.0.0/16"
DNS = "10.96.0.10"
FIRST_SERVICE = "10.96.0.1"
HOST_LINK = "tradewind-e2e"
"""The machine's interface to the cluster; there is one bed at a time on a machine."""


@dataclass(frozen=True)
class Node:
    """One node, and how much of the machine it offers to pods."""

    name: str
    number: int
    cpus: float
    memory_gib: float
    labels: dict[str, str] = field(default_factory=dict)
    taint: str = ""
    """`key=value:effect`, or none."""

    @property
    def address(self) -> str:
        return f"10.210.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The subnet of its pods."""
        return f"10.211.{self.number}.0/24"


ENGINE_LABEL = "tradewind.dev/e2e-pool"
NODES = (
    # Room for the heads and the gateways of two Ray clusters.
    Node("node-a", 1, 2, 11),
    Node("node-b", 2, 2, 11),
    # As a GPU pool would be: what is not meant for it does not land there.
    Node("node-c", 3, 2, 10, {ENGINE_LABEL: "engines"}, f"{ENGINE_LABEL}=engines:NoSchedule"),
    Node("node-d", 4, 2, 10, {ENGINE_LABEL: "engines"}, f"{ENGINE_LABEL}=engines:NoSchedule"),
)


@dataclass(frozen=True)
class Home:
    """The folder of the running cluster, in the cache outside the checkout."""

    path: Path

    @property
    def state(self) -> Path:
        """Which processes run; written as they start."""
        return self.path / "state.json"

    @property
    def admin(self) -> Path:
        """The kubeconfig of one who may do anything."""
        return self.path / "kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.path / "certificates"

    @property
    def audit_log(self) -> Path:
        return self.path / CONTROL_PLANE / "audit.log"

    @property
    def volumes(self) -> Path:
        """What persistent volumes hold; every node sees it, so that a volume can follow its pod."""
        return self.path / "volumes"

    def of(self, machine: str) -> Path:
        """What one machine writes: logs, configuration, state."""
        return self.path / machine


def home() -> Home:
    """The folder of the one cluster of this user."""
    return Home(cache_dir() / "e2e" / "cluster")
