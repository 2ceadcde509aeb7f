"""ServingCluster: the gateway with its limits and telemetry and, in Kubernetes, the pods it all runs on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from tradewind.api.fault_tolerance import GcsFaultTolerance
from tradewind.api.model import ApiModel, Fault, Path, ResourceModel
from tradewind.api.networks import Cidr, PeerSelector, cidr_faults
from tradewind.api.nodes import (
    Cpus,
    HeadSpec,
    ImagesSpec,
    PodMemory,
    Pool,
    Tolerations,
)
from tradewind.api.pods import PodSettings
from tradewind.api.secrets import SecretKeyRef
from tradewind.api.values import (
    HOST_PATTERN,
    ORIGIN_PATTERN,
    TEXT_PATTERN,
    VERSION_PATTERN,
    Annotations,
    Between,
    Duration,
    LabelKey,
    Labels,
    PoolName,
    Port,
    Quantity,
    SecretName,
)

MAX_CLUSTER_NAME: Final = 40
"""KubeRay makes longer names of it, which Kubernetes bounds."""
Url = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=8, max_length=2048)]

Origin = Annotated[str, Field(pattern=ORIGIN_PATTERN, max_length=294)]


def url_faults(url: str | None, at: str) -> Iterable[Fault]:
    """Faults of an http(s) URL. The text is never repeated: it may hold a password."""
    if url is None:
        return
    if not url.startswith(("http://", "https://")):
        yield Fault((at,), "found another scheme; allowed: an http:// or https:// URL")
    elif "@" in url or "?" in url or "#" in url:
        yield Fault((at,), "found '@', '?' or '#'; allowed: a URL without user, password, query and fragment")


class Endpoint(ApiModel):
    """Where clients reach a platform on one machine. In a cluster they call port 8000 of a Service."""

    host: Annotated[str, Field(pattern=HOST_PATTERN, max_length=253)] = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a Tenant. On one machine only."""
    port: Port = 8000
    """TCP port to listen on. Host and port take effect when the platform starts. On one machine only."""


class GatewayService(ApiModel):
    """How the endpoint's Service is seen from outside. A change is made in place, without another pod."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "ClusterIP"
    """Type of the Service."""
    annotations: Annotations = Field(default_factory=dict)
    """Its annotations, such as a cloud's for its load balancer."""
    load_balancer_class: LabelKey | None = None
    """Implementation of the load balancer. Absent: the cloud's default. Kubernetes lets nobody change it."""
    load_balancer_source_ranges: Annotated[tuple[Cidr, ...], Field(max_length=32)] = ()
    """CIDR blocks that the load balancer lets in; the network policy does too. Empty: all."""
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    """`Local` keeps the callers' addresses, by which the network policy lets in loadBalancerSourceRanges.
    Absent: `Local` with those ranges, else `Cluster`."""

    @property
    def traffic_policy(self) -> Literal["Cluster", "Local"]:
        """externalTrafficPolicy with its default."""
        return self.external_traffic_policy or ("Local" if self.load_balancer_source_ranges else "Cluster")

    def faults(self) -> Iterable[Fault]:
        given = {
            "loadBalancerClass": self.load_balancer_class is not None,
            "loadBalancerSourceRanges": bool(self.load_balancer_source_ranges),
        }
        for name, there in given.items():
            if there and self.type != "LoadBalancer":
                yield Fault((name,), f"found with type {self.type}; allowed with LoadBalancer only")
        if self.external_traffic_policy is not None and self.type == "ClusterIP":
            message = "found with type ClusterIP; allowed with LoadBalancer and NodePort only"
            yield Fault(("externalTrafficPolicy",), message)
        yield from cidr_faults(self.load_balancer_source_ranges, "loadBalancerSourceRanges")


class CorsSpec(ApiModel):
    """Pages that may call the endpoint from a browser (CORS). A change takes effect without a restart."""

    allowed_origins: Annotated[tuple[Origin, ...], Field(max_length=64)] = ()
    """Their origins, such as `https://chat.example.com` or `http://localhost:3000`, exactly as a browser
    sends them: lower case, no path, no port where it is the scheme's own. There is no wildcard. Empty: no
    page of another origin may."""


class GatewaySpec(ApiModel):
    """The processes that every request passes."""

    planned: ClassVar[Mapping[str, str]] = {
        "minReplicas": "this version runs a fixed number: use replicas",
        "maxReplicas": "this version runs a fixed number: use replicas",
        "autoscaling": "this version runs a fixed number: use replicas",
    }

    replicas: Annotated[int, Field(ge=1, le=64)] | None = None
    """Gateway processes. Absent: 1 on one machine, 2 in a cluster, which needs at least 2."""
    service: GatewayService | None = None
    """How the endpoint is seen from outside. Absent: as the operator's settings say for all. In a cluster
    only."""
    max_ongoing_requests: Annotated[int, Field(ge=1, le=65_536)] = 4_096
    """Requests in flight in one gateway replica; more get 503."""
    endpoint: Endpoint = Field(default_factory=Endpoint)
    """Where clients reach the platform."""
    cors: CorsSpec = Field(default_factory=CorsSpec)
    """Which pages may call the endpoint from a browser."""
    metrics_port: Annotated[int, Field(ge=1024, le=65_472)] = 9464
    """Prometheus port; gateway replica k of a node listens on this port + k."""
    cpus: Cpus = 1.0
    """CPUs of one gateway pod. In a cluster only."""
    memory: PodMemory = Quantity(2 * 2**30)
    """Memory of one gateway pod. In a cluster only."""
    pod: PodSettings = Field(default_factory=PodSettings)
    """What a platform team gives to gateway pods; it comes before `spec.pod`. In a cluster only."""
    node_selector: Labels = Field(default_factory=dict)
    """Node labels that gateway pods need. In a cluster only."""
    tolerations: Tolerations = ()
    """Taints that gateway pods bear. In a cluster only."""

    def faults(self) -> Iterable[Fault]:
        replicas = self.replicas or 1
        last = self.metrics_port + replicas - 1
        if self.metrics_port <= self.endpoint.port <= last:
            yield Fault(
                ("metricsPort",),
                f"found {self.metrics_port}, which with {replicas} replicas reaches the endpoint's port "
                f"{self.endpoint.port}; allowed: a range without it",
            )


class LimitsSpec(ApiModel):
    """Bounds on one request, checked before an engine hears of it."""

    planned: ClassVar[Mapping[str, str]] = {
        "remoteMedia": "this version takes images and audio inline (data: URLs) only",
        "concurrentRequests": "use spec.gateway.maxOngoingRequests",
        "n": "a key that Kubernetes' YAML reads as false; use choices",
    }

    body_size: Annotated[Quantity, Between("1Ki", "256Mi")] = Quantity(10 * 2**20)
    """Bytes of a request's body."""
    header_size: Annotated[Quantity, Between("1Ki", "64Ki")] = Quantity(32 * 2**10)
    """Bytes of a request's head."""
    body_timeout: Annotated[Duration, Between("1s", "10m")] = Duration(30)
    """How long a body may take to arrive."""
    json_depth: Annotated[int, Field(ge=4, le=256)] = 64
    """Nesting of objects and arrays."""
    json_containers: Annotated[int, Field(ge=100, le=1_000_000)] = 50_000
    """Objects and arrays in one body."""
    json_items: Annotated[int, Field(ge=100, le=10_000_000)] = 1_000_000
    """Array items and object members in one body."""
    choices: Annotated[int, Field(ge=1, le=128)] = 16
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
    tokenize_size: Annotated[Quantity, Between("1Ki", "64Mi")] = Quantity(2**20)
    """Bytes of JSON of a prompt, of messages or of tools at `/tokenize`."""


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
    engine_metrics: bool = False
    """Whether vLLM's own metrics are among Ray's, which each node has on one port (8080 in Kubernetes), named
    `ray_vllm_…`, instead of on each replica's guarded port. Costs CPU with every token. A change starts each
    engine anew."""

    def faults(self) -> Iterable[Fault]:
        yield from url_faults(self.otlp_endpoint, "otlpEndpoint")


class ServiceAccountSpec(ApiModel):
    """The Kubernetes account of the engines' pods, `<name>-engines`, by which a cloud knows them."""

    annotations: Annotations = Field(default_factory=dict)
    """Of the account: `eks.amazonaws.com/role-arn`, `iam.gke.io/gcp-service-account`,
    `azure.workload.identity/client-id`."""
    workload_identity: Literal["EKS", "GKE", "Azure"] | None = None
    """The cloud that gives engines credentials by this account: opens its metadata address to them (EKS Pod
    Identity, GKE) or labels their pods (Azure). For IRSA on EKS the annotation is enough."""


class UpgradeStrategy(ApiModel):
    """What happens when a change needs a second Ray cluster beside the first."""

    type: Literal["Hold", "NewCluster"] = "Hold"
    """`Hold` says in the status what it needs, and waits for the annotation `tradewind.dev/approve-upgrade`;
    `NewCluster` builds it at once. The running one serves until the second can take over."""


class NetworkPolicySpec(ApiModel):
    """Who may talk to the pods, and they to whom. Everything else is denied."""

    enabled: bool = True
    """Whether network policies are made."""
    allow_from: Annotated[tuple[PeerSelector, ...], Field(max_length=32)] = ()
    """Who may call the endpoint. Empty: every pod and, through a load balancer, everyone."""
    allow_egress_to: Annotated[tuple[Cidr, ...], Field(max_length=32)] = ("0.0.0.0/0", "::/0")
    """Where engines may fetch weights from, on port 443 and that of a model source's endpoint."""

    def faults(self) -> Iterable[Fault]:
        yield from cidr_faults(self.allow_egress_to, "allowEgressTo")


class ServingClusterSpec(ApiModel):
    """One platform: its gateway and, in a cluster, its pods."""

    planned: ClassVar[Mapping[str, str]] = {
        "image": "use images, and pools.<name>.engineImage",
    }

    ray_version: Annotated[str, Field(pattern=VERSION_PATTERN, max_length=14)] = "2.60.0"
    """Version of Ray in the images. In a cluster only."""
    images: ImagesSpec = Field(default_factory=ImagesSpec)
    """Images other than the operator's defaults. In a cluster only."""
    image_pull_secrets: Annotated[tuple[SecretName, ...], Field(max_length=8)] = ()
    """Secrets with which images are pulled. In a cluster only."""
    pod: PodSettings = Field(default_factory=PodSettings)
    """What a platform team gives to every pod; `head.pod`, `gateway.pod` and a pool's `pod` come before it.
    In a cluster only."""
    head: HeadSpec = Field(default_factory=HeadSpec)
    """Ray's head pod. In a cluster only."""
    pools: Annotated[dict[PoolName, Pool], Field(max_length=32)] = Field(default_factory=dict)
    """Nodes that engines run on, by the name that a model's spec.resources.pool says. In a cluster only."""
    gcs_fault_tolerance: GcsFaultTolerance = Field(default_factory=GcsFaultTolerance)
    """Keeps Ray's state outside the head pod. In a cluster only."""
    upgrade_strategy: UpgradeStrategy = Field(default_factory=UpgradeStrategy)
    """What to do about changes that need a second Ray cluster. In a cluster only."""
    service_account: ServiceAccountSpec = Field(default_factory=ServiceAccountSpec)
    """The engines' account, for buckets that a cloud opens to it. In a cluster only."""
    network_policy: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)
    """Who may talk to whom. In a cluster only."""
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    """The processes that every request passes."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """Bounds on one request."""
    telemetry: TelemetrySpec = Field(default_factory=TelemetrySpec)
    """Traces and metrics."""

    def faults(self) -> Iterable[Fault]:
        service, policy = self.gateway.service, self.network_policy
        if service is None or service.type == "ClusterIP" or not policy.enabled or not policy.allow_from:
            return
        outside = any(peer.ip_block is not None for peer in policy.allow_from)
        if not outside and not service.load_balancer_source_ranges:
            yield Fault(
                ("networkPolicy", "allowFrom"),
                f"found pods only, so nobody outside reaches gateway.service of type {service.type}; allowed "
                "with it: an ipBlock (of callers with externalTrafficPolicy Local, else of the nodes)",
                "or gateway.service.loadBalancerSourceRanges",
            )

    @property
    def pools_by_name(self) -> tuple[tuple[str, Pool], ...]:
        """The pools in the order of their names, which is all the order that a map has."""
        return tuple(sorted(self.pools.items()))

    def secrets(self) -> Iterator[tuple[Path, SecretKeyRef]]:
        """Every Secret's key that it names, with its place in the resource."""
        if (redis := self.gcs_fault_tolerance.redis) is not None:
            for name, reference in (("username", redis.username), ("password", redis.password)):
                if reference is not None:
                    yield ("spec", "gcsFaultTolerance", "redis", name), reference
        places: list[tuple[Path, PodSettings]] = [
            (("pod",), self.pod),
            (("head", "pod"), self.head.pod),
            (("gateway", "pod"), self.gateway.pod),
        ]
        places += [(("pools", name, "pod"), pool.pod) for name, pool in self.pools_by_name]
        for place, settings in places:
            for path, reference in settings.secrets():
                yield ("spec", *place, *path), reference


class ServingCluster(ResourceModel):
    """The platform itself. Without one, a ServingCluster `default` with all defaults is assumed."""

    kind: Literal["ServingCluster"]
    """Always `ServingCluster`."""
    spec: ServingClusterSpec = Field(default_factory=ServingClusterSpec)

    def faults(self) -> Iterable[Fault]:
        name = self.metadata.name
        if len(name) > MAX_CLUSTER_NAME:
            message = (
                f"found {len(name)} characters; allowed: at most {MAX_CLUSTER_NAME} for a ServingCluster"
            )
            yield Fault(("metadata", "name"), message)
        if name[:1].isdigit():
            message = f"found {name!r}; allowed: a letter first, for Services and KubeRay bear the name too"
            yield Fault(("metadata", "name"), message)
