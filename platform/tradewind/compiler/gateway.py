"""Resources → GatewayConfig, the whole of what the gateway decides by. The resources are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tradewind.api.cluster import ServingClusterSpec
from tradewind.api.deployment import ModelDeployment
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant
from tradewind.api.wire import (
    DeploymentEntry,
    EngineSettings,
    GatewayConfig,
    Overrides,
    RequestLimits,
    RetryEntry,
    RouteEntry,
    RuleEntry,
    SecretRef,
    TenantEntry,
    VariantEntry,
    digest,
)
from tradewind.compiler.world import World


def engine_prefix(name: str) -> str:
    """Route prefix of a ModelDeployment's application."""
    return f"/engines/{name}"


ALL_INTERFACES: Final = "0.0.0.0"  # noqa: S104 - of a pod, behind network policies
KeyHashes = Mapping[tuple[str, str], str]
"""(name of a Secret, key in it) → `api.key_hash.key_hash` of the API key there."""


def gateway_config(
    world: World, engines: dict[str, EngineSettings], key_hashes: KeyHashes | None, *, anonymous: bool
) -> GatewayConfig:
    """The gateway's configuration; its revision is the digest of the rest.

    Args:
        key_hashes: of all tenants' keys, in a cluster; None on one machine, where the gateway reads them.
    """
    spec = world.cluster_spec
    config = GatewayConfig(
        revision="",
        deployments=tuple(
            deployment_entry(found, engines[found.metadata.name]) for _, found in world.model_deployments()
        ),
        routes=tuple(sorted((_route(route) for _, route in world.model_routes()), key=lambda r: r.model)),
        tenants=tuple(_tenant(tenant, key_hashes) for _, tenant in world.all_tenants()),
        anonymous=anonymous,
        limits=_limits(spec),
        metrics_port=spec.gateway.metrics_port,
        metrics_host="127.0.0.1" if key_hashes is None else ALL_INTERFACES,
        cors_origins=spec.gateway.cors.allowed_origins,
    )
    return config.model_copy(update={"revision": digest(config.model_dump(mode="json"))})


def deployment_entry(deployment: ModelDeployment, settings: EngineSettings) -> DeploymentEntry:
    """A ModelDeployment as the gateway sees it."""
    name = deployment.metadata.name
    length = settings.args.get("max_model_len")
    return DeploymentEntry(
        name=name,
        app=name,
        prefix=engine_prefix(name),
        family=settings.family,
        task=settings.task,
        context_length=length if isinstance(length, int) and length > 0 else None,
        adapters=tuple(adapter.name for adapter in deployment.spec.adapters),
        max_ongoing_requests=deployment.spec.limits.max_ongoing_requests,
        request_timeout_s=float(deployment.spec.limits.request_timeout),
    )


def _route(route: ModelRoute) -> RouteEntry:
    spec = route.spec
    return RouteEntry(
        model=spec.model,
        variants=tuple(
            VariantEntry(
                name=variant.name,
                deployment=variant.deployment,
                weight=variant.weight,
                adapter=variant.adapter,
                overrides=Overrides.model_validate(variant.overrides.model_dump()),
            )
            for variant in spec.variants
        ),
        assign_by=tuple(_unit(unit) for unit in spec.assignment.by),
        salt=spec.assignment.salt or spec.model,
        rules=tuple(
            RuleEntry(
                variant=rule.variant,
                headers={name.lower(): rule.match.headers[name] for name in sorted(rule.match.headers)},
                tenants=rule.match.tenants,
            )
            for rule in spec.rules
        ),
        fallback=tuple(item.deployment for item in spec.fallback),
        retry=RetryEntry(attempts=spec.retry.attempts, budget_percent=spec.retry.budget_percent),
        first_token_timeout_s=float(min(spec.timeouts.first_token, spec.timeouts.total)),
        total_timeout_s=float(spec.timeouts.total),
    )


def _unit(unit: str) -> str:
    """Header names are compared in lower case."""
    return unit.lower() if unit.startswith("header:") else unit


def _tenant(tenant: Tenant, key_hashes: KeyHashes | None) -> TenantEntry:
    name, models = tenant.metadata.name, tenant.spec.models
    if key_hashes is None:
        keys = tuple(SecretRef(env=key.env, file=key.file) for key in tenant.spec.keys)
        return TenantEntry(name=name, keys=keys, models=models)
    secrets = [key.secret for key in tenant.spec.keys if key.secret is not None]
    hashes = tuple(key_hashes[secret.name, secret.key] for secret in secrets)
    return TenantEntry(name=name, key_hashes=hashes, models=models)


def _limits(spec: ServingClusterSpec) -> RequestLimits:
    limits = spec.limits
    return RequestLimits(
        body_bytes=int(limits.body_size),
        header_bytes=int(limits.header_size),
        body_timeout_s=float(limits.body_timeout),
        json_depth=limits.json_depth,
        json_containers=limits.json_containers,
        json_items=limits.json_items,
        choices=limits.choices,
        prompts=limits.prompts,
        max_tokens=limits.max_tokens,
        stop=limits.stop,
        stop_chars=limits.stop_chars,
        logprobs=limits.logprobs,
        pattern_chars=limits.pattern_chars,
        schema_bytes=int(limits.schema_size),
        tools=limits.tools,
        tokenize_bytes=int(limits.tokenize_size),
        concurrent_requests=spec.gateway.max_ongoing_requests,
    )
