"""All manifests of one ServingCluster but its Secrets, whose content only the shell may see, and its
RayClusters, of which there may be several (`planning.clusters`).
"""

from __future__ import annotations

from collections.abc import Iterable

from tradewind_operator.desired import names
from tradewind_operator.desired.gcs import gcs_claim
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.network import network_policies
from tradewind_operator.desired.scheduling import disruption_budgets
from tradewind_operator.desired.service import endpoint_service, gateways_service, service_accounts
from tradewind_operator.desired.volumes import cache_claims
from tradewind_operator.desired.world import ClusterWorld, Manifest


def desired_objects(
    world: ClusterWorld, active: str, others: Iterable[str] = (), stateful: Iterable[str] = ()
) -> list[Manifest]:
    """The manifests; policies come first, so that they are there before pods are.

    Args:
        active: RayCluster that serves.
        others: RayClusters that are there or to be made beside it.
        stateful: RayClusters of which the volume for Ray's state is to be made. One that is there is not
            among them: a claim cannot be changed.
    """
    return [
        *service_accounts(world),
        *network_policies(world),
        *disruption_budgets(world, active),
        *cache_claims(world),
        *(
            gcs_claim(metadata(world, names.gcs_claim(name)), world.spec.gcs_fault_tolerance)
            for name in stateful
        ),
        *(gateways_service(world, name) for name in (active, *others)),
        endpoint_service(world, active),
    ]
