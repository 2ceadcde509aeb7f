"""The endpoint that callers use, and the accounts that pods run under."""

from __future__ import annotations

from collections.abc import Mapping

from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata, role_selector
from tradewind_operator.desired.world import ClusterWorld, Endpoint, Manifest


def endpoint_service(world: ClusterWorld, active: str) -> Manifest:
    """The Service that callers use: gateways of the Ray cluster that serves, and of no other."""
    seen = _endpoint(world)
    return _service(world, world.name, active, seen.annotations, {"type": seen.type, **_outside(seen)})


def gateways_service(world: ClusterWorld, ray_cluster: str) -> Manifest:
    """The gateways of one Ray cluster, for the operator: whether a second one is ready before it serves."""
    return _service(world, names.gateways_service(ray_cluster), ray_cluster, {}, {"type": "ClusterIP"})


def _service(
    world: ClusterWorld, name: str, ray_cluster: str, annotations: Mapping[str, str], spec: Manifest
) -> Manifest:
    selector = {**role_selector(world.name, names.GATEWAY_GROUP), names.RAY_CLUSTER_LABEL: ray_cluster}
    port = {
        "name": "http",
        "port": names.ENDPOINT_PORT,
        "targetPort": names.ENDPOINT_PORT,
        "protocol": "TCP",
        "appProtocol": "http",
    }
    about = metadata(world, name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**about, "annotations": dict(annotations)} if annotations else about,
        "spec": {**spec, "selector": selector, "ports": [port]},
    }


def _endpoint(world: ClusterWorld) -> Endpoint:
    """What the ServingCluster says of it or, where that says nothing, the operator's settings."""
    own = world.spec.gateway.service
    if own is None:
        return world.defaults.endpoint
    return Endpoint(
        own.type,
        own.annotations,
        own.load_balancer_class or "",
        own.load_balancer_source_ranges,
        own.traffic_policy,
    )


def _outside(seen: Endpoint) -> Manifest:
    if seen.type == "ClusterIP":
        return {}
    spec: Manifest = {"externalTrafficPolicy": seen.traffic_policy}
    if seen.type != "LoadBalancer":
        return spec
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
