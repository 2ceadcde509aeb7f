"""Metadata of what the operator makes: labels by which it knows its own, and the owner."""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.kinds import TRADEWIND


def owned_labels(cluster: str) -> dict[str, str]:
    """Labels of every object that the operator makes for a ServingCluster."""
    return {
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.PART_OF_LABEL: "tradewind",
        names.CLUSTER_LABEL: cluster,
    }


def pod_labels(cluster: str, role: str) -> dict[str, str]:
    """Labels of a pod, beside those that KubeRay adds. Roles: head, gateway, engine."""
    return {names.PART_OF_LABEL: "tradewind", names.CLUSTER_LABEL: cluster, names.ROLE_LABEL: role}


def role_selector(cluster: str, role: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a role, or all pods of the cluster."""
    selector = {names.CLUSTER_LABEL: cluster}
    return selector if role is None else {**selector, names.ROLE_LABEL: role}


def metadata(world: ClusterWorld, name: str) -> Manifest:
    """Metadata of an object that goes away with the ServingCluster."""
    return {
        "name": name,
        "namespace": world.namespace,
        "labels": owned_labels(world.name),
        "ownerReferences": [
            {
                "apiVersion": TRADEWIND,
                "kind": "ServingCluster",
                "name": world.name,
                "uid": world.uid,
                "controller": True,
            }
        ],
    }
