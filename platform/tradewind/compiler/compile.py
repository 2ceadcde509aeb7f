"""Resources → everything that a platform is started or changed with.

Pure: the same resources in any order give the same result. `tradewind up` puts it into a local Ray;
an operator wraps it in a RayService.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.cluster import ServingClusterSpec
from tradewind.api.deployment import ModelDeploymentSpec
from tradewind.api.wire import EngineSettings, GatewayConfig
from tradewind.compiler.checks import check_world, open_to_all
from tradewind.compiler.diagnostics import CompileError, Diagnostic
from tradewind.compiler.documents import Located
from tradewind.compiler.engines import engine_settings
from tradewind.compiler.gateway import engine_prefix, gateway_config
from tradewind.compiler.secret_names import SecretNames, SecretUse
from tradewind.compiler.world import LOCAL, Platform, World

ENGINE_IMPORT_PATH: Final = "tradewind.serve.applications:engine"
GATEWAY_IMPORT_PATH: Final = "tradewind.serve.applications:gateway"
POOL_LABEL: Final = "tradewind.dev/pool"
_GATEWAY_CPUS: Final = 0.25
_CPU_ENGINE_CPUS: Final = 0.5
_GPU_ENGINE_CPUS: Final = 1.0
_HEALTH: Final = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
# Serve's access log costs more than our whole request and would name paths of failed requests.
_LOGGING: Final = {"enable_access_log": False, "encoding": "JSON"}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A platform, ready to apply. Holds references to secrets, never a secret."""

    serve_config: dict[str, Any]
    """Body of `PUT /api/serve/applications/` (ServeDeploySchema)."""
    gateway: GatewayConfig
    engines: dict[str, EngineSettings]
    """By ModelDeployment, sorted."""
    environment: dict[str, str]
    """OTEL_* variables for every process; those already set in the process's environment come first.
    They take effect when Ray starts."""
    secrets: tuple[SecretUse, ...]
    """Kubernetes Secrets that must be injected as environment variables."""

    def dump(self) -> dict[str, Any]:
        """All of it as JSON-able data, for `tradewind render` and golden files."""
        return {
            "serve": self.serve_config,
            "environment": self.environment,
            "secrets": [{"env": use.env, "name": use.name, "key": use.key} for use in self.secrets],
        }


def compile_resources(resources: Iterable[Located], *, platform: Platform = LOCAL) -> Compiled:
    """Check all resources and compile them.

    Raises:
        CompileError: with everything that is wrong; nothing is compiled then.
    """
    world = World.of(resources)
    secrets = SecretNames()
    wrong: list[Diagnostic] = list(check_world(world, platform))
    engines: dict[str, EngineSettings] = {}
    for located, deployment in world.model_deployments():
        engines[located.name], bad = engine_settings(located, deployment, secrets)
        wrong += bad
    if wrong:
        raise CompileError(wrong)
    gateway = gateway_config(world, engines, secrets, anonymous=open_to_all(world, platform))
    applications = [
        _engine_app(engines[located.name], deployment.spec)
        for located, deployment in world.model_deployments()
    ]
    spec = world.cluster_spec
    drain = max((settings.drain_timeout_s for settings in engines.values()), default=30.0)
    return Compiled(
        serve_config={
            "proxy_location": "EveryNode",
            "http_options": {"host": spec.gateway.endpoint.host, "port": spec.gateway.endpoint.port},
            "logging_config": dict(_LOGGING),
            "applications": [_gateway_app(spec, gateway, drain), *applications],
        },
        gateway=gateway,
        engines=engines,
        environment=_environment(spec),
        secrets=tuple(sorted(secrets.uses)),
    )


def _above(limit: int) -> int:
    """Serve's own bound, a bit above ours, so that it is the gateway that decides and explains."""
    return limit + max(16, limit // 8)


def _gateway_app(spec: ServingClusterSpec, gateway: GatewayConfig, drain_s: float) -> dict[str, Any]:
    return {
        "name": "gateway",
        "route_prefix": "/",
        "import_path": GATEWAY_IMPORT_PATH,
        "args": {"host": spec.gateway.endpoint.host},
        "logging_config": dict(_LOGGING),
        "deployments": [
            {
                "name": "gateway",
                "num_replicas": spec.gateway.replicas,
                "max_ongoing_requests": _above(spec.gateway.max_ongoing_requests),
                "user_config": gateway.model_dump(mode="json"),
                # A stream passes the gateway for as long as the engine behind it may drain.
                "graceful_shutdown_timeout_s": drain_s,
                **_HEALTH,
                "ray_actor_options": {"num_cpus": _GATEWAY_CPUS},
            }
        ],
    }


def _engine_app(settings: EngineSettings, spec: ModelDeploymentSpec) -> dict[str, Any]:
    return {
        "name": settings.name,
        "route_prefix": engine_prefix(settings.name),
        "import_path": ENGINE_IMPORT_PATH,
        "args": {"settings": settings.model_dump(mode="json")},
        "logging_config": dict(_LOGGING),
        "deployments": [
            {
                "name": "engine",
                **_scale(spec),
                "max_ongoing_requests": _above(spec.limits.max_ongoing_requests),
                "graceful_shutdown_timeout_s": settings.drain_timeout_s,
                **_HEALTH,
                "ray_actor_options": _actor_options(spec),
            }
        ],
    }


def _scale(spec: ModelDeploymentSpec) -> dict[str, Any]:
    if spec.autoscaling is None:
        return {"num_replicas": spec.replicas or 1}
    return {
        "autoscaling_config": {
            "min_replicas": spec.autoscaling.min_replicas,
            "max_replicas": spec.autoscaling.max_replicas,
            "target_ongoing_requests": spec.autoscaling.target.ongoing_requests,
        }
    }


def _actor_options(spec: ModelDeploymentSpec) -> dict[str, Any]:
    wanted = spec.resources
    cpus = wanted.cpus if wanted.cpus is not None else _GPU_ENGINE_CPUS if wanted.gpus else _CPU_ENGINE_CPUS
    options: dict[str, Any] = {"num_cpus": float(cpus), "num_gpus": float(wanted.gpus)}
    if wanted.memory is not None:
        options["memory"] = float(wanted.memory)
    if wanted.pool is not None:
        options["label_selector"] = {POOL_LABEL: wanted.pool}
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
