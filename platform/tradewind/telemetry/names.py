"""Every name that telemetry emits, in one place: metrics, spans, attributes.

Names follow OpenTelemetry's GenAI semantic conventions where they have one, and `tradewind.*` where
they do not. They are written out here, because the conventions' own package marks its GenAI constants
as moved and costs an import; a test compares them with the installed package.

Token usage is `gen_ai.client.token.usage`: the conventions know no server-side name, and the gateway
is the GenAI client of its engines. Its `_sum` is the number of tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

OTHER: Final = "other"
"""Stands for every label value that the current configuration does not name."""

PROVIDER: Final = "tradewind"
GATEWAY_SERVICE: Final = "tradewind-gateway"
ENGINE_SERVICE: Final = "tradewind-engine"
SCOPE: Final = "tradewind.telemetry"

# Span names. The server span is "<method> <path template>", as the HTTP conventions say.
SPAN_AUTH: Final = "auth"
SPAN_ROUTE: Final = "route"
SPAN_ADMISSION: Final = "admission"
SPAN_PICK: Final = "pick"
SPAN_UPSTREAM: Final = "upstream"
SPAN_ENGINE: Final = "engine"
EVENT_FIRST_CHUNK: Final = "first_chunk"

# Attributes of the conventions.
OPERATION: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - an attribute's name
ERROR_TYPE: Final = "error.type"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# Our own attributes.
ROUTE: Final = "tradewind.route"
VARIANT: Final = "tradewind.variant"
DEPLOYMENT: Final = "tradewind.deployment"
TENANT: Final = "tradewind.tenant"
REQUEST_ID: Final = "tradewind.request_id"
ASSIGNMENT: Final = "tradewind.assignment"
ATTEMPTS: Final = "tradewind.attempts"
OUTCOME: Final = "tradewind.outcome"
CODE: Final = "tradewind.code"
CHUNKS: Final = "tradewind.stream.chunks"
QUEUE_MS: Final = "tradewind.queue.duration_ms"
COLD_START_MS: Final = "tradewind.cold_start.duration_ms"
STATE: Final = "tradewind.state"
REVISION: Final = "tradewind.revision"
KIND: Final = "tradewind.kind"

ATTRIBUTES: Final[dict[str, str]] = {
    OPERATION: "chat, text_completion, embeddings, rerank, score, count_tokens, tokenize or detokenize",
    PROVIDER_NAME: "always `tradewind`",
    REQUEST_MODEL: "the model the client asked for; on `upstream` the deployment that was asked",
    REQUEST_STREAM: "whether the client asked for a stream",
    RESPONSE_MODEL: "the deployment that answered",
    FINISH_REASONS: "why the model stopped: stop, length, tool_calls, ...",
    TIME_TO_FIRST_CHUNK: "seconds from the span's start to the first byte of the answer",
    INPUT_TOKENS: "tokens of the prompt",
    OUTPUT_TOKENS: "tokens of the answer",
    ERROR_TYPE: "the error code the client saw; absent when all went well",
    HTTP_METHOD: "request method",
    HTTP_ROUTE: "path template",
    HTTP_STATUS: "status of the response",
    SERVER_ADDRESS: "host of the engine replica",
    SERVER_PORT: "port of the engine replica",
    REQUEST_ID: "the id in `x-request-id`",
    ROUTE: "ModelRoute, or the deployment when it was named directly",
    VARIANT: "variant of the route",
    DEPLOYMENT: "ModelDeployment that answered",
    TENANT: "Tenant whose key was used",
    ASSIGNMENT: "how the variant was chosen: rule, sticky, request, direct or fallback",
    ATTEMPTS: "upstream tries",
    OUTCOME: "ok, client_error, rejected, upstream_error, cancelled, timeout or internal",
    CHUNKS: "chunks of a streamed answer",
    QUEUE_MS: "milliseconds spent waiting for a free replica",
    COLD_START_MS: "milliseconds of that spent waiting for a first replica to start",
}
"""Attribute -> meaning, for spans."""

OPERATIONS: Final = frozenset(
    {"chat", "text_completion", "embeddings", "rerank", "score", "count_tokens", "tokenize", "detokenize"},
)

Kind = Literal["counter", "updown", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: its OpenTelemetry identity, its labels and, for a histogram, its upper bounds."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Name of the Prometheus family, as OpenTelemetry's own exporter maps it (without `_total`)."""
        return _with_suffix(prometheus_label(self.name), _UNITS[self.unit])


_UNITS: Final = {"s": "seconds", "1": "", "{token}": "", "{request}": "", "{item}": "", "{replica}": "",
                 "{task}": "", "{retry}": "", "{entry}": "", "{token}/s": "per_second"}  # fmt: skip


def _with_suffix(name: str, suffix: str) -> str:
    return name if not suffix or name.endswith("_" + suffix) else f"{name}_{suffix}"


def prometheus_label(name: str) -> str:
    """An attribute's name as a Prometheus label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


# The conventions' bounds, continued for cold starts and for answers that take minutes.
_TTFT_BOUNDS: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
                       10.0, 20.0, 40.0, 80.0)  # fmt: skip
_DURATION_BOUNDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
                           81.92, 163.84, 327.68, 655.36)  # fmt: skip
_PER_TOKEN_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                            0.75, 1.0, 2.5)  # fmt: skip
_TOKEN_BOUNDS: Final = tuple(float(4**power) for power in range(14))
_WAIT_BOUNDS: Final = (
    0.001,
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)

_PATH: Final = (OPERATION, ROUTE, VARIANT)

TIME_TO_FIRST_TOKEN = MetricSpec(
    "gen_ai.server.time_to_first_token", "histogram", "s",
    "Time from a request's arrival to the first chunk of its answer; streamed answers only.",
    _PATH, _TTFT_BOUNDS,
)  # fmt: skip
REQUEST_DURATION = MetricSpec(
    "gen_ai.server.request.duration", "histogram", "s",
    "Time from a request's arrival to the last byte of its answer; error.type is the error code, if any.",
    (*_PATH, ERROR_TYPE), _DURATION_BOUNDS,
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN = MetricSpec(
    "gen_ai.server.time_per_output_token", "histogram", "s",
    "Mean time per output token after the first, one value per successful streamed answer.",
    _PATH, _PER_TOKEN_BOUNDS,
)  # fmt: skip
INTER_TOKEN_LATENCY = MetricSpec(
    "tradewind.inter_token_latency", "histogram", "s",
    "Time between two chunks of a streamed answer, one value per chunk after the first.",
    _PATH, _PER_TOKEN_BOUNDS,
)  # fmt: skip
TOKEN_USAGE = MetricSpec(
    "gen_ai.client.token.usage", "histogram", "{token}",
    "Tokens per request as the engine counted them; gen_ai.token.type is input or output.",
    (*_PATH, TOKEN_TYPE), _TOKEN_BOUNDS,
)  # fmt: skip
OUTPUT_TOKEN_RATE = MetricSpec(
    "tradewind.output_tokens.rate", "gauge", "{token}/s",
    "Output tokens per second over the last 60 s, running streams included.",
    (ROUTE, VARIANT),
)  # fmt: skip
REQUESTS = MetricSpec(
    "tradewind.requests", "counter", "{request}", "Finished requests by outcome and error code.",
    (*_PATH, OUTCOME, CODE),
)  # fmt: skip
ACTIVE_REQUESTS = MetricSpec(
    "tradewind.requests.active", "updown", "{request}", "Requests that have begun and not ended.",
)  # fmt: skip
QUEUE_DURATION = MetricSpec(
    "tradewind.queue.duration", "histogram", "s",
    "Time a request waited for a replica, for requests that waited.", (ROUTE, VARIANT), _WAIT_BOUNDS,
)  # fmt: skip
COLD_START_DURATION = MetricSpec(
    "tradewind.cold_start.duration", "histogram", "s",
    "Time a request waited for the first replica of its model to start, for requests that did.",
    (ROUTE, VARIANT), _WAIT_BOUNDS,
)  # fmt: skip
RETRIES = MetricSpec(
    "tradewind.retries", "counter", "{retry}", "Upstream tries after the first.", (ROUTE, VARIANT),
)  # fmt: skip
FALLBACKS = MetricSpec(
    "tradewind.fallbacks", "counter", "{request}", "Requests that a fallback deployment answered.",
    (ROUTE, VARIANT),
)  # fmt: skip
DISCONNECTS = MetricSpec(
    "tradewind.client.disconnects", "counter", "{request}", "Requests whose client went away.",
    (ROUTE, VARIANT),
)  # fmt: skip
TENANT_TOKENS = MetricSpec(
    "tradewind.tenant.tokens", "counter", "{token}", "Tokens used by a tenant.", (TENANT, TOKEN_TYPE),
)  # fmt: skip
REPLICAS = MetricSpec(
    "tradewind.replicas", "gauge", "{replica}",
    "Replicas of a deployment as this gateway sees them; state is healthy or unhealthy.",
    (DEPLOYMENT, STATE),
)  # fmt: skip
ENGINE_REQUESTS = MetricSpec(
    "tradewind.engine.requests", "gauge", "{request}",
    "Requests in a deployment's engines; state is running or waiting.", (DEPLOYMENT, STATE),
)  # fmt: skip
KV_CACHE_USE = MetricSpec(
    "tradewind.engine.kv_cache_use", "gauge", "1",
    "Use of a deployment's KV cache, 0 to 1, the mean of its replicas.", (DEPLOYMENT,),
)  # fmt: skip
DROPPED = MetricSpec(
    "tradewind.telemetry.dropped", "counter", "{item}",
    "Finished requests whose spans were lost: queue full, or an export failed.",
)  # fmt: skip

CONFIG_AGE = MetricSpec(
    "tradewind.config.age", "gauge", "s",
    "Time since the configuration that is in force came into force, by its revision.", (REVISION,),
)  # fmt: skip
CONFIG_REFUSED = MetricSpec(
    "tradewind.config.refused", "gauge", "1",
    "1 while the configuration that was sent last is refused and the one before goes on, else 0.",
)  # fmt: skip
CONFIG_LEFT_OUT = MetricSpec(
    "tradewind.config.left_out", "gauge", "{entry}",
    "Entries of the configuration in force that this release cannot read: they go on as they were, or are "
    "not there; kind is deployment, route or tenant.", (KIND,),
)  # fmt: skip
TASKS = MetricSpec(
    "tradewind.gateway.tasks",
    "updown",
    "{task}",
    "Tasks on the gateway's event loop: a few of its own and those of the requests under way.",
)
DISCOVERY_AGE = MetricSpec(
    "tradewind.discovery.age", "gauge", "s",
    "Time since Serve's controller last told where replicas are, or that nothing changed: 60 s at most "
    "while all is well.",
)  # fmt: skip

METRICS: Final = (
    TIME_TO_FIRST_TOKEN, REQUEST_DURATION, TIME_PER_OUTPUT_TOKEN, INTER_TOKEN_LATENCY, TOKEN_USAGE,
    OUTPUT_TOKEN_RATE, REQUESTS, ACTIVE_REQUESTS, QUEUE_DURATION, COLD_START_DURATION, RETRIES, FALLBACKS,
    DISCONNECTS, TENANT_TOKENS, REPLICAS, ENGINE_REQUESTS, KV_CACHE_USE, DROPPED, CONFIG_AGE, CONFIG_REFUSED,
    CONFIG_LEFT_OUT, DISCOVERY_AGE, TASKS,
)  # fmt: skip
"""Every metric of the gateway, in the order in which they are shown."""
