"""What is kept between two reconciles of one ServingCluster. Losing it costs requests, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from tradewind.compiler.secret_names import SecretUse
from tradewind_operator.credentials import Credentials
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.secrets import SecretValues, WantedSecret
from tradewind_operator.reading import Observed
from tradewind_operator.status.live import Live, Upgrade

NEVER = float("-inf")


@dataclass(slots=True)
class Memory:
    """Of one ServingCluster."""

    changed: bool = True
    """A custom resource of the namespace has changed since the decision."""
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
    observed: Observed = field(default_factory=dict)
    live: Live = field(default_factory=Live)
    upgrade: Upgrade = field(default_factory=Upgrade)

    def distrust(self) -> None:
        """Look at everything anew next time."""
        self.changed, self.full_at = True, NEVER
