"""What is kept between two reconciles of one ServingCluster. Losing it costs requests, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from tradewind.compiler.secret_names import SecretUse
from tradewind_operator.credentials import Credentials
from tradewind_operator.kinds import CUSTOM, Resource
from tradewind_operator.planning.objects import Observed
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.namespace import Documents, Namespace
from tradewind_operator.policy.secrets import SecretValues, WantedSecret
from tradewind_operator.status.live import Live
from tradewind_operator.status.pods import PodSeen

NEVER = float("-inf")


@dataclass(slots=True)
class Memory:
    """Of one ServingCluster."""

    stale: set[Resource] = field(default_factory=lambda: set(CUSTOM))
    """Kinds of which a custom resource of the namespace has changed since they were listed."""
    documents: Documents | None = None
    """The custom resources as they were listed, with what the operator itself wrote since then."""
    listed_all: bool = False
    """All of them were listed at the same time."""
    full_at: float = NEVER
    """When everything was looked at last."""
    secrets_at: float = NEVER
    """When people's Secrets were read last."""
    credentials: Credentials | None = field(default=None, repr=False)
    wanted: frozenset[WantedSecret] = frozenset()
    secrets: SecretValues = field(default_factory=dict)
    """What was read of `wanted`: whether it is there, and its hash."""
    tokens: frozenset[SecretUse] | None = None
    """What `NAME-tokens` was written for; None: not looked at."""
    decision: Decision | None = None
    namespace: Namespace | None = None
    """What the documents were read as."""
    observed: Observed = field(default_factory=dict)
    pods: tuple[PodSeen, ...] | None = None
    """As they were listed last; None: they could not be."""
    lives: dict[str, Live] = field(default_factory=dict)
    """What each RayCluster said last."""
    answered: dict[str, float] = field(default_factory=dict)
    """When a gateway of each was reached last, or first looked for."""
    storage_class_exists: bool = False
    """Whether the Kubernetes cluster has a default StorageClass."""
    earlier: str | None = None
    """RayService of an earlier release."""
    look_at: float = NEVER
    """When the Ray clusters are to be looked at next."""

    @property
    def changed(self) -> bool:
        """The decision is old."""
        return bool(self.stale)

    def mark(self, *kinds: Resource) -> None:
        """Custom resources have changed: of these kinds or, without any, of all."""
        self.stale |= set(kinds or CUSTOM)

    def distrust(self) -> None:
        """Look at everything anew next time."""
        self.mark()
        self.full_at = self.look_at = NEVER
