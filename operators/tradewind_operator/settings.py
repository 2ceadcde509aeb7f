"""The operator's own settings: a file that the chart writes, and `TRADEWIND_OPERATOR_*` over it.

A variable names one field, `__` goes one level down: `TRADEWIND_OPERATOR_LOG_LEVEL=debug`,
`TRADEWIND_OPERATOR_LEADER_ELECTION__ENABLED=false`. Lists and mappings are written as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tradewind.api.values import IMAGE_PATTERN, PATTERN_MEANING, camel
from tradewind.telemetry.redaction import redact
from tradewind.version import version
from tradewind_operator.errors import SettingsError

PREFIX: Final = "TRADEWIND_OPERATOR_"
ALL_NAMESPACES: Final = "*"
_REPOSITORY: Final = "ghcr.io/tradewind-ai/tradewind"
_MAX_FILE: Final = 1 << 20

NamespacePattern: Final = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|\*)$"
Namespace = Annotated[str, Field(pattern=NamespacePattern)]
Image = Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=512)]
UrlTemplate = Annotated[str, Field(pattern=r"^https?://[^\s]{1,500}$")]
_MEANING: Final = PATTERN_MEANING | {
    NamespacePattern: "a namespace's name, or * for all",
    r"^https?://[^\s]{1,500}$": "an http:// or https:// URL, with {cluster} and {namespace} where they go",
}


class _Section(BaseModel):
    """Immutable; camelCase in the file, snake_case in Python; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class Images(_Section):
    """Images where the custom resources name none. The defaults are of the operator's own release."""

    head: Image = f"{_REPOSITORY}-gateway:{version()}"
    """Ray head: the gateway image holds Ray and no engine."""
    gateway: Image = f"{_REPOSITORY}-gateway:{version()}"
    """Gateway pods."""
    engine_cpu: Image = f"{_REPOSITORY}-engine-cpu:{version()}"
    """Engines of pools without GPUs."""
    engine_cuda: Image = f"{_REPOSITORY}-engine-cuda:{version()}"
    """Engines of pools with GPUs."""


class EndpointService(_Section):
    """The Service of every ServingCluster's endpoint."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "ClusterIP"
    """Type of the Service."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Its annotations, such as a cloud's."""
    load_balancer_class: str = ""
    """Implementation of the load balancer; empty is the cloud's default."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """CIDR blocks that may connect; none are all."""


class LeaderElection(_Section):
    """Which of several replicas works, by a Lease of the Kubernetes API."""

    enabled: bool = True
    """Off: this process works at once. Never run two of them then."""
    lease_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")] = (
        "tradewind-operator"
    )
    """Name of the Lease. Releases that share a namespace need one each."""
    lease_namespace: Namespace | None = None
    """Namespace of the Lease; the operator's own where absent."""
    duration_seconds: Annotated[float, Field(ge=2, le=300)] = 10.0
    """A Lease not renewed for so long may be taken by another replica."""
    renew_seconds: Annotated[float, Field(ge=1, le=300)] = 7.0
    """A leader that cannot renew for so long stops. Less than durationSeconds."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.5
    """Between two looks at the Lease. Less than renewSeconds."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.retry_seconds < self.renew_seconds < self.duration_seconds:
            raise ValueError(
                f"found retrySeconds {self.retry_seconds:g}, renewSeconds {self.renew_seconds:g},"
                f" durationSeconds {self.duration_seconds:g}; allowed: each less than the next"
            )
        return self


class Settings(BaseSettings):
    """Everything that the operator is told from outside the custom resources."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    namespaces: tuple[Namespace, ...] = ()
    """Namespaces whose resources are served; empty is the operator's own, ["*"] is all of them."""
    images: Images = Images()
    allowed_images: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] = ()
    """What custom resources may name as an image: prefixes that end in '/', ':' or '@', or exact
    references. The images above are always allowed."""
    image_pull_secrets: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = ()
    """Secrets for pulling, in the namespace of each ServingCluster; added to the cluster's own."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment of every Ray pod where the ServingCluster does not say otherwise, e.g. OTEL_*."""
    endpoint_service: EndpointService = EndpointService()
    cluster_config_map: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")] | None = None
    """ConfigMap of the operator's own namespace with the ServingCluster of its release, which is kept as
    that says. Absent: there is none."""
    serve_api_url: UrlTemplate = "http://{cluster}-head-svc.{namespace}.svc:8265"
    """Ray's REST API of a RayCluster: KubeRay makes a Service of that name with it."""
    gateway_url: UrlTemplate = "http://{cluster}-gateways.{namespace}.svc:8000"
    """Gateways of a RayCluster, which the operator makes a Service for."""
    secret_seconds: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    """Secrets that resources name are read this often, or 50 of them a second where there are more."""
    look_seconds: Annotated[float, Field(ge=0.2, le=60)] = 5.0
    """Ray clusters are asked how they are this often while nothing changes."""
    resync_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """Everything is looked at anew this often, changed or not."""
    active_resync_seconds: Annotated[float, Field(ge=0.2, le=60)] = 2.0
    """The same while a model is starting, draining or failing."""
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    """ServingClusters reconciled at a time."""
    watch_seconds: Annotated[float, Field(ge=1, le=600)] = 60.0
    """A watch is renewed this often. One silent for 2.5 times as long makes /healthz fail."""
    leader_election: LeaderElection = LeaderElection()
    health_host: Annotated[str, Field(min_length=1, max_length=253)] = "0.0.0.0"  # noqa: S104 - the kubelet's probes come from the node
    """Address that /healthz, /readyz and /metrics listen on."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Their port; 0 is any free one."""
    metrics: bool = True
    """Serve /metrics."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kubeconfig: str | None = None
    """File to reach the API server by; absent: $KUBECONFIG, else the pod's service account."""
    namespace: Namespace | None = None
    """The operator's own namespace; absent: the pod's, else `default`."""
    identity: Annotated[str, Field(max_length=253)] | None = None
    """Who holds the Lease; absent: the host's name with a random suffix."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment comes before the file, which is given as arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _hold(self) -> Self:
        for position, image in enumerate(self.allowed_images):
            if image in {"/", ":", "@"} or image.startswith("/"):
                raise ValueError(
                    f"found {image!r} at allowedImages[{position}]; allowed: a prefix that begins with a"
                    " registry or repository and ends in '/', ':' or '@', or a whole reference"
                )
        if ALL_NAMESPACES in self.namespaces and len(self.namespaces) > 1:
            raise ValueError('found "*" beside other namespaces; allowed: "*" alone, or names')
        return self

    def serve_url(self, namespace: str, cluster: str) -> str:
        """Ray's REST API of one cluster, without a slash at the end."""
        return _fill(self.serve_api_url, namespace, cluster)

    def endpoint(self, namespace: str, cluster: str) -> str:
        """The gateway of one cluster, without a slash at the end."""
        return _fill(self.gateway_url, namespace, cluster)


def _fill(template: str, namespace: str, cluster: str) -> str:
    return template.replace("{cluster}", cluster).replace("{namespace}", namespace).rstrip("/")


def load(file: Path | None = None) -> Settings:
    """Settings of the environment over those of a YAML or JSON file.

    Raises:
        SettingsError: one line per fault: where, what was found, what is allowed.
    """
    written = {} if file is None else _read(file)
    where = "the environment" if file is None else str(file)
    try:
        return Settings(**_by_name(written))
    except ValidationError as error:
        faults = [_explain(item) for item in error.errors(include_url=False)]
        raise SettingsError("\n".join(f"{where}: {fault}" for fault in faults)) from None
    except ValueError as error:  # pydantic-settings: a variable that is not the JSON it should be
        raise SettingsError(f"the environment: {redact(str(error))}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_FILE:
            raise SettingsError(f"{file}: found more than {_MAX_FILE} bytes; allowed: at most that many")
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"{file}{place}: is not YAML or JSON") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise SettingsError(f"{file}: found no mapping; allowed: fields and their values")
    return document


def _by_name(written: Mapping[str, Any]) -> dict[str, Any]:
    """The file's fields by their Python names. No aliases: pydantic-settings would take a variable of
    an alias' bare name (`NAMESPACE`, `METRICS`) for ours."""
    names = {camel(name): name for name in Settings.model_fields}
    return {names.get(key, key): value for key, value in written.items()}


def _explain(item: ErrorDetails) -> str:
    """One pydantic error in words. Values under `environment` may be secrets and are not repeated."""
    path = _dotted(item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown field; allowed: {', '.join(_fields_at(item['loc'][:-1]))}"
    message, context = item["msg"].removeprefix("Value error, "), item.get("ctx", {})
    if item["type"] == "value_error":
        return f"{path}: {message}" if path else message
    if item["type"] == "string_pattern_mismatch":
        message = _MEANING.get(str(context.get("pattern")), message)
    found = "" if path.startswith("environment") else f"found {json.dumps(item['input'], default=str)[:80]}; "
    return f"{path}: {found}allowed: {message[:1].lower()}{message[1:]}"


def _fields_at(loc: Iterable[str | int]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in loc:
        found = {camel(name): field for name, field in model.model_fields.items()}.get(camel(str(part)))
        annotation = found.annotation if found is not None else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return [camel(name) for name in model.model_fields]


def _dotted(loc: Iterable[str | int]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{camel(part)}" if text else camel(part)
    return text
