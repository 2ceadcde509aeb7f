"""Resources → everything that a platform is started or changed with.

Pure: the same resources in any order give the same result. `tradewind up` puts it into a local Ray;
an operator sends it to its Ray clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.cluster import ServingClusterSpec
from tradewind.api.deployment import ModelDeploymentSpec
from tradewind.api.nodes import Pool
from tradewind.api.wire import AdapterSettings, EngineLive, EngineSettings, GatewayConfig, written
from tradewind.compiler.checks import check_key_hashes, check_world, open_to_all
from tradewind.compiler.diagnostics import CompileError, Diagnostic
from tradewind.compiler.documents import Located
from tradewind.compiler.engines import engine_adapters, engine_settings
from tradewind.compiler.gateway import ALL_INTERFACES, KeyHashes, engine_prefix, gateway_config
from tradewind.compiler.pools import engine_cpus, pool_of
from tradewind.compiler.ray_environment import GATEWAY_REACHABLE_S
from tradewind.compiler.secret_names import SecretNames, SecretUse
from tradewind.compiler.surge import ONE_AT_A_TIME, surging
from tradewind.compiler.world import LOCAL, Platform, World

ENGINE_IMPORT_PATH: Final = "tradewind.serve.applications:engine"
GATEWAY_IMPORT_PATH: Final = "tradewind.serve.applications:gateway"
POOL_LABEL: Final = "tradewind.dev/pool"
ROLE_LABEL: Final = "tradewind.dev/role"
GATEWAY_ROLE: Final = "gateway"
CLUSTER_PORT: Final = 8000
CLUSTER_GATEWAYS: Final = 2
_LOCAL_GATEWAY_CPUS: Final = 0.25
STOP_MARGIN_S: Final = 5.0
"""Of a gateway's time to stop, beside what it uses for callers: Serve's own wait, and the last words."""
CLUSTER_GATEWAY_CPUS: Final = 1
"""All that a gateway pod offers to Ray, so that no two replicas share one."""
ENGINE_DOOR: Final = 100_000
"""Serve's own bound on an engine's replica. What is above it waits inside Serve, probes too, so that a busy
replica looks dead: it must never be reached. The bound that counts is the engine's own (`EngineLive`). This
is the figure of Serve's own benchmarks, and above every bound that a ModelDeployment can have."""
_LOCAL_REACHABLE_S: Final = 1
"""Its successor listens already; those who hold a connection are told with their next answer."""
_LOOPBACK: Final = "127.0.0.1"
_ANY_PORT: Final = 0
"""For Serve's own proxy, which nobody calls (`tradewind.serve.doors`). Replicas have ports of their own."""
_HEALTH: Final = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
# For every application: Serve gives it to each that names none.
# Serve's access log costs more than our whole request and would name paths of failed requests.
_LOGGING: Final = {"enable_access_log": False, "encoding": "JSON"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the gateways listen for callers."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A platform, ready to apply. Holds references to secrets, never a secret."""

    endpoint: Endpoint

    serve_config: dict[str, Any]
    """Body of `PUT /api/serve/applications/` (ServeDeploySchema)."""
    gateway: GatewayConfig
    engines: dict[str, EngineSettings]
    """By ModelDeployment, sorted."""
    adapters: dict[str, tuple[AdapterSettings, ...]]
    """LoRA adapters of each."""
    environment: dict[str, str]
    """OTEL_* variables for every process; those already set in the process's environment come first.
    They take effect when Ray starts."""
    secrets: tuple[SecretUse, ...]
    """Kubernetes Secrets that engines read."""
    pools: dict[str, str]
    """ModelDeployment to the pool it goes to; empty on one machine."""

    def dump(self) -> dict[str, Any]:
        """All of it as JSON-able data, for `tradewind render` and golden files."""
        return {
            "serve": self.serve_config,
            "environment": self.environment,
            "secrets": [{"file": use.file, "name": use.name, "key": use.key} for use in self.secrets],
        }


def compile_resources(
    resources: Iterable[Located], *, platform: Platform = LOCAL, key_hashes: KeyHashes | None = None
) -> Compiled:
    """Check all resources and compile them.

    Args:
        key_hashes: of the API keys that tenants name; in a cluster only, where one that is missing is a
            fault of the tenant.

    Raises:
        CompileError: with everything that is wrong; nothing is compiled then.
    """
    world = World.of(resources)
    secrets = SecretNames() if platform.kubernetes else None
    hashes = dict(key_hashes or {}) if platform.kubernetes else None
    wrong: list[Diagnostic] = list(check_world(world, platform))
    if hashes is not None:
        wrong += check_key_hashes(world, hashes)
    engines: dict[str, EngineSettings] = {}
    adapters: dict[str, tuple[AdapterSettings, ...]] = {}
    for located, deployment in world.model_deployments():
        engines[located.name], bad = engine_settings(
            located, deployment, secrets, ray_metrics=world.cluster_spec.telemetry.engine_metrics
        )
        adapters[located.name] = engine_adapters(deployment, secrets)
        wrong += bad
    if wrong:
        raise CompileError(wrong)
    gateway = gateway_config(world, engines, hashes, anonymous=open_to_all(world, platform))
    spec = world.cluster_spec
    pools = _pools(world) if platform.kubernetes else {}
    first = surging(
        {located.name: deployment.spec for located, deployment in world.model_deployments()},
        pools,
        spec.pools if platform.kubernetes else None,
    )
    applications = [
        _engine_app(
            engines[located.name],
            EngineLive(
                adapters=adapters[located.name],
                max_ongoing_requests=deployment.spec.limits.max_ongoing_requests,
            ),
            deployment.spec,
            _actor_options(deployment.spec, pools.get(located.name), spec.pools),
            surge=located.name in first,
        )
        for located, deployment in world.model_deployments()
    ]
    drain = max((settings.drain_timeout_s for settings in engines.values()), default=30.0)
    endpoint = _endpoint(spec, platform)
    return Compiled(
        endpoint=endpoint,
        serve_config={
            "proxy_location": "HeadOnly",
            "http_options": {"host": ALL_INTERFACES if platform.kubernetes else _LOOPBACK, "port": _ANY_PORT},
            "logging_config": dict(_LOGGING),
            "applications": [_gateway_app(spec, gateway, drain, platform, endpoint), *applications],
        },
        gateway=gateway,
        engines=engines,
        adapters=adapters,
        environment=_environment(spec),
        secrets=tuple(sorted(secrets.uses)) if secrets else (),
        pools=pools,
    )


def _endpoint(spec: ServingClusterSpec, platform: Platform) -> Endpoint:
    if platform.kubernetes:
        return Endpoint(ALL_INTERFACES, CLUSTER_PORT)
    return Endpoint(spec.gateway.endpoint.host, spec.gateway.endpoint.port)


def _pools(world: World) -> dict[str, str]:
    pools = world.cluster_spec.pools
    found = {
        located.name: pool_of(deployment.spec.resources, pools)
        for located, deployment in world.model_deployments()
    }
    return {name: pool for name, pool in found.items() if pool is not None}


def _gateway_app(
    spec: ServingClusterSpec, gateway: GatewayConfig, drain_s: float, platform: Platform, endpoint: Endpoint
) -> dict[str, Any]:
    # On one machine a successor shares the port and can be there first. In a cluster it waits for the pod.
    reachable_s, surge = _LOCAL_REACHABLE_S, {"max_surge_percent": ONE_AT_A_TIME}
    actor: dict[str, Any] = {"num_cpus": _LOCAL_GATEWAY_CPUS}
    if platform.kubernetes:
        reachable_s, surge = GATEWAY_REACHABLE_S, {}
        actor = {"num_cpus": float(CLUSTER_GATEWAY_CPUS), "label_selector": {ROLE_LABEL: GATEWAY_ROLE}}
    return {
        "name": "gateway",
        "route_prefix": "/",
        "import_path": GATEWAY_IMPORT_PATH,
        "args": {"host": endpoint.host, "port": endpoint.port, "reachable_s": reachable_s},
        "deployments": [
            {
                "name": "gateway",
                "num_replicas": spec.gateway.replicas or (CLUSTER_GATEWAYS if platform.kubernetes else 1),
                "user_config": written(gateway),
                # A stream passes the gateway for as long as the engine behind it may drain.
                "graceful_shutdown_timeout_s": reachable_s + drain_s + STOP_MARGIN_S,
                **surge,
                **_HEALTH,
                "ray_actor_options": actor,
            }
        ],
    }


def _engine_app(
    settings: EngineSettings,
    live: EngineLive,
    spec: ModelDeploymentSpec,
    options: dict[str, Any],
    *,
    surge: bool,
) -> dict[str, Any]:
    return {
        "name": settings.name,
        "route_prefix": engine_prefix(settings.name),
        "import_path": ENGINE_IMPORT_PATH,
        "args": {"settings": written(settings)},
        "deployments": [
            {
                "name": "engine",
                "user_config": written(live),
                **_scale(spec),
                **({"max_surge_percent": ONE_AT_A_TIME} if surge else {}),
                "max_ongoing_requests": ENGINE_DOOR,
                "graceful_shutdown_timeout_s": settings.drain_timeout_s,
                **_HEALTH,
                "ray_actor_options": options,
            }
        ],
    }


def _scale(spec: ModelDeploymentSpec) -> dict[str, Any]:
    if spec.autoscaling is None:
        return {"num_replicas": spec.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": spec.autoscaling.min_replicas,
            "max_replicas": spec.autoscaling.max_replicas,
            "target_ongoing_requests": spec.autoscaling.target.ongoing_requests,
        }
    }


def _actor_options(spec: ModelDeploymentSpec, pool: str | None, pools: Mapping[str, Pool]) -> dict[str, Any]:
    """What a replica asks Ray for. Accelerators that Ray does not call GPUs are asked for by their name."""
    wanted = spec.resources
    device = "GPU" if pool is None else pools[pool].hardware.ray
    gpus = wanted.gpus if device == "GPU" else 0
    options: dict[str, Any] = {"num_cpus": engine_cpus(wanted), "num_gpus": float(gpus)}
    if gpus != wanted.gpus:
        options["resources"] = {device: float(wanted.gpus)}
    if wanted.memory is not None:
        options["memory"] = float(wanted.memory)
    if pool is not None:
        options["label_selector"] = {POOL_LABEL: pool}
    return options


def _environment(spec: ServingClusterSpec) -> dict[str, str]:
    """The standard OpenTelemetry variables that a ServingCluster stands for."""
    variables: dict[str, str] = {}
    if spec.telemetry.otlp_endpoint is not None:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = spec.telemetry.otlp_endpoint
        variables["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    if spec.telemetry.sampling_ratio is not None:
        variables["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
        variables["OTEL_TRACES_SAMPLER_ARG"] = f"{spec.telemetry.sampling_ratio:g}"
    return variables
