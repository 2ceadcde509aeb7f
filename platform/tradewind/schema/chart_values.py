"""The values of the Helm chart. Its JSON Schema and its reference page are written from this model.

There is no value that switches Ray's token authentication off and none that exposes Ray's dashboard: both
are fixed, and as unknown keys are refused, nobody can believe to have done it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from tradewind.api.cluster import ServingClusterSpec, url_faults
from tradewind.api.model import ApiModel, Fault
from tradewind.api.nodes import CacheSpec, HeadSpec, Pool, Toleration, Tolerations
from tradewind.api.values import (
    CIDR_PATTERN,
    IMAGE_PATTERN,
    LABEL_KEY_PATTERN,
    LabelKey,
    Labels,
    LabelValue,
    ModelName,
    Port,
    Quantity,
    SecretKey,
    SecretName,
)

REGISTRY: Final = "ghcr.io"
ORGANISATION: Final = "tradewind-ai"
Annotations = Annotated[
    dict[
        Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)],
        Annotated[str, Field(max_length=4096)],
    ],
    Field(max_length=32),
]
MaybeSecret = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$", max_length=253)]
MaybeText = Annotated[str, Field(max_length=253)]
Amount = Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(m|k|M|G|Ki|Mi|Gi)?$", max_length=16)]
Amounts = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z0-9./-]{1,63}$", max_length=63)], Amount], Field(max_length=8)
]
Cidrs = Annotated[
    tuple[Annotated[str, Field(pattern=CIDR_PATTERN, max_length=49)], ...], Field(max_length=32)
]
Ports = Annotated[tuple[Port, ...], Field(max_length=8)]
ReleaseName = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", max_length=40)]
Namespace = Annotated[str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$", max_length=63)]
Interval = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}(s|m)$", max_length=8)]


class Global(ApiModel):
    """What the chart shares with a chart that contains it; keys of other charts may stand here too."""

    # Helm hands `global` to every chart of a release, so another chart's keys are not a mistake here.
    model_config = ConfigDict(extra="allow")

    image_registry: MaybeText = ""
    """Registry that replaces that of all four images, such as `registry.example:5000/mirror`; for air-gapped
    clusters. KubeRay's image is `kuberay-operator.image.repository`."""
    image_pull_secrets: Annotated[tuple[SecretName, ...], Field(max_length=8)] = ()
    """Secrets with which images are pulled, in the release's namespace."""


class ChartImage(ApiModel):
    """One image: `<registry>/<repository>@<digest>` or, without a digest, `:<tag>`."""

    registry: MaybeText = REGISTRY
    """Registry."""
    repository: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]{0,253}$", max_length=254)]
    """Path in the registry."""
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,128}$", max_length=128)] = ""
    """Tag. Empty: the chart's appVersion."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$", max_length=71)] = ""
    """Digest, such as `sha256:...`; it comes before the tag."""


def chart_image(part: str) -> ChartImage:
    """The published image of one part."""
    return ChartImage(repository=f"{ORGANISATION}/tradewind-{part}")


class Crds(ApiModel):
    """The custom resource definitions, which all releases of a Kubernetes cluster share."""

    install: bool = True
    """Whether this release installs and upgrades them. They stay when it is uninstalled."""
    migrate: bool = False
    """Whether a Job stores all resources of the Kubernetes cluster in the version of now, after the release
    is installed or upgraded: needed before a version can be dropped."""


class Kuberay(ApiModel):
    """KubeRay's operator, which turns a ServingCluster's RayClusters into pods."""

    enabled: bool = True
    """Whether it comes with this release. `false` where it runs already: one per Kubernetes cluster."""


class ResourcesValue(ApiModel):
    """What a container asks for and may use."""

    requests: Amounts = Field(default_factory=dict)
    """Amounts by resource, which are reserved."""
    limits: Amounts = Field(default_factory=dict)
    """Amounts by resource, which are not exceeded."""


def operator_resources() -> ResourcesValue:
    """Enough for a thousand models; no CPU limit, because throttling would delay a lease's renewal."""
    return ResourcesValue(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "512Mi"})


class Switch(ApiModel):
    """Something that is on or off."""

    enabled: bool = True
    """Whether it is made."""


class Account(ApiModel):
    """The operator's service account."""

    annotations: Annotations = Field(default_factory=dict)
    """Annotations, for example of a cloud's workload identity."""


class Operator(ApiModel):
    """The operator."""

    image: ChartImage = Field(default_factory=lambda: chart_image("operator"))
    """Its image."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When it is pulled."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 2
    """Pods; one leads, the others wait for its lease."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below this level are not written."""
    resources: ResourcesValue = Field(default_factory=operator_resources)
    """CPU and memory of a pod."""
    node_selector: Labels = Field(default_factory=dict)
    """Node labels it needs."""
    tolerations: Tolerations = ()
    """Taints it bears."""
    priority_class_name: MaybeSecret = ""
    """PriorityClass of its pods."""
    arbitrary_user: bool = False
    """Leaves user and groups of its pods, and of the chart's test, to what admits them, such as OpenShift.
    For Ray's pods: `cluster.spec.pod.arbitraryUser`."""
    pod_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels added to its pods."""
    pod_annotations: Annotations = Field(default_factory=dict)
    """Annotations added to its pods."""
    service_account: Account = Field(default_factory=Account)
    """Its service account."""
    pod_disruption_budget: Switch = Field(default_factory=Switch)
    """Keeps one pod while nodes are drained; made with two replicas or more."""


class OneImage(ApiModel):
    """What the operator uses where a ServingCluster names no image."""

    image: ChartImage
    """The image."""


class Otlp(ApiModel):
    """Where traces and metrics of the operator, the gateways and the engines go."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^\s@?#]+)?$", max_length=2048)] = ""
    """OTLP/HTTP collector, such as `http://collector.observability:4318`.
    A ServingCluster may name another."""
    sampling_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of traces that is kept when the caller does not say."""

    def faults(self) -> Iterable[Fault]:
        yield from url_faults(self.endpoint or None, "endpoint")


def _cache(size: str) -> CacheSpec:
    """What the disk of a small node holds beside the images."""
    return CacheSpec(size=Quantity.parse(size))


def default_spec() -> ServingClusterSpec:
    """Small enough for a first try: with one engine on CPU it fits into 6 CPUs and 16 GB. A test counts."""
    gpu = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    return ServingClusterSpec(
        head=HeadSpec(cpus=1, memory=Quantity.parse("3Gi")),
        pools={
            "cpu": Pool(cpus=2, memory=Quantity.parse("5Gi"), max_nodes=2, cache=_cache("10Gi")),
            "gpu": Pool(
                gpus=1,
                cpus=6,
                memory=Quantity.parse("24Gi"),
                max_nodes=4,
                tolerations=(gpu,),
                cache=_cache("40Gi"),
            ),
        },
    )


class ClusterValue(ApiModel):
    """The ServingCluster that comes with the release, in its namespace."""

    create: bool = True
    """Whether it is made. `false` where you keep your own in Git."""
    name: ReleaseName = "default"
    """Its name, and that of the Service that clients call. ModelDeployments name it in spec.cluster."""
    spec: ServingClusterSpec = Field(default_factory=default_spec)
    """Its spec."""


class ParentRef(ApiModel):
    """A Gateway (Gateway API) to attach to."""

    name: SecretName
    """Its name."""
    namespace: MaybeSecret = ""
    """Its namespace. Empty: the release's."""
    section_name: MaybeSecret = ""
    """Its listener. Empty: all."""


Hosts = Annotated[
    tuple[
        Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$", max_length=253)], ...
    ],
    Field(max_length=16),
]


class HttpRoute(ApiModel):
    """An HTTPRoute of the Gateway API."""

    enabled: bool = False
    """Whether it is made."""
    annotations: Annotations = Field(default_factory=dict)
    """Its annotations."""
    parent_refs: Annotated[tuple[ParentRef, ...], Field(max_length=8)] = ()
    """Gateways it attaches to; at least one."""
    hostnames: Hosts = ()
    """Host names it takes. Empty: all of its listeners."""


class IngressTls(ApiModel):
    """A certificate of an Ingress."""

    secret_name: SecretName
    """Secret with the certificate."""
    hosts: Hosts
    """Host names it is for."""


class Ingress(ApiModel):
    """An Ingress. Its controller must neither buffer answers nor end them before models have: see NOTES."""

    enabled: bool = False
    """Whether it is made."""
    annotations: Annotations = Field(default_factory=dict)
    """Its annotations; those of your controller for long, unbuffered answers belong here."""
    class_name: MaybeSecret = ""
    """IngressClass. Empty: the cluster's default."""
    hosts: Hosts = ()
    """Host names it takes; at least one."""
    tls: Annotated[tuple[IngressTls, ...], Field(max_length=16)] = ()
    """Certificates."""


class EndpointService(ApiModel):
    """The Service of every ServingCluster's endpoint, as the operator makes it."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "ClusterIP"
    """Type of the Service."""
    annotations: Annotations = Field(default_factory=dict)
    """Its annotations, such as a cloud's."""
    load_balancer_class: MaybeText = ""
    """Implementation of the load balancer. Empty: the cloud's default."""
    load_balancer_source_ranges: Cidrs = ()
    """Who may connect, where the load balancer keeps to it. Empty: everyone."""


class Expose(ApiModel):
    """How clients outside the Kubernetes cluster reach the endpoint: at most one of the three."""

    http_route: HttpRoute = Field(default_factory=HttpRoute)
    """By a Gateway."""
    ingress: Ingress = Field(default_factory=Ingress)
    """By an Ingress controller."""
    service: EndpointService = Field(default_factory=EndpointService)
    """By the endpoint's Service itself."""


class ServiceMonitor(ApiModel):
    """Scraping of the operator by Prometheus' operator."""

    enabled: bool = False
    """Whether a ServiceMonitor is made."""
    interval: Interval = "30s"
    """How often it is scraped."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which your Prometheus finds it."""


class PodMonitor(ApiModel):
    """Scraping of the gateways by Prometheus' operator."""

    enabled: bool = False
    """Whether a PodMonitor is made."""
    interval: Interval = "15s"
    """How often they are scraped."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which your Prometheus finds it."""


class EnginePodMonitor(ApiModel):
    """Scraping of Ray's metrics of the engines' pods by Prometheus' operator."""

    enabled: bool = False
    """Whether a PodMonitor is made. For vLLM's metrics, set `cluster.spec.telemetry.engineMetrics` too."""
    interval: Interval = "15s"
    """How often they are scraped."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which your Prometheus finds it."""
    keep: Annotated[str, Field(min_length=1, max_length=1_000)] = "ray_vllm_.+"
    """Names of metrics that are kept, a regular expression. `.+` keeps all that Ray has, some hundreds."""


class Rules(ApiModel):
    """Alerts."""

    enabled: bool = False
    """Whether a PrometheusRule is made."""
    labels: Labels = Field(default_factory=dict)
    """Labels by which your Prometheus finds it."""
    error_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of failed requests of a route, over ten minutes, that is an alert."""
    first_token_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """95th percentile of a route's time to first token, over ten minutes, that is an alert."""


class Dashboards(ApiModel):
    """Grafana dashboards."""

    enabled: bool = False
    """Whether ConfigMaps with dashboards are made, for Grafana's sidecar."""
    labels: Labels = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    """Labels by which the sidecar finds them."""
    folder: MaybeText = "Tradewind"
    """Folder in Grafana, as annotation `grafana_folder`."""


class Monitoring(ApiModel):
    """What Prometheus and Grafana are given. All but the dashboards need Prometheus' operator."""

    service_monitor: ServiceMonitor = Field(default_factory=ServiceMonitor)
    """Of the operator."""
    pod_monitor: PodMonitor = Field(default_factory=PodMonitor)
    """Of the gateways."""
    engine_pod_monitor: EnginePodMonitor = Field(default_factory=EnginePodMonitor)
    """Of the engines, vLLM's own metrics."""
    rules: Rules = Field(default_factory=Rules)
    """Alerts."""
    dashboards: Dashboards = Field(default_factory=Dashboards)
    """Dashboards."""


class ApiServer(ApiModel):
    """Where the Kubernetes API server is, which network policies cannot name."""

    cidrs: Cidrs = ("0.0.0.0/0", "::/0")
    """Its addresses."""
    ports: Ports = (443, 6443)
    """Its ports, behind its Service too."""


class NetworkPolicies(ApiModel):
    """Network policies of the operator. Those of the serving pods are in `cluster.spec.networkPolicy`."""

    enabled: bool = True
    """Whether everything that the operator does not need is denied to it."""
    api_server: ApiServer = Field(default_factory=ApiServer)
    """The API server."""
    metrics_from: Labels = Field(default_factory=dict)
    """Labels of the namespaces that may scrape the operator. Empty: all."""


class TestValue(ApiModel):
    """What `helm test` asks."""

    model: ModelName = "chat"
    """Model that is called."""
    key_secret: MaybeSecret = "tradewind-test-key"  # noqa: S105 - a name
    """Secret, in the release's namespace, with the key of a Tenant."""
    key_name: SecretKey = "key"
    """Key in that Secret."""
    deadline_seconds: Annotated[int, Field(ge=10, le=7_200)] = 600
    """How long the model may take to become ready."""


class ChartValues(ApiModel):
    """Everything that can be set when the chart is installed."""

    global_: Annotated[Global, Field(alias="global")] = Field(default_factory=Global)
    """What all charts of a release share."""
    crds: Crds = Field(default_factory=Crds)
    """Custom resource definitions."""
    kuberay: Kuberay = Field(default_factory=Kuberay)
    """Whether KubeRay comes with this release."""
    kuberay_operator: Annotated[dict[str, Any], Field(alias="kuberay-operator")] = Field(default_factory=dict)
    """Values of KubeRay's own chart."""
    watched_namespaces: Annotated[
        tuple[
            Annotated[str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$", max_length=63)], ...
        ],
        Field(max_length=128),
    ] = ()
    """Namespaces whose resources are served. Empty: the release's. `["*"]`: all, which needs a ClusterRole
    that reads every Secret. A namespace may be watched by one release only."""
    operator: Operator = Field(default_factory=Operator)
    """The operator."""
    gateway: OneImage = Field(default_factory=lambda: OneImage(image=chart_image("gateway")))
    """Gateways, and Ray's head."""
    engine_cpu: OneImage = Field(default_factory=lambda: OneImage(image=chart_image("engine-cpu")))
    """Engines of pools without GPUs."""
    engine_cuda: OneImage = Field(default_factory=lambda: OneImage(image=chart_image("engine-cuda")))
    """Engines of pools with GPUs."""
    allowed_images: Annotated[
        tuple[Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)], ...], Field(max_length=64)
    ] = ()
    """Images that custom resources may name beside those above: a whole reference, or a prefix that ends in
    `/`, `:` or `@`."""
    otlp: Otlp = Field(default_factory=Otlp)
    """Traces and metrics of the operator, the gateways and the engines."""
    cluster: ClusterValue = Field(default_factory=ClusterValue)
    """The ServingCluster that comes with the release."""
    expose: Expose = Field(default_factory=Expose)
    """How clients outside the Kubernetes cluster reach it."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """Prometheus and Grafana."""
    network_policies: NetworkPolicies = Field(default_factory=NetworkPolicies)
    """Network policies of the operator."""
    test: TestValue = Field(default_factory=TestValue)
    """What `helm test` asks."""
