"""ServingCluster: the gateway, its limits and what it tells about requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tradewind.api.model import ApiModel, Fault, ResourceModel
from tradewind.api.values import HOST_PATTERN, TEXT_PATTERN, Between, Duration, Port, Quantity

_POOLS = (
    "this version does not create nodes; label them and name the pool in ModelDeployment spec.resources.pool"
)
_IMAGES = "this version runs the installed Ray and vLLM"

Url = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=8, max_length=2048)]


def url_faults(url: str | None, at: str) -> Iterable[Fault]:
    """Faults of an http(s) URL. The text is never repeated: it may hold a password."""
    if url is None:
        return
    if not url.startswith(("http://", "https://")):
        yield Fault((at,), "found another scheme; allowed: an http:// or https:// URL")
    elif "@" in url or "?" in url or "#" in url:
        yield Fault((at,), "found '@', '?' or '#'; allowed: a URL without user, password, query and fragment")


class Endpoint(ApiModel):
    """Where clients reach the platform."""

    host: Annotated[str, Field(pattern=HOST_PATTERN, max_length=253)] = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a Tenant."""
    port: Port = 8000
    """TCP port to listen on. Host and port take effect when the platform starts."""


class GatewaySpec(ApiModel):
    """The processes that every request passes."""

    planned: ClassVar[Mapping[str, str]] = {
        "minReplicas": "this version runs a fixed number: use replicas",
        "maxReplicas": "this version runs a fixed number: use replicas",
        "autoscaling": "this version runs a fixed number: use replicas",
    }

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Gateway processes."""
    max_ongoing_requests: Annotated[int, Field(ge=1, le=65_536)] = 4_096
    """Requests in flight in one gateway replica; more get 503."""
    endpoint: Endpoint = Field(default_factory=Endpoint)
    """Where clients reach the platform."""
    metrics_port: Annotated[int, Field(ge=1024, le=65_472)] = 9464
    """Prometheus port; gateway replica k of a node listens on this port + k."""

    def faults(self) -> Iterable[Fault]:
        last = self.metrics_port + self.replicas - 1
        if self.metrics_port <= self.endpoint.port <= last:
            yield Fault(
                ("metricsPort",),
                f"found {self.metrics_port}, which with {self.replicas} replicas reaches the endpoint's port "
                f"{self.endpoint.port}; allowed: a range without it",
            )


class LimitsSpec(ApiModel):
    """Bounds on one request, checked before an engine hears of it."""

    planned: ClassVar[Mapping[str, str]] = {
        "remoteMedia": "this version takes images and audio inline (data: URLs) only",
        "concurrentRequests": "use spec.gateway.maxOngoingRequests",
    }

    body_size: Annotated[Quantity, Between("1Ki", "256Mi")] = Quantity(10 * 2**20)
    """Bytes of a request's body."""
    header_size: Annotated[Quantity, Between("1Ki", "64Ki")] = Quantity(32 * 2**10)
    """Bytes of a request's head."""
    body_timeout: Annotated[Duration, Between("1s", "10m")] = Duration(30)
    """From the first byte of the head to the last of the body."""
    json_depth: Annotated[int, Field(ge=4, le=256)] = 64
    """Nesting of objects and arrays."""
    json_containers: Annotated[int, Field(ge=100, le=1_000_000)] = 50_000
    """Objects and arrays in one body."""
    json_items: Annotated[int, Field(ge=100, le=10_000_000)] = 1_000_000
    """Array items and object members in one body."""
    n: Annotated[int, Field(ge=1, le=128)] = 16
    """Answers to one prompt."""
    prompts: Annotated[int, Field(ge=1, le=4_096)] = 256
    """Prompts, inputs or documents in one request."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 131_072
    """Tokens of one answer that may be asked for."""
    stop: Annotated[int, Field(ge=0, le=256)] = 16
    """Stop strings."""
    stop_chars: Annotated[int, Field(ge=1, le=65_536)] = 1_024
    """Characters of all stop strings together."""
    logprobs: Annotated[int, Field(ge=0, le=100)] = 20
    """Log probabilities per token."""
    pattern_chars: Annotated[int, Field(ge=1, le=65_536)] = 4_096
    """Characters of a regular expression, grammar or choice list."""
    schema_size: Annotated[Quantity, Between("1Ki", "1Mi")] = Quantity(65_536)
    """Bytes of a JSON Schema for structured output or a tool."""
    tools: Annotated[int, Field(ge=0, le=1_024)] = 128
    """Tools in one request."""


class TelemetrySpec(ApiModel):
    """Where spans and metrics go. The standard OTEL_* variables of the process come first."""

    planned: ClassVar[Mapping[str, str]] = {
        "captureContent": "this version never writes prompts or answers anywhere",
    }

    otlp_endpoint: Url | None = None
    """OTLP/HTTP collector, such as `http://collector:4318`. Absent: a local file, read by `tradewind trace`.
    Takes effect when the platform starts."""
    sampling_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of traces that are kept when the caller does not say. Absent: all. Takes effect when the
    platform starts."""

    def faults(self) -> Iterable[Fault]:
        yield from url_faults(self.otlp_endpoint, "otlpEndpoint")


class ServingClusterSpec(ApiModel):
    """The gateway of one platform."""

    planned: ClassVar[Mapping[str, str]] = {
        "pools": _POOLS,
        "head": _POOLS,
        "rayVersion": _IMAGES,
        "image": _IMAGES,
        "images": _IMAGES,
        "gcsFaultTolerance": "this version has no GCS fault tolerance",
        "upgradeStrategy": "this version has no upgrade strategy",
        "networkPolicy": "this version writes no network policies",
    }

    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    """The processes that every request passes."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """Bounds on one request."""
    telemetry: TelemetrySpec = Field(default_factory=TelemetrySpec)
    """Traces and metrics."""


class ServingCluster(ResourceModel):
    """The platform itself. Without one, a ServingCluster `default` with all defaults is assumed."""

    kind: Literal["ServingCluster"]
    """Always `ServingCluster`."""
    spec: ServingClusterSpec = Field(default_factory=ServingClusterSpec)
