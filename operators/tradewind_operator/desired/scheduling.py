"""Which nodes pods go to, and how many may be taken off them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tradewind.api.nodes import Pool, Toleration
from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.metadata import metadata, role_selector
from tradewind_operator.desired.world import ClusterWorld, Manifest

_HOSTNAME: Final = "kubernetes.io/hostname"
_ZONE: Final = "topology.kubernetes.io/zone"
_SPOT_LABELS: Final = (
    ("karpenter.sh/capacity-type", "spot"),
    ("cloud.google.com/gke-spot", "true"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
_SPOT_TAINTS: Final = (
    ("cloud.google.com/gke-spot", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)


def tolerations(given: Iterable[Toleration]) -> list[Manifest]:
    """Tolerations as Kubernetes writes them."""
    return [toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in given]


def gateway_scheduling(cluster: str) -> Manifest:
    """Gateways on different nodes, wherever there are two that may take them.

    `DoNotSchedule` with a skew of 1 over the nodes: a cluster of one node takes them all, because that node
    is all the domains there are; with two or more no node gets two more than another. Preferring would let
    both start on one node and stay there. Tainted, cordoned and lost nodes are no domains
    (`nodeTaintsPolicy`), and the gateways of a second Ray cluster, during an upgrade, are counted for
    themselves.
    """
    among = {
        "labelSelector": {"matchLabels": role_selector(cluster, names.GATEWAY_GROUP)},
        "matchLabelKeys": [names.RAY_CLUSTER_LABEL],
        "maxSkew": 1,
        "nodeTaintsPolicy": "Honor",
        "nodeAffinityPolicy": "Honor",
    }
    return {
        "topologySpreadConstraints": [
            {**among, "topologyKey": _HOSTNAME, "whenUnsatisfiable": "DoNotSchedule"},
            {**among, "topologyKey": _ZONE, "whenUnsatisfiable": "ScheduleAnyway"},
        ],
        "affinity": {"podAntiAffinity": _rather_not_with(cluster, names.ENGINE_ROLE, names.HEAD_ROLE)},
    }


def stay(backend: Backend) -> dict[str, str]:
    """Annotations that ask node autoscalers to leave a head alone whose loss is an outage."""
    if backend is not Backend.NONE:
        return {}
    return {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def disruption_budgets(world: ClusterWorld, active: str) -> list[Manifest]:
    """How many pods an eviction may take at a time: one gateway, and nothing for the others, so that
    `kubectl drain` always comes to an end.

    The head: with its state outside a lost one costs no request. Without, it is an outage, whoever evicts it;
    a budget would hold up the drain of its node for ever, so it only asks autoscalers to go elsewhere
    (`stay`). Engines: an evicted one is replaced before it stops, and their number is Serve's.

    `minAvailable` as a number is the only form that Kubernetes can count for pods whose controller has no
    scale subresource, and a RayCluster has none: `maxUnavailable` would refuse every eviction for ever.
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


def head_scheduling(cluster: str) -> Manifest:
    """The head rather not on a gateway's or an engine's node: losing one node shall cost one of them."""
    roles = (names.GATEWAY_GROUP, names.ENGINE_ROLE)
    return {"affinity": {"podAntiAffinity": _rather_not_with(cluster, *roles)}}


def pool_scheduling(pool: Pool) -> Manifest:
    """Node selector and, for spot pools, any provider's label for nodes that it may take back."""
    selector = dict(pool.node_selector)
    label = pool.accelerator_label or pool.hardware.label
    if pool.accelerator is not None and label is not None:
        selector[label] = pool.accelerator
    result: Manifest = {"nodeSelector": selector} if selector else {}
    if pool.spot:
        terms = [
            {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
            for key, value in _SPOT_LABELS
        ]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        result["affinity"] = {"nodeAffinity": required}
    return result


def pool_tolerations(pool: Pool) -> list[Manifest]:
    """Those given, and for the taints that providers put on GPU and spot nodes."""
    known: list[Manifest] = []
    if pool.gpus:
        known.append({"key": pool.hardware.taint, "operator": "Exists", "effect": "NoSchedule"})
    if pool.spot:
        known += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in _SPOT_TAINTS
        ]
    given = tolerations(pool.tolerations)
    return given + [toleration for toleration in known if toleration not in given]


def node_selector(labels: Mapping[str, str]) -> Manifest:
    """`nodeSelector`, where there is one."""
    return {"nodeSelector": dict(labels)} if labels else {}


def _rather_not_with(cluster: str, *roles: str) -> Manifest:
    terms = [
        {
            "weight": 50,
            "podAffinityTerm": {
                "topologyKey": _HOSTNAME,
                "labelSelector": {"matchLabels": role_selector(cluster, role)},
            },
        }
        for role in roles
    ]
    return {"preferredDuringSchedulingIgnoredDuringExecution": terms}
