"""The endpoint that callers use, and the accounts that pods run under."""

from __future__ import annotations

from collections.abc import Mapping

from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.world import ClusterWorld, Endpoint, Manifest


def endpoint_service(world: ClusterWorld) -> Manifest:
    """The Service: gateways of the Ray cluster that serves. Before there is one, those that start."""
    selector = {
        names.CLUSTER_LABEL: world.name,
        names.RAY_GROUP_LABEL: names.GATEWAY_GROUP,
        names.RAY_SERVE_LABEL: "true",
    }
    seen = world.defaults.endpoint
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
        "metadata": {
            **metadata(world, world.name),
            **({"annotations": dict(seen.annotations)} if seen.annotations else {}),
        },
        "spec": {"type": seen.type, "selector": selector, "ports": [port], **_load_balancer(seen)},
    }


def _load_balancer(seen: Endpoint) -> Manifest:
    if seen.type != "LoadBalancer":
        return {}
    spec: Manifest = {}
    if seen.load_balancer_class:
        spec["loadBalancerClass"] = seen.load_balancer_class
    if seen.source_ranges:
        spec["loadBalancerSourceRanges"] = list(seen.source_ranges)
    return spec


def service_accounts(world: ClusterWorld) -> list[Manifest]:
    """Accounts of gateways and of engines: bound to no role, their tokens for this API mounted nowhere.

    Only engines fetch weights, so only they have an account that a cloud may trust: its webhooks mount a
    token of their own for it.
    """
    engines = world.spec.service_account.annotations
    return [
        _account(world, names.service_account(world.name), {}),
        _account(world, names.engine_account(world.name), engines),
    ]


def _account(world: ClusterWorld, name: str, annotations: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            **metadata(world, name),
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "automountServiceAccountToken": False,
    }
