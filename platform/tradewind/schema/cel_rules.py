"""The cross-field rules of the API in CEL, one entry for every model that has `faults()`.

The Python rules tell a person what is wrong where; these say the same to the API server, which refuses
at `kubectl apply`. Property tests compare the two on generated resources, both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tradewind.api import (
    accelerators,
    affinity,
    cluster,
    deployment,
    environment,
    fault_tolerance,
    networks,
    nodes,
    pod_volumes,
    pods,
    route,
    secrets,
    sources,
    tenant,
    wire,
)
from tradewind.api.headers import RESERVED_PREFIX
from tradewind.api.model import ApiModel
from tradewind.schema.cel import Constraint, Rule, Unique, Unsaid, bytes_of, matches, text, texts

_CLIMBS: Final = r"(^|[/\\])\.\.([/\\]|$)"
_COMMIT: Final = "^[0-9a-f]{40}$"
_RESERVED: Final = rf"({RESERVED_PREFIX}|authorization$|x-api-key$)"
_OWN_HEADER: Final = "allowed: a header that is not the platform's own"


def _uri(*schemes: str) -> tuple[Rule, ...]:
    """Rules of a model with `uri` and `revision`; `schemes` are those it takes."""
    forms = {scheme: form for scheme, form in sources.FORMS.items() if scheme in schemes}
    any_form = "|".join(f"{scheme}://({pattern})" for scheme, (pattern, _) in forms.items())
    told = ", ".join(meaning for _, meaning in forms.values())
    return (
        Rule(
            f"{matches('self.uri', f'^({any_form})$')} && !{matches('self.uri', _CLIMBS)}"
            f" && !{matches('self.uri', '[@?#]')}",
            f"uri: allowed: {told}, without '..', user, password, query and fragment",
        ),
        Rule(
            '!has(self.revision) || (self.uri.startsWith("hf://") && !self.revision.contains(".."))',
            "revision: allowed with hf:// only: a branch, tag or commit without '..'",
        ),
    )


def _url(field: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || {matches(f'self.{field}', '^https?://[^@?#]*$')}",
        f"{field}: allowed: an http:// or https:// URL without user, password, query and fragment",
    )


_ENDPOINT: Final = Rule(
    '!has(self.endpoint) || self.uri.startsWith("hf://") || self.uri.startsWith("s3://")',
    "endpoint: allowed with hf:// and s3:// only",
)
_BUCKET: Final = (
    Rule(
        "!has(self.credentials) || (has(self.credentials.s3) ? "
        'self.uri.startsWith("s3://") : self.uri.startsWith("gs://"))',
        "credentials: allowed: s3 with s3:// and gcs with gs:// only",
    ),
    Rule('!has(self.region) || self.uri.startsWith("s3://")', "region: allowed with s3:// only"),
)


def _places(secret: str) -> tuple[Rule, ...]:
    """Rules of a reference to a secret: env or file on one machine, `secret` in a cluster."""
    return (
        Rule("!(has(self.env) && has(self.file))", "found env and file; allowed: at most one of them"),
        Rule(
            f"has(self.env) || has(self.file) || has(self.{secret})",
            f"allowed: one of env and file (on one machine), and {secret} (in a cluster)",
        ),
        Rule(
            f"!has(self.file) || !{matches('self.file', _CLIMBS)}",
            "file: found '..' in the path; allowed: an absolute path, or one below TRADEWIND_HOME",
        ),
    )


def _below(paths: tuple[str, ...]) -> str:
    """A pattern of these paths and all below them."""
    return f"^({'|'.join(path.replace('.', '[.]') for path in paths)})(/|$)"


_NO_CIDR: Final = Unsaid("CEL knows CIDR blocks from Kubernetes 1.31 on only")
_MIG: Final = f"self.gpuResource.startsWith({text(accelerators.MIG_PREFIX)})"
_TPU: Final = '(self.gpuResource == "google.com/tpu")'
_CLUSTER: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    cluster.GatewaySpec: (
        Rule(
            "self.endpoint.port < self.metricsPort || self.endpoint.port >= "
            "self.metricsPort + (has(self.replicas) ? self.replicas : 1)",
            "metricsPort: reaches the endpoint's port with these replicas; allowed: a range without it",
        ),
    ),
    cluster.TelemetrySpec: (_url("otlpEndpoint"),),
    fault_tolerance.GcsRedis: (
        Rule("!has(self.username) || has(self.password)", "password: missing; a username needs one"),
    ),
    fault_tolerance.GcsFaultTolerance: (
        Rule(
            'has(self.redis) == (self.backend == "redis")',
            "redis: allowed with backend redis only, which needs one",
        ),
    ),
    cluster.NetworkPolicySpec: (_NO_CIDR,),
    cluster.GatewayService: (
        *(
            Rule(
                f'self.type == "LoadBalancer" || !has(self.{field}){more}',
                f"{field}: allowed with type LoadBalancer only",
            )
            for field, more in (
                ("loadBalancerClass", ""),
                ("loadBalancerSourceRanges", " || size(self.loadBalancerSourceRanges) == 0"),
            )
        ),
        Rule(
            'self.type != "ClusterIP" || !has(self.externalTrafficPolicy)',
            "externalTrafficPolicy: allowed with type LoadBalancer and NodePort only",
        ),
        _NO_CIDR,
    ),
    cluster.ServingClusterSpec: (
        Rule(
            '!has(self.gateway.service) || self.gateway.service.type == "ClusterIP" || '
            "!self.networkPolicy.enabled || !has(self.networkPolicy.allowFrom) || "
            "size(self.networkPolicy.allowFrom) == 0 || "
            "(has(self.gateway.service.loadBalancerSourceRanges) && "
            "size(self.gateway.service.loadBalancerSourceRanges) > 0) || "
            "self.networkPolicy.allowFrom.exists(peer, has(peer.ipBlock))",
            "networkPolicy.allowFrom: found pods only, so nobody outside reaches gateway.service; allowed "
            "with it: an ipBlock, or gateway.service.loadBalancerSourceRanges",
        ),
    ),
    nodes.Toleration: (
        Rule(
            'self.operator == "Exists" || has(self.key)',
            "key: missing; allowed without a key: operator Exists",
        ),
        Rule(
            'self.operator == "Equal" || !has(self.value)',
            "value: allowed with operator Equal only",
        ),
        Rule(
            '!has(self.tolerationSeconds) || (has(self.effect) && self.effect == "NoExecute")',
            "tolerationSeconds: allowed with effect NoExecute only",
        ),
    ),
    nodes.CacheSpec: (
        Rule(
            "!(has(self.claim) && has(self.storageClassName))",
            "found claim and storageClassName; allowed: at most one of them",
        ),
        Rule(
            'self.accessMode != "ReadWriteOnce" || has(self.storageClassName)',
            "accessMode: allowed: ReadWriteOnce with storageClassName only",
        ),
    ),
    nodes.Pool: (
        Rule("self.minNodes <= self.maxNodes", "minNodes: allowed: at most maxNodes"),
        Rule("!has(self.accelerator) || self.gpus > 0", "accelerator: allowed with GPUs only"),
        Rule("!has(self.acceleratorLabel) || self.gpus > 0", "acceleratorLabel: allowed with GPUs only"),
        Rule(
            "self.gpus == 0 || !has(self.accelerator) || has(self.acceleratorLabel) || "
            f"self.gpuResource in {texts(accelerators.LABELLED)} || {_MIG}",
            "acceleratorLabel: missing; the label of nodes with this gpuResource is not known",
        ),
        Rule(f"!{_MIG} || self.gpus <= 1", "gpus: allowed: 1 slice of MIG, for a process can use only one"),
        Rule(
            "self.gpus == 0 || has(self.engineImage) || "
            f"!{texts(accelerators.OTHER_MAKERS)}.exists(one, self.gpuResource.startsWith(one))",
            "engineImage: missing; the operator's own does not run on accelerators of this gpuResource",
        ),
        Rule(
            f"!{_TPU} || self.gpus == 0 || self.gpus in {list(accelerators.TPU_CHIPS)}",
            "gpus: allowed: 1, 2, 4 or 8 TPU chips",
        ),
        Rule(
            f"!{_TPU} || self.gpus == 0 || (has(self.accelerator) && has(self.nodeSelector) && "
            f"{text(accelerators.TPU_TOPOLOGY)} in self.nodeSelector)",
            f"allowed for TPUs: accelerator, and {accelerators.TPU_TOPOLOGY} in nodeSelector",
        ),
        Rule(
            "!has(self.extraResources) || !self.extraResources.exists(name, name == self.gpuResource || "
            'name.contains("kubernetes.io/") || name.startsWith("requests."))',
            "extraResources: allowed: a device plugin's, and not gpuResource",
        ),
        Rule(
            "!has(self.hugepages) || self.hugepages.all(page, "
            f"int({bytes_of('self.hugepages[page]')}) % int({bytes_of('page')}) == 0)",
            "hugepages: allowed: multiples of the page size",
        ),
        Rule(
            f"{bytes_of('self.sharedMemory')} < {bytes_of('self.memory')}",
            "sharedMemory: allowed: less than memory",
        ),
    ),
    networks.PeerSelector: (
        Rule(
            "(has(self.namespaceSelector) || has(self.podSelector)) != has(self.ipBlock)",
            "allowed: at least one of namespaceSelector, podSelector, or ipBlock",
        ),
        _NO_CIDR,
    ),
}

_VALUES: Final = "(has(self.values) ? size(self.values) : 0)"
_LISTED: Final = Rule(
    f'self.operator in ["In", "NotIn"] ? {_VALUES} > 0 : self.operator in ["Gt", "Lt"] || {_VALUES} == 0',
    "values: allowed: at least one with In and NotIn, none with Exists and DoesNotExist",
)
_PODS: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    affinity.NodeRequirement: (
        _LISTED,
        Rule(
            f'!(self.operator in ["Gt", "Lt"]) || ({_VALUES} == 1 && '
            f"{matches('self.values[0]', '^[0-9]{1,18}$')})",
            "values: allowed: one whole number with Gt and Lt",
        ),
    ),
    affinity.LabelRequirement: (_LISTED,),
    affinity.TopologySpread: (
        Rule(
            '!has(self.minDomains) || self.whenUnsatisfiable == "DoNotSchedule"',
            "minDomains: allowed with DoNotSchedule only",
        ),
    ),
    pod_volumes.VolumeItem: (
        Rule(
            f"!{matches('self.path', pod_volumes.ODD_PATH)}",
            "path: allowed: a relative path without '.' and '..'",
        ),
    ),
    pod_volumes.PodVolume: (
        Rule(
            f"!{matches('self.mountPath', f'^/$|{pod_volumes.ODD_PATH}')} && "
            f"!{matches('self.mountPath', _below(pod_volumes.OWN_PATHS))} && "
            f"!(self.mountPath in {texts(pod_volumes.ABOVE_OWN)})",
            "mountPath: allowed: an absolute path that is not the platform's own, such as /mnt/data",
        ),
        Rule(
            f"!has(self.subPath) || !{matches('self.subPath', pod_volumes.ODD_PATH)}",
            "subPath: allowed: a relative path without '.' and '..'",
        ),
        Rule(
            "[has(self.configMap), has(self.secret), has(self.persistentVolumeClaim), has(self.emptyDir)]"
            ".filter(given, given).size() == 1",
            "allowed: one of configMap, secret, persistentVolumeClaim, emptyDir",
        ),
    ),
    pods.ValueFrom: (
        Rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "allowed: exactly one of secretKeyRef, configMapKeyRef",
        ),
    ),
    pods.PodVariable: (
        Rule("has(self.value) != has(self.valueFrom)", "allowed: exactly one of value, valueFrom"),
        Rule(
            f"!(self.name in {texts(environment.WEIGHTS_ENV)})",
            "name: every model would have it; use the credentials of a ModelDeployment's source",
        ),
        Rule(
            f"!{matches('self.name', '^(' + '|'.join(environment.POD_ENV_PREFIXES) + ')')}"
            f" && !(self.name in {texts(environment.POD_ENV_NAMES)})",
            "name: the platform sets this variable or does not allow it",
        ),
        Rule(
            f"!has(self.value) || "
            f"!{matches('self.name', '(?i)(^|_)(' + '|'.join(environment.SECRET_ENV) + ')$')}",
            "name: looks like a secret; a resource holds none: use valueFrom.secretKeyRef",
        ),
    ),
    pods.PodSettings: (
        *(
            Rule(
                f"!has(self.{field}) || !self.{field}.exists(key, "
                f"{' || '.join(f'key.startsWith({text(prefix)})' for prefix in pods.RESERVED_METADATA)})",
                f"{field}: allowed: keys that are not the platform's own",
            )
            for field in ("labels", "annotations")
        ),
        Unique("env", by="name"),
        Unique("volumes", by="name"),
        Unique("volumes", by="mountPath", ordered=True),
        Unique("topologySpreadConstraints", by="topologyKey"),
    ),
}

_DEPLOYMENT: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    deployment.EnvVariable: (
        Rule(
            f"!{matches('self.name', '^(' + '|'.join(environment.FORBIDDEN_ENV) + ')')}"
            f" && !(self.name in {texts(environment.UNSAFE_ENV)})",
            "name: the platform sets this variable or does not allow it",
        ),
        Rule(
            f"!{matches('self.name', '(?i)(^|_)(' + '|'.join(environment.SECRET_ENV) + ')$')}",
            "name: looks like a secret; a resource holds none: use spec.source.tokenSecret",
        ),
    ),
    deployment.EngineSpec: (Unique("env", by="name"),),
    deployment.Resources: (
        Rule(
            "self.gpus > 0 || "
            "((!has(self.tensorParallel) || self.tensorParallel == 1) && self.pipelineParallel == 1)",
            "allowed: tensorParallel and pipelineParallel both 1 without GPUs",
        ),
        Rule(
            "self.gpus == 0 || (has(self.tensorParallel) ? self.gpus == self.tensorParallel * "
            "self.pipelineParallel : self.gpus % self.pipelineParallel == 0)",
            "gpus: allowed: tensorParallel x pipelineParallel",
        ),
    ),
    deployment.Autoscaling: (
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas: allowed: at most maxReplicas"),
    ),
    deployment.ModelDeploymentSpec: (
        Rule(
            "self.replicas == 1 || !has(self.autoscaling)",
            "found replicas and autoscaling; allowed: at most one of them",
        ),
        Rule(
            "!has(self.autoscaling) || "
            "self.autoscaling.target.ongoingRequests <= double(self.limits.maxOngoingRequests)",
            "autoscaling.target.ongoingRequests: allowed: at most limits.maxOngoingRequests",
        ),
        Unique("adapters", by="name"),
    ),
    cluster.ServingCluster: (
        Rule(
            f"size(self.metadata.name) <= {cluster.MAX_CLUSTER_NAME}",
            f"metadata.name: allowed: at most {cluster.MAX_CLUSTER_NAME} characters for a ServingCluster",
        ),
        Rule(
            f"!{matches('self.metadata.name', '^[0-9]')}",
            "metadata.name: allowed: a letter first, for Services and KubeRay bear the name too",
        ),
    ),
    deployment.ModelDeployment: (
        Rule(
            'self.metadata.name != "gateway"',
            "metadata.name: 'gateway' is the platform's own; allowed: another name",
        ),
    ),
    sources.ModelSource: (
        *_uri(*sources.FORMS),
        _url("endpoint"),
        _ENDPOINT,
        *_BUCKET,
        Rule(
            '!has(self.tokenSecret) || self.uri.startsWith("hf://")',
            "tokenSecret: allowed with hf:// only",
        ),
        Rule(
            '!self.trustRemoteCode || !self.uri.startsWith("hf://") || '
            f"(has(self.revision) && {matches('self.revision', _COMMIT)})",
            "trustRemoteCode: allowed with a revision that is a commit of 40 hex digits",
        ),
    ),
    sources.AdapterSource: (
        *_uri(*(scheme for scheme in sources.FORMS if scheme != "package")),
        _url("endpoint"),
        _ENDPOINT,
        *_BUCKET,
    ),
    sources.BucketCredentials: (Rule("has(self.s3) != has(self.gcs)", "allowed: one of s3, gcs"),),
}

_ROUTE: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    route.Assignment: (
        Unique("by", ordered=True),
        Rule(
            '!("request" in self.by) || self.by[size(self.by) - 1] == "request"',
            "by: found 'request' before others; allowed: last, because every request has it",
        ),
        Rule(
            f"self.by.all(unit, unit in {texts(wire.UNIT_SOURCES)} || "
            f"{matches('unit', f'^{route.UNIT_PATTERN.pattern}$')})",
            f"by: allowed: header:<name>, {', '.join(wire.UNIT_SOURCES)}",
        ),
        Rule(f"self.by.all(unit, !{matches('unit', f'(?i)^header:{_RESERVED}')})", f"by: {_OWN_HEADER}"),
    ),
    route.Match: (
        Rule(
            "(has(self.headers) && size(self.headers) > 0) || (has(self.tenants) && size(self.tenants) > 0)",
            "found an empty match; allowed: at least one of headers, tenants",
        ),
        Rule(
            "!has(self.headers) || "
            "self.headers.all(a, self.headers.exists_one(b, b.lowerAscii() == a.lowerAscii()))",
            "headers: allowed: each header once, in any case of its letters",
        ),
        Rule(
            f"!has(self.headers) || self.headers.all(name, !{matches('name', f'(?i)^{_RESERVED}')})",
            f"headers: {_OWN_HEADER}",
        ),
        Unique("tenants"),
    ),
    route.Timeouts: (
        Rule(
            "!has(self.firstToken) || duration(self.firstToken) <= duration(self.total)",
            "firstToken: allowed: at most total",
        ),
    ),
    route.ModelRouteSpec: (
        Unique("variants", by="name"),
        Unique("fallback", by="deployment", ordered=True),
        Rule(
            "self.variants.exists(variant, variant.weight > 0)",
            "variants: found weight 0 in every variant; allowed: at least one weight above 0",
        ),
        Rule(
            "!has(self.rules) || "
            "self.rules.all(rule, self.variants.exists(variant, variant.name == rule.variant))",
            "rules: found a variant that is not one of spec.variants",
        ),
    ),
}

_TENANT: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    secrets.TokenRef: (
        *_places("name"),
        Rule("has(self.name) == has(self.key)", "a Secret needs both name and key"),
    ),
    secrets.ApiKeyRef: _places("secret"),
    tenant.TenantSpec: (
        Unique("models"),
        Unique("keys", ordered=True),
        Rule(
            f"!({text('*')} in self.models) || size(self.models) == 1",
            "models: found '*' beside names; allowed: ['*'] alone, or names",
        ),
    ),
}

CONSTRAINTS: Final[Mapping[type[ApiModel], tuple[Constraint, ...]]] = {
    **_CLUSTER,
    **_PODS,
    **_DEPLOYMENT,
    **_ROUTE,
    **_TENANT,
}
"""By the model whose `faults()` say the same in Python."""
