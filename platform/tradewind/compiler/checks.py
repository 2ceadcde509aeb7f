"""Checks that need more than one resource, or know where the resources will run."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from tradewind.api.deployment import ModelDeployment
from tradewind.api.model import Path
from tradewind.api.route import ModelRoute
from tradewind.api.secrets import ApiKeyRef, TokenRef
from tradewind.compiler.diagnostics import Diagnostic
from tradewind.compiler.documents import Located
from tradewind.compiler.pools import pool_faults, pool_of
from tradewind.compiler.world import Platform, World, unknown


def check_world(world: World, platform: Platform) -> Iterator[Diagnostic]:
    """Everything wrong among the resources, engine arguments aside."""
    yield from _names(world)
    yield from _namespaces(world)
    yield from _gateways(world, platform)
    for located, deployment in world.model_deployments():
        yield from _deployment(located, deployment, world, platform)
    models: dict[str, Located] = {}
    for located, route in world.model_routes():
        first = models.setdefault(route.spec.model, located)
        if first is not located:
            model = route.spec.model
            message = f"found {model!r}, which ModelRoute {first.name} serves; allowed: one route per model"
            yield located.at(("spec", "model"), message)
        yield from _route(located, route, world)
    yield from _tenants(world, platform)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def open_to_all(world: World, platform: Platform) -> bool:
    """Whether callers without a key are served: no Tenant, and only this machine can call."""
    host = world.cluster_spec.gateway.endpoint.host
    return not platform.kubernetes and not world.tenants and is_loopback(host)


def _names(world: World) -> Iterator[Diagnostic]:
    for first, second in world.duplicates:
        place = f"{first.file}:{first.node.line}" if first.node else first.file
        message = f"found {second.resource.kind} {second.name!r} a second time; it is already in {place}"
        yield second.at(("metadata", "name"), message)
    for extra in list(world.clusters.values())[1:]:
        message = (
            f"found a second ServingCluster {extra.name!r}; allowed: one, which is {world.cluster_name!r}"
        )
        yield extra.at(("metadata", "name"), message)


def _namespaces(world: World) -> Iterator[Diagnostic]:
    seen: str | None = None
    for located in world.all():
        namespace = located.resource.metadata.namespace
        seen = seen or namespace
        if namespace is not None and namespace != seen:
            message = f"found {namespace!r}; allowed: one namespace for all resources, which is {seen!r}"
            yield located.at(("metadata", "namespace"), message)


def _gateways(world: World, platform: Platform) -> Iterator[Diagnostic]:
    for located in world.clusters.values():
        if platform.kubernetes and world.cluster_spec.gateway.replicas == 1:
            message = "found 1; allowed in a cluster: 2 or more, so that losing a node costs no request"
            yield located.at(("spec", "gateway", "replicas"), message)


def _deployment(
    located: Located, deployment: ModelDeployment, world: World, platform: Platform
) -> Iterator[Diagnostic]:
    spec = deployment.spec
    if spec.cluster != world.cluster_name:
        yield unknown(located, ("spec", "cluster"), "ServingCluster", spec.cluster, [world.cluster_name])
    for path, token in spec.tokens():
        yield from _place(located, path, token, "name and key", platform)
    yield from _pool(located, deployment, world, platform)


def _pool(
    located: Located, deployment: ModelDeployment, world: World, platform: Platform
) -> Iterator[Diagnostic]:
    wanted = deployment.spec.resources
    pools = world.cluster_spec.pools
    path: Path = ("spec", "resources")
    if not platform.kubernetes:
        if wanted.pool is not None:
            message = f"found {wanted.pool!r}; pools exist only in a cluster; allowed here: leave it out"
            yield located.at((*path, "pool"), message)
    elif wanted.pool is not None and pool_of(wanted, pools) is None:
        yield unknown(located, (*path, "pool"), "pool", wanted.pool, sorted(pools))
    else:
        for fault in pool_faults(wanted, pools):
            yield located.at((*path, *fault.path), fault.message, fault.hint)


def _place(
    located: Located, path: Path, reference: TokenRef | ApiKeyRef, secret: str, platform: Platform
) -> Iterator[Diagnostic]:
    """A secret must have a place that exists here: one reference may name one for each platform."""
    if platform.kubernetes and reference.secret is None:
        message = f"found env or file, which exist on one machine only; allowed in a cluster: {secret}"
        yield located.at(path, message)
    elif not platform.kubernetes and reference.env is None and reference.file is None:
        message = "found a Kubernetes Secret; Secrets exist only in a cluster; allowed here: env or file"
        yield located.at(path, message)


def _route(located: Located, route: ModelRoute, world: World) -> Iterator[Diagnostic]:
    spec = route.spec
    names = list(world.deployments)
    used: list[tuple[Path, str]] = []
    for position, variant in enumerate(spec.variants):
        path: Path = ("spec", "variants", position)
        used.append(((*path, "deployment"), variant.deployment))
        deployment = world.deployment(variant.deployment)
        if deployment is not None and variant.adapter is not None:
            adapters = [adapter.name for adapter in deployment.spec.adapters]
            if variant.adapter not in adapters:
                what = f"adapter of ModelDeployment {variant.deployment}"
                yield unknown(located, (*path, "adapter"), what, variant.adapter, adapters)
    used += [
        (("spec", "fallback", position, "deployment"), item.deployment)
        for position, item in enumerate(spec.fallback)
    ]
    for path, name in used:
        if name not in world.deployments:
            yield unknown(located, path, "ModelDeployment", name, names)
    yield from _same_task(located, used, world)
    for position, rule in enumerate(spec.rules):
        for index, tenant in enumerate(rule.match.tenants):
            if tenant not in world.tenants:
                path = ("spec", "rules", position, "match", "tenants", index)
                yield unknown(located, path, "Tenant", tenant, list(world.tenants))


def _same_task(located: Located, used: list[tuple[Path, str]], world: World) -> Iterator[Diagnostic]:
    known = [(path, name, found.spec.task) for path, name in used if (found := world.deployment(name))]
    for path, name, task in known[1:]:
        if task != known[0][2]:
            message = f"found {name!r}, which does {task}; allowed: deployments that all do {known[0][2]}"
            yield located.at(path, message)


def _tenants(world: World, platform: Platform) -> Iterator[Diagnostic]:
    known = _callable_models(world)
    for located, tenant in world.all_tenants():
        for position, model in enumerate(tenant.spec.models):
            if model != "*" and model not in known:
                yield unknown(located, ("spec", "models", position), "route or deployment", model, known)
        for position, key in enumerate(tenant.spec.keys):
            yield from _place(located, ("spec", "keys", position), key, "secret", platform)
    if not platform.kubernetes and not world.tenants and not open_to_all(world, platform):
        yield from _without_tenant(world)


def check_key_hashes(world: World, known: Collection[tuple[str, str]]) -> Iterator[Diagnostic]:
    """Keys of tenants whose Secret was not found."""
    for located, tenant in world.all_tenants():
        for position, key in enumerate(tenant.spec.keys):
            secret = key.secret
            if secret is not None and (secret.name, secret.key) not in known:
                message = f"found no key {secret.key!r} in a Secret {secret.name!r}"
                yield located.at(("spec", "keys", position, "secret"), message)


def _callable_models(world: World) -> list[str]:
    """What a client may put in `model`."""
    names = [route.spec.model for _, route in world.model_routes()]
    for located, deployment in world.model_deployments():
        names.append(located.name)
        names += [f"{located.name}:{adapter.name}" for adapter in deployment.spec.adapters]
    return names


def _without_tenant(world: World) -> Iterator[Diagnostic]:
    host = world.cluster_spec.gateway.endpoint.host
    message = (
        f"no Tenant, and the endpoint {host!r} is not on loopback: everyone could call; "
        "allowed without a Tenant: a local loopback endpoint"
    )
    hint = "add a Tenant"
    for located in world.clusters.values():
        yield located.at(("spec", "gateway", "endpoint", "host"), message, hint)
        return
    for located in world.all():
        yield Diagnostic(located.file, 0, 0, "", message, hint)
        return
