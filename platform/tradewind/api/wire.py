"""What the compiler writes and the running parts read: the gateway's and the engines' settings.

These are data, not custom resources: everything is resolved (a variant names an existing
deployment, a duration is a number of seconds). `GatewayConfig` travels in the gateway's Serve
`user_config` and `EngineLive` in an engine's: both are replaced whole while it runs. `EngineSettings`
are the arguments of one engine application, and a change to them restarts that engine. None of them
ever holds a key or a token, only where to read one (`SecretRef`).

What has its default is not written: a thousand models must fit into one object of Kubernetes, and a field
that a release adds must not restart the engines of the one before. So a default, once released, never
changes.

Writer and reader may be of different releases, in either order. A reader ignores fields that it does not
know, at any depth; a field that it must not ignore goes with a word in `requires`. A field that is left out
has the default; none that was ever released without one gets one taken away. `api.reading` says what becomes
of an entry that cannot be read.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class WireModel(BaseModel):
    """Immutable, snake_case both in Python and on the wire. Fields of a later release are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


ABILITIES: Final[frozenset[str]] = frozenset()
"""What an entry may require of its reader. A release adds a word here when it adds a field without which an
entry would mean something else: a condition of a rule, the end of a key's time."""


def _within(required: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [word for word in required if word not in ABILITIES]:
        raise ValueError(f"it needs {', '.join(unknown)}, which this release does not have")
    return required


Requires = Annotated[tuple[str, ...], AfterValidator(_within)]
"""Words of `ABILITIES` of the release that wrote the entry: who does not know one cannot read the entry."""


class Task(StrEnum):
    """What a model does, which decides the endpoints it answers."""

    GENERATE = "generate"
    EMBED = "embed"
    SCORE = "score"


class SecretRef(WireModel):
    """Where a secret is read by the process that needs it. Exactly one of env and file is set."""

    env: str | None = None
    file: str | None = None
    wait_s: float = 0.0
    """How long to wait for the file: from Kubernetes it arrives a while after it was asked for."""


class DeploymentEntry(WireModel):
    """One ModelDeployment as the gateway sees it."""

    name: str
    app: str
    """Serve application of the engine."""
    prefix: str
    """Route prefix of that application: the path before `/v1/...` on a replica's own port."""
    family: str
    """Architecture family shown in `/v1/models`: llama, mistral, deepseek, qwen, ... or `other`."""
    task: Task = Task.GENERATE
    context_length: int | None = None
    """Tokens; None until an engine replica has told."""
    adapters: tuple[str, ...] = ()
    max_ongoing_requests: int = 256
    """Per replica."""
    request_timeout_s: float = 600.0
    created: int = 0
    """Seconds since the epoch, for `/v1/models`; 0 when the resource does not say."""
    requires: Requires = ()


class Overrides(WireModel):
    """Request fields that a variant sets, whatever the client sent. None leaves the client's."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    system_prompt: str | None = None


class VariantEntry(WireModel):
    """A deployment plus overrides, with its share of a route's traffic."""

    name: str
    deployment: str
    weight: int = 1
    adapter: str | None = None
    overrides: Overrides = Overrides()


class RuleEntry(WireModel):
    """Sends what matches (all headers and any tenant) to a variant, before any assignment."""

    variant: str
    headers: dict[str, str] = Field(default_factory=dict)
    """Header names are lower case."""
    tenants: tuple[str, ...] = ()


class RetryEntry(WireModel):
    attempts: int = 2
    """Upstream tries in all, the first included."""
    budget_percent: float = 10.0
    """Retries allowed as a share of recent requests."""


UNIT_SOURCES: Final = ("user", "session", "tenant", "request")
HEADER_SOURCE: Final = "header:"


class RouteEntry(WireModel):
    """One ModelRoute."""

    model: str
    variants: tuple[VariantEntry, ...]
    assign_by: tuple[str, ...] = ("header:x-user-id", "user", "session", "tenant")
    """Each is `header:<name>` or one of `UNIT_SOURCES`. The first one present in the request is the unit;
    none: each request on its own."""
    salt: str = ""
    rules: tuple[RuleEntry, ...] = ()
    fallback: tuple[str, ...] = ()
    """Deployments to try, in order, when the variant's own cannot begin an answer."""
    retry: RetryEntry = RetryEntry()
    first_token_timeout_s: float = 120.0
    total_timeout_s: float = 600.0
    requires: Requires = ()


class TenantEntry(WireModel):
    """A caller: its keys by reference or, from Kubernetes, as digests that are no credential."""

    name: str
    keys: tuple[SecretRef, ...] = ()
    key_hashes: tuple[str, ...] = ()
    """`api.key_hash.key_hash` of further keys, under the hash key of the gateway's process."""
    models: tuple[str, ...] = ("*",)
    """Names of routes and deployments this tenant may call; `*` is all."""
    requires: Requires = ()


class RequestLimits(WireModel):
    """Bounds on one request, checked before an engine hears of it."""

    body_bytes: int = 10 * 1024 * 1024
    json_depth: int = 64
    json_containers: int = 50_000
    """Objects and arrays in one body."""
    json_items: int = 1_000_000
    """Commas outside strings: array items and object members."""
    header_bytes: int = 32 * 1024
    body_timeout_s: float = 30.0
    """From the first byte of the head to the last of the body."""
    choices: int = 16
    prompts: int = 256
    """Prompts, inputs or documents in one request."""
    max_tokens: int = 131_072
    stop: int = 16
    stop_chars: int = 1_024
    logprobs: int = 20
    pattern_chars: int = 4_096
    """A regex, grammar or choice list of structured output."""
    schema_bytes: int = 65_536
    tools: int = 128
    tokenize_bytes: int = 1024 * 1024
    """JSON of a prompt, messages or tools that tokens are only counted of."""
    concurrent_requests: int = 4_096
    """Requests in flight in one gateway replica; more get 503."""
    remote_media: bool = False


class GatewayConfig(WireModel):
    """Everything the gateway decides by."""

    revision: str
    """Digest of the content: equal configurations have equal revisions."""
    deployments: tuple[DeploymentEntry, ...] = ()
    routes: tuple[RouteEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    anonymous: bool = False
    """Serve callers without a key. Only ever true where the endpoint is on loopback."""
    limits: RequestLimits = RequestLimits()
    metrics_port: int = 9464
    """First port of the Prometheus endpoint; gateway replica k of a node listens on port + k."""
    metrics_host: str = "127.0.0.1"
    """Address of the Prometheus endpoint."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the endpoint from a browser."""
    requires: Requires = ()


class S3Key(WireModel):
    """An access key for an object store that speaks S3's protocol."""

    access_key_id: SecretRef
    secret_access_key: SecretRef
    session_token: SecretRef | None = None


class SourceSettings(WireModel):
    """Where the weights come from."""

    uri: str
    """file://, package://, hf://, s3:// or gs://."""
    revision: str | None = None
    token: SecretRef | None = None
    endpoint: str | None = None
    """Base URL of a hub mirror or an S3-compatible server; None is the public one."""
    s3_key: S3Key | None = None
    """None: what the SDK finds in the environment, or nothing."""
    gcs_key: SecretRef | None = None
    """A service account's key as JSON. None: what the SDK finds in the environment, or nothing."""
    region: str | None = None
    """Of an S3 bucket."""
    trust_remote_code: bool = False
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Type to convert a GGUF file to; None is bfloat16."""


class AdapterSettings(WireModel):
    """One LoRA adapter."""

    name: str
    """In its deployment; callers say `<deployment>:<name>`."""
    source: SourceSettings
    requires: Requires = ()


class EngineLive(WireModel):
    """What an engine takes over while it runs."""

    adapters: tuple[AdapterSettings, ...] = ()
    max_ongoing_requests: int = 256
    """Requests of all gateways together that one replica has at a time; to more it says that it is full."""


class EngineSettings(WireModel):
    """Arguments of one engine application."""

    name: str
    """Name of the ModelDeployment: what vLLM calls the model."""
    source: SourceSettings
    family: str = "other"
    task: Task = Task.GENERATE
    args: dict[str, Any] = Field(default_factory=dict)
    """vLLM's own engine arguments, snake_case, as `vllm serve` takes them."""
    lora: bool = False
    """It takes LoRA adapters, which come in `EngineLive`."""
    env: dict[str, str] = Field(default_factory=dict)
    warmup: bool = True
    stall_timeout_s: float = 60.0
    """Unhealthy when requests run and no token has come for this long."""
    drain_timeout_s: float = 300.0
    ray_metrics: bool = False
    """vLLM's metrics go to Ray's, and not to the engine's own `/metrics`."""
    requires: Requires = ()


def written(model: WireModel) -> dict[str, Any]:
    """`model` as JSON-able data, less what has its default."""
    return model.model_dump(mode="json", exclude_defaults=True)


def digest(content: object) -> str:
    """Stable short digest of JSON-able content: 16 hex characters of blake2b."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
