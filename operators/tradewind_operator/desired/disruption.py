"""How many pods an eviction may take at a time.

`minAvailable` as a number is the only form that Kubernetes can count for pods whose controller has no scale
subresource, and a RayCluster has none: `maxUnavailable` would refuse every eviction for ever.
"""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata, role_selector
from tradewind_operator.desired.world import ClusterWorld, Manifest


def disruption_budgets(world: ClusterWorld, active: str) -> list[Manifest]:
    """One gateway at a time, and nothing for the others, so that `kubectl drain` always comes to an end.

    The head: with its state outside a lost one costs no request. Without, it is an outage, whoever evicts it;
    a budget would hold up the drain of its node for ever, so it only asks autoscalers to go elsewhere
    (`scheduling.stay`). Engines: an evicted one is replaced before it stops, and their number is Serve's.
    """
    # The pods of a second cluster, during an upgrade, do not make up for those that serve.
    selector = {**role_selector(world.name, names.GATEWAY_GROUP), names.RAY_CLUSTER_LABEL: active}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(world, names.gateway_budget(world.name)),
        "spec": {
            "minAvailable": world.gateways - 1,
            "selector": {"matchLabels": selector},
            # A pod that is not ready serves nobody and must not keep its node from being emptied.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
    return [budget]
