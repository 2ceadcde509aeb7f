"""The endpoint that callers use, and the account that pods run under."""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.world import ClusterWorld, Manifest


def endpoint_service(world: ClusterWorld) -> Manifest:
    """The Service: gateways of the Ray cluster that serves. Before there is one, those that start."""
    selector = {
        names.CLUSTER_LABEL: world.name,
        names.RAY_GROUP_LABEL: names.GATEWAY_GROUP,
        names.RAY_SERVE_LABEL: "true",
    }
    if world.active_ray_cluster is not None:
        selector[names.RAY_CLUSTER_LABEL] = world.active_ray_cluster
    port = {
        "name": "http",
        "port": names.ENDPOINT_PORT,
        "targetPort": names.ENDPOINT_PORT,
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(world, world.name),
        "spec": {"type": "ClusterIP", "selector": selector, "ports": [port]},
    }


def service_account(world: ClusterWorld) -> Manifest:
    """Account of gateways and engines: bound to nothing, its token mounted nowhere."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(world, names.service_account(world.name)),
        "automountServiceAccountToken": False,
    }
