"""Who may talk to the pods of a ServingCluster, and they to whom. What is not listed is denied.

Probes come from the node itself, which network plugins let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from tradewind.api.fault_tolerance import redis_port
from tradewind.api.networks import PeerSelector
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata, role_selector
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.kinds import NETWORK_POLICY

_HTTPS: Final = 443
_API_SERVER: Final = (443, 6443)
"""Its Service's port and the port of the servers behind it: plugins differ in which one they look at."""
_NAME_SERVERS: Final = (53, 5353)
"""The Service's port and, behind it, that of servers that may not bind a low one, such as OpenShift's."""
OPERATOR_LABELS: Final = {names.NAME_LABEL: "tradewind", names.COMPONENT_LABEL: "operator"}
"""As the chart labels this operator's pods; a test compares."""
KUBERAY_LABELS: Final = {names.NAME_LABEL: "kuberay-operator"}
_CREDENTIALS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    # Pod Identity's agent, by either family of addresses. IRSA asks STS on 443 instead.
    "EKS": (("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)),
    # The metadata server: as Dataplane V2 sees it, and where it listens on other clusters.
    "GKE": (("169.254.169.254/32", 80), ("169.254.169.252/32", 988)),
}
"""Where a cloud gives a pod its credentials: addresses of the node itself, by workload identity."""
_PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_EVERY_POD: Final[Manifest] = {"namespaceSelector": {}}


def network_policies(world: ClusterWorld) -> list[Manifest]:
    """One policy for all pods and one more for each role; none where they are switched off."""
    if not world.spec.network_policy.enabled:
        return []
    return [_all_pods(world), _head(world), _gateways(world), _engines(world)]


def _all_pods(world: ClusterWorld) -> Manifest:
    """Default-deny, and what every pod needs: the others, DNS, the collector; metrics for any pod."""
    own = {"podSelector": {"matchLabels": role_selector(world.name)}}
    egress: list[Manifest] = [
        {"to": [own]},
        # To anyone: name servers have other labels, and on some nodes an address of the node itself.
        {"ports": [_port(port, protocol) for port in _NAME_SERVERS for protocol in ("UDP", "TCP")]},
    ]
    if (collector := _collector_port(world)) is not None:
        egress.append({"ports": [_port(collector)]})
    ingress = [{"from": [own]}, {"from": [_EVERY_POD], "ports": [_port(names.RAY_METRICS_PORT)]}]
    return _policy(world, "pods", None, ingress, egress)


def _head(world: ClusterWorld) -> Manifest:
    """The dashboard's port, which is also Serve's API, for the two operators; egress of the autoscaler."""
    callers = [_pods(OPERATOR_LABELS), _pods(KUBERAY_LABELS)]
    egress: list[Manifest] = [{"ports": [_port(port) for port in _API_SERVER]}]
    if addresses := _redis(world):
        egress.append({"ports": [_port(port) for port in sorted({redis_port(one) for one in addresses})]})
    ingress = [{"from": callers, "ports": [_port(names.DASHBOARD_PORT)]}]
    return _policy(world, names.HEAD_ROLE, names.HEAD_ROLE, ingress, egress)


def _redis(world: ClusterWorld) -> list[str]:
    """That of the spec and those in use: what left the spec is cleared before its Ray cluster is gone."""
    redis = world.spec.gcs_fault_tolerance.redis
    return [*world.redis_in_use, *([] if redis is None else [redis.address])]


def _gateways(world: ClusterWorld) -> Manifest:
    """The endpoint, for those who may call it; the gateways' own metrics for any pod."""
    endpoint: Manifest = {"ports": [_port(names.ENDPOINT_PORT)]}
    if world.spec.network_policy.allow_from:
        peers = [_peer(peer) for peer in world.spec.network_policy.allow_from]
        service = world.spec.gateway.service
        outside = () if service is None else service.load_balancer_source_ranges
        blocks = [{"ipBlock": {"cidr": block}} for block in outside]
        endpoint["from"] = [*peers, *blocks, _pods(OPERATOR_LABELS)]
    metrics = {"from": [_EVERY_POD], "ports": [_port(world.spec.gateway.metrics_port)]}
    return _policy(world, names.GATEWAY_GROUP, names.GATEWAY_GROUP, [endpoint, metrics], [])


def _engines(world: ClusterWorld) -> Manifest:
    """Downloads of weights, and the credentials for them where a cloud gives them to the pod."""
    blocks = [{"ipBlock": {"cidr": cidr}} for cidr in world.spec.network_policy.allow_egress_to]
    ports = [_port(port) for port in sorted({_HTTPS, *_source_ports(world), *_proxy_ports(world)})]
    egress: list[Manifest] = [{"to": blocks, "ports": ports}] if blocks else []
    egress += [
        {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [_port(port)]}
        for cidr, port in _CREDENTIALS.get(world.spec.service_account.workload_identity or "", ())
    ]
    return _policy(world, "engines", names.ENGINE_ROLE, [], egress)


def _policy(
    world: ClusterWorld, suffix: str, role: str | None, ingress: list[Manifest], egress: list[Manifest]
) -> Manifest:
    return {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": metadata(world, names.network_policy(world.name, suffix)),
        "spec": {
            "podSelector": {"matchLabels": role_selector(world.name, role)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _port(port: int, protocol: str = "TCP") -> Manifest:
    return {"protocol": protocol, "port": port}


def _pods(labels: dict[str, str]) -> Manifest:
    """Pods with these labels, in whatever namespace."""
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}


def _peer(peer: PeerSelector) -> Manifest:
    if peer.ip_block is not None:
        return {"ipBlock": {"cidr": peer.ip_block}}
    result: Manifest = {}
    if peer.namespace_selector is not None:
        result["namespaceSelector"] = _selector(peer.namespace_selector)
    if peer.pod_selector is not None:
        result["podSelector"] = _selector(peer.pod_selector)
    return result


def _selector(labels: dict[str, str]) -> Manifest:
    return {"matchLabels": dict(labels)} if labels else {}


def _collector_port(world: ClusterWorld) -> int | None:
    """Port of the collector: the ServingCluster's or, where it names none, the operator's default."""
    variables = {**world.defaults.environment, **world.compiled.environment}
    endpoint = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return None if endpoint is None else _url_port(endpoint)


def _source_ports(world: ClusterWorld) -> Iterator[int]:
    """Ports of hub mirrors and object stores that models name."""
    for name, settings in world.compiled.engines.items():
        sources = (settings.source, *(adapter.source for adapter in world.compiled.adapters[name]))
        yield from _ports_of(source.endpoint for source in sources)


def _proxy_ports(world: ClusterWorld) -> Iterator[int]:
    """Ports of the proxies that engines are told to go through."""
    for pool in world.spec.pools.values():
        variables = pool.pod.over(world.spec.pod).env
        yield from _ports_of(one.value for one in variables if one.name.upper() in _PROXIES)


def _ports_of(urls: Iterable[str | None]) -> Iterator[int]:
    for url in urls:
        if url is not None and (port := _url_port(url)) is not None:
            yield port


def _url_port(url: str) -> int | None:
    """TCP port of an http(s) URL; None where it cannot be read."""
    parts = urlsplit(url)
    try:
        return parts.port or {"http": 80, "https": _HTTPS}.get(parts.scheme)
    except ValueError:
        return None
