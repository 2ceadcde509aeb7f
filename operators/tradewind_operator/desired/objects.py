"""All manifests of one ServingCluster but its Secrets, whose content only the shell may see."""

from __future__ import annotations

from tradewind_operator.desired.cache import cache_claims
from tradewind_operator.desired.disruption import disruption_budgets
from tradewind_operator.desired.network import network_policies
from tradewind_operator.desired.rayservice import ray_service
from tradewind_operator.desired.service import endpoint_service, service_accounts
from tradewind_operator.desired.world import ClusterWorld, Manifest


def desired_objects(world: ClusterWorld) -> list[Manifest]:
    """The manifests, in the order in which they are applied: policies are there before pods are.

    They do not depend on what is there already; `plan` brings both together.
    """
    return [
        *service_accounts(world),
        *network_policies(world),
        *disruption_budgets(world),
        *cache_claims(world),
        ray_service(world),
        endpoint_service(world),
    ]
