"""Metadata of what the operator makes: labels by which it knows its own, and the owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tradewind.compiler.compile import ROLE_LABEL
from tradewind_operator.desired import names
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.kinds import SERVING_CLUSTER


def owned_labels(cluster: str) -> dict[str, str]:
    """Labels of every object that the operator makes for a ServingCluster."""
    return {
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.PART_OF_LABEL: "tradewind",
        names.CLUSTER_LABEL: cluster,
    }


def own_marks(cluster: str) -> dict[str, str]:
    """Those of them by which the operator knows its own; the other one is for people."""
    return {label: value for label, value in owned_labels(cluster).items() if label != names.PART_OF_LABEL}


def is_ours(found: Mapping[str, Any], cluster: str) -> bool:
    """Whether an object carries the marks of what the operator made for this ServingCluster."""
    return bool(own_marks(cluster).items() <= (found["metadata"].get("labels") or {}).items())


def owner_reference(cluster: str, uid: str) -> Manifest:
    """By which an object goes away with its ServingCluster."""
    return {
        "apiVersion": SERVING_CLUSTER.api_version,
        "kind": SERVING_CLUSTER.kind,
        "name": cluster,
        "uid": uid,
        "controller": True,
    }


def pod_labels(cluster: str, role: str) -> dict[str, str]:
    """Labels of a pod, beside those that KubeRay adds. Roles: head, gateway, engine."""
    return {names.PART_OF_LABEL: "tradewind", names.CLUSTER_LABEL: cluster, ROLE_LABEL: role}


def role_selector(cluster: str, role: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a role, or all pods of the cluster."""
    selector = {names.CLUSTER_LABEL: cluster}
    return selector if role is None else {**selector, ROLE_LABEL: role}


def metadata(world: ClusterWorld, name: str) -> Manifest:
    """Metadata of an object that goes away with the ServingCluster."""
    return {
        "name": name,
        "namespace": world.namespace,
        "labels": owned_labels(world.name),
        "ownerReferences": [owner_reference(world.name, world.uid)],
    }
