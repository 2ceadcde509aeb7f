"""ModelDeployment: one model on vLLM, with its weights, arguments, hardware and replicas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from tradewind.api.environment import FORBIDDEN_ENV, SECRET_ENV, UNSAFE_ENV
from tradewind.api.model import ApiModel, Fault, Path, ResourceModel, repeated
from tradewind.api.secrets import TokenRef
from tradewind.api.sources import AdapterSource, BucketCredentials, ModelSource
from tradewind.api.values import TEXT_PATTERN, Between, Duration, EnvName, Name, Quantity
from tradewind.api.wire import Task

_SIGNALS = "this version scales by target.ongoingRequests"


class EnvVariable(ApiModel):
    """One environment variable of an engine's process. Not for secrets."""

    name: EnvName
    """Name of the variable."""
    value: Annotated[str, Field(pattern=TEXT_PATTERN, max_length=4_096)]
    """Its value; numbers in quotes."""

    def faults(self) -> Iterable[Fault]:
        if self.name.startswith(FORBIDDEN_ENV) or self.name in UNSAFE_ENV:
            yield Fault(("name",), f"found {self.name!r}, which the platform sets or does not allow")
        elif self.name.split("_")[-1].upper() in SECRET_ENV:
            yield Fault(
                ("name",),
                f"found {self.name!r}, which looks like a secret; a resource holds none",
                "use spec.source.tokenSecret, or set it in the environment of the platform",
            )


class EngineSpec(ApiModel):
    """vLLM's own settings."""

    planned: ClassVar[Mapping[str, str]] = {"plugins": "this version loads no engine plugins"}

    args: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=128)], JsonValue], Field(max_length=128)
    ] = Field(default_factory=dict)
    """vLLM engine arguments, `maxModelLen: 8192`; see the reference of engine arguments."""
    env: Annotated[tuple[EnvVariable, ...], Field(max_length=64)] = ()
    """Environment variables of the engine's process."""

    def faults(self) -> Iterable[Fault]:
        yield from repeated((variable.name for variable in self.env), ("env",), "variable", "name")


class Resources(ApiModel):
    """What one replica takes of a node."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of one node; 0 runs on CPU."""
    cpus: Annotated[float, Field(ge=0, le=1_024)] | None = None
    """CPUs that are reserved. Absent: 0.5 without GPUs, 1 with them."""
    memory: Annotated[Quantity, Between("1Mi", "64Ti")] | None = None
    """Memory that is reserved. Absent: none."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs that share each layer. Absent: gpus / pipelineParallel."""
    pipeline_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Stages of layers, each on tensorParallel GPUs."""
    pool: Name | None = None
    """Only nodes with the Ray label `tradewind.dev/pool` of this value. Only in a cluster."""

    @property
    def tensor_parallel_size(self) -> int:
        """tensorParallel with its default."""
        return self.tensor_parallel or max(1, self.gpus // self.pipeline_parallel)

    def faults(self) -> Iterable[Fault]:
        if not self.gpus and (self.tensor_parallel or 1) * self.pipeline_parallel > 1:
            yield Fault(
                (),
                f"found gpus 0 with tensorParallel {self.tensor_parallel or 1} and pipelineParallel "
                f"{self.pipeline_parallel}; allowed: both 1 without GPUs",
            )
        elif self.gpus and self.tensor_parallel_size * self.pipeline_parallel != self.gpus:
            yield Fault(
                ("gpus",),
                f"found {self.gpus}; allowed: tensorParallel x pipelineParallel, which is "
                f"{self.tensor_parallel_size} x {self.pipeline_parallel} = "
                f"{self.tensor_parallel_size * self.pipeline_parallel}",
            )


class Target(ApiModel):
    """What autoscaling holds each replica at."""

    planned: ClassVar[Mapping[str, str]] = {
        "waitingRequests": _SIGNALS,
        "kvCacheUse": _SIGNALS,
        "ttftP95": _SIGNALS,
    }

    ongoing_requests: Annotated[float, Field(gt=0, le=65_536)] = 16.0
    """Requests in flight per replica."""


class Autoscaling(ApiModel):
    """Replicas by load."""

    planned: ClassVar[Mapping[str, str]] = {
        "scaleToZeroAfter": "this version keeps at least one replica",
        "minReplicas": "this version does not scale to zero",
        "policy": _SIGNALS,
    }

    min_replicas: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Replicas at least."""
    max_replicas: Annotated[int, Field(ge=1, le=1_000)]
    """Replicas at most."""
    target: Target = Field(default_factory=Target)
    """What each replica is held at."""

    def faults(self) -> Iterable[Fault]:
        if self.min_replicas > self.max_replicas:
            yield Fault(
                ("minReplicas",),
                f"found {self.min_replicas}; allowed: at most maxReplicas, which is {self.max_replicas}",
            )


class DeploymentLimits(ApiModel):
    """Bounds of one replica."""

    max_ongoing_requests: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Requests in flight in one replica, from all gateways; when all are full, clients wait, then get 503."""
    request_timeout: Annotated[Duration, Between("1s", "24h")] = Duration(600)
    """Longest time of one request to this deployment."""


class Update(ApiModel):
    """How a replica is replaced when the model's settings change."""

    surge: Literal["Auto", "Always", "Never"] = "Auto"
    """Whether the successor starts first: `Auto` where its pool has room for one replica more (on one
    machine: without GPUs), `Always`, or `Never`, which stops first. A successor that finds no place waits,
    and the old replica goes on."""


class Drain(ApiModel):
    """How a replica goes away."""

    timeout: Annotated[Duration, Between("1s", "1h")] = Duration(300)
    """How long requests in flight may go on before a replica is stopped."""


class ModelDeploymentSpec(ApiModel):
    """One model on vLLM."""

    planned: ClassVar[Mapping[str, str]] = {"priority": "this version treats all deployments alike"}

    cluster: Name = "default"
    """ServingCluster that runs it."""
    source: ModelSource
    """Where the weights come from."""
    task: Task = Task.GENERATE
    """What the model does: `generate`, `embed` or `score`."""
    family: Name | None = None
    """Architecture family shown in `/v1/models`, such as `llama`. Absent: guessed from the source."""
    engine: EngineSpec = Field(default_factory=EngineSpec)
    """vLLM's own settings."""
    resources: Resources = Field(default_factory=Resources)
    """What one replica takes of a node."""
    # Written out in every resource, for `kubectl scale` and a HorizontalPodAutoscaler ask for it.
    replicas: Annotated[int, Field(ge=1, le=1_000)] = 1
    """A fixed number of replicas. Beside autoscaling it stays 1, which then says nothing."""
    autoscaling: Autoscaling | None = None
    """Replicas by load, instead of `replicas`."""
    adapters: Annotated[tuple[AdapterSource, ...], Field(max_length=64)] = ()
    """LoRA adapters, each callable as `<deployment>:<adapter>`."""
    limits: DeploymentLimits = Field(default_factory=DeploymentLimits)
    """Bounds of one replica."""
    update: Update = Field(default_factory=Update)
    """How a replica is replaced when the model's settings change."""
    drain: Drain = Field(default_factory=Drain)
    """How a replica goes away."""

    def tokens(self) -> Iterator[tuple[Path, TokenRef]]:
        """Every secret that its sources name, with its place in the resource."""
        if self.source.token_secret is not None:
            yield ("spec", "source", "tokenSecret"), self.source.token_secret
        places: list[tuple[Path, BucketCredentials | None]] = [(("source",), self.source.credentials)]
        places += [(("adapters", at), adapter.credentials) for at, adapter in enumerate(self.adapters)]
        for place, credentials in places:
            for path, token in credentials.tokens() if credentials is not None else ():
                yield ("spec", *place, "credentials", *path), token

    def faults(self) -> Iterable[Fault]:
        if self.replicas != 1 and self.autoscaling is not None:
            yield Fault((), "found replicas and autoscaling; allowed: at most one of them")
        most = self.limits.max_ongoing_requests
        if self.autoscaling is not None and self.autoscaling.target.ongoing_requests > most:
            yield Fault(
                ("autoscaling", "target", "ongoingRequests"),
                f"found {self.autoscaling.target.ongoing_requests:g}; allowed: at most "
                f"limits.maxOngoingRequests, which is {most}",
            )
        yield from repeated((adapter.name for adapter in self.adapters), ("adapters",), "adapter", "name")


class ModelDeployment(ResourceModel):
    """One model on vLLM: weights, arguments, hardware, replicas."""

    kind: Literal["ModelDeployment"]
    """Always `ModelDeployment`."""
    spec: ModelDeploymentSpec

    def faults(self) -> Iterable[Fault]:
        if self.metadata.name == "gateway":
            yield Fault(
                ("metadata", "name"), "found 'gateway', which is the platform's own; allowed: another name"
            )
