"""What the operator writes into `status`: conditions, and what a person asks about each kind.

All fields are optional, because a resource has no status before it was looked at. Dump with
`by_alias=True, exclude_none=True`. Text from outside (an engine's error) is cut to what the API server
takes, because a status that is refused would tell nobody anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue

from tradewind.api.model import ApiModel
from tradewind.api.values import Name

MOST_MESSAGE: Final = 2_048
"""Characters of a condition's message or an engine's error."""

_TIME_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


def _cut(text: object) -> object:
    if isinstance(text, str) and len(text) > MOST_MESSAGE:
        return text[: MOST_MESSAGE - 1] + "…"
    return text


Message = Annotated[str, Field(min_length=1, max_length=MOST_MESSAGE), BeforeValidator(_cut)]
"""A sentence for people; what is longer than `MOST_MESSAGE` is cut."""
Time = Annotated[str, Field(pattern=_TIME_PATTERN, max_length=20, json_schema_extra={"format": "date-time"})]
"""UTC in whole seconds, as Kubernetes writes it."""
Text = Annotated[str, Field(max_length=512)]
Digest = Annotated[str, Field(max_length=128)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Generation = Annotated[int, Field(ge=0, le=2**63 - 1)]


def time_of(moment: datetime) -> str:
    """An aware point in time as a `Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Condition(ApiModel):
    """One thing that holds or does not, as Kubernetes' own resources say it."""

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]
    """What it is about: `Accepted`, `Ready`, for a ModelDeployment with adapters `AdaptersReady`, and for a
    ServingCluster `HeadReady`, `PodsCurrent` and `ClusterUpgrade`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)]
    """Why, in one word for programs."""
    message: Message
    """Why, and what to do, in a sentence for people."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Generation | None = None
    """`metadata.generation` that this was said of."""


class Accepted(ApiModel):
    """The last spec without a fault. It stays in force while a newer one is refused."""

    api_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the API that `spec` is written in; `tradewind.dev/v1alpha1` where it is missing."""
    generation: Generation
    """`metadata.generation` it had."""
    spec: Annotated[dict[str, JsonValue], Field(max_length=64)]
    """As it was written, defaults included."""


class ResourceStatus(ApiModel):
    """What all kinds tell."""

    observed_generation: Generation | None = None
    """`metadata.generation` that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] | None = None
    """`Accepted`: the resource has no fault. `Ready`: it does what it says."""
    accepted: Accepted | None = None
    """The last spec without a fault. It stays in force while a newer one is refused."""


class ServingClusterStatus(ResourceStatus):
    """State of the platform."""

    endpoint: Text | None = None
    """URL of the platform in the Kubernetes cluster."""
    ray_cluster: Text | None = None
    """RayCluster that answers."""
    pending_ray_cluster: Text | None = None
    """RayCluster that is being built to replace it."""
    revision: Digest | None = None
    """Configuration that every ready gateway has in force."""
    gateway_replicas: Count | None = None
    """Gateways wanted."""
    gateway_ready: Count | None = None
    """Gateways that answer."""
    models: Count | None = None
    """ModelDeployments in it."""
    routes: Count | None = None
    """ModelRoutes in it."""
    tenants: Count | None = None
    """Tenants in it."""


class AdapterStatus(ApiModel):
    """How the replicas of a model have one LoRA adapter."""

    name: Name
    """The adapter."""
    state: Literal["Ready", "Loading", "Failed"]
    """`Ready`: every replica answers with it. `Loading`: one does not yet. `Failed`: one cannot load it."""
    ready_replicas: Count
    """Replicas that answer with it."""
    message: Message | None = None
    """What it waits for, why it failed, or why its newest source is not in use."""


class ModelDeploymentStatus(ResourceStatus):
    """State of one model."""

    state: Literal["Pending", "Deploying", "Running", "Failed", "Draining"] | None = None
    """Where it is in its life."""
    replicas: Count | None = None
    """Replicas there are; what `kubectl scale` reads."""
    ready_replicas: Count | None = None
    """Replicas that answer."""
    wanted_replicas: Count | None = None
    """Replicas that there should be now."""
    selector: Text | None = None
    """Label selector of its pods, for `kubectl scale` and autoscalers."""
    pool: Name | None = None
    """Pool that it runs on."""
    endpoint: Text | None = None
    """URL of the platform that answers for it."""
    family: Text | None = None
    """Architecture family shown in `/v1/models`."""
    context_length: Annotated[int, Field(ge=0, le=2**40)] | None = None
    """Tokens of prompt and answer together."""
    revision: Digest | None = None
    """Digest of the engine settings that are served."""
    adapters: Annotated[tuple[AdapterStatus, ...], Field(max_length=64)] | None = None
    """How its LoRA adapters are. Condition `AdaptersReady`: all of them answer."""
    last_error: Message | None = None
    """The engine's own words when it last failed; absent while it runs."""


class VariantStatus(ApiModel):
    """One variant's share as it is in force."""

    name: Name
    """The variant."""
    deployment: Name
    """ModelDeployment that answers."""
    weight: Annotated[int, Field(ge=0, le=1_000_000)]
    """Its weight."""
    percent: Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})\.[0-9]$", max_length=5)]
    """Its share of the callers, such as `12.5`."""
    ready: bool
    """Whether its deployment answers."""


class ModelRouteStatus(ResourceStatus):
    """State of one route."""

    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=32)] | None = None
    """Who answers, and for how much of the traffic."""
    split: Text | None = None
    """The same in one line: `control 80.0%, candidate 20.0%`."""
    revision: Digest | None = None
    """Configuration of the gateways that has this route."""


class TenantStatus(ResourceStatus):
    """State of one tenant."""

    keys: Count | None = None
    """API keys that are in force."""
    models: Count | None = None
    """Models that these keys open."""


STATUSES: Final[Mapping[str, type[ResourceStatus]]] = {
    "ServingCluster": ServingClusterStatus,
    "ModelDeployment": ModelDeploymentStatus,
    "ModelRoute": ModelRouteStatus,
    "Tenant": TenantStatus,
}
"""The status model of each kind."""
