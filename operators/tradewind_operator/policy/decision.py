"""The outcome of looking at all resources of one ServingCluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tradewind.api.cluster import ServingClusterSpec
from tradewind.api.tenant import Tenant
from tradewind.compiler.compile import Compiled
from tradewind_operator.kinds import SERVING_CLUSTER
from tradewind_operator.policy.namespace import Entry, Form
from tradewind_operator.policy.verdict import Key, Verdict


class Deletion(Enum):
    """What becomes of a ServingCluster that someone deletes."""

    NONE = "not asked for"
    REFUSED = "refused while it has models"
    ALLOWED = "nothing holds it"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is in force in one ServingCluster, and what is said about every resource that has it as home."""

    namespace: str
    cluster: str
    compiled: Compiled | None
    """What to apply. None: change nothing; there is no such cluster, it goes, or it was never accepted."""
    in_force: Mapping[Key, Form]
    """Every resource that was compiled, as it was compiled: tenants of any home among them."""
    verdicts: Mapping[Key, Verdict]
    """Of every resource of this home that is not being deleted, and of the ServingCluster."""
    entries: Mapping[Key, Entry]
    """The same resources and those being deleted, as they were read."""
    tenants: Mapping[str, Tenant]
    """Every tenant with the keys and models that it has in some cluster of the namespace."""
    elsewhere: int
    """ModelDeployments and ModelRoutes of the namespace's other clusters."""
    refused: tuple[Entry, ...]
    """All that is not in force as it is written, tenants of another home included: they open this one too."""
    draining: tuple[str, ...]
    """ModelDeployments that are being deleted: they are not in `compiled`, so Serve lets them end."""
    deletion: Deletion
    holding: tuple[str, ...] = ()
    """ModelDeployments for whose sake the deletion of the cluster is refused."""

    @property
    def spec(self) -> ServingClusterSpec | None:
        """Of the ServingCluster in force."""
        form = self.in_force.get((SERVING_CLUSTER.kind, self.cluster))
        spec = form.resource.spec if form is not None else None
        return spec if isinstance(spec, ServingClusterSpec) else None

    def count(self, kind: str) -> int:
        """Resources of a kind that are in force."""
        return sum(key[0] == kind for key in self.in_force)
