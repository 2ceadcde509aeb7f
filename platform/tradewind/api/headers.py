"""Names of the headers that Tradewind reads and writes, in lower case as ASGI has them."""

from __future__ import annotations

REQUEST_ID = "x-request-id"
ROUTE = "x-tradewind-route"
VARIANT = "x-tradewind-variant"
SESSION = "x-session-id"

ENGINE_TOKEN = "x-tradewind-token"  # noqa: S105 - a header's name
"""Carries the internal token from the gateway to an engine; never accepted from outside."""

ENGINE_FULL = "x-tradewind-full"
"""On an engine's 503: it is whole and has as many requests as it may have. Nothing was done for this one."""

GATEWAY_WANTS = "x-tradewind-wants"
"""With a gateway's probe: its name, a blank, and how many requests it has there or waiting for it."""

RESERVED_PREFIX = "x-tradewind-"
"""Dropped from every inbound request."""

ENGINE_STATS_PATH = "/tradewind/stats"
"""Under an engine's route prefix: load and facts of the replica as `EngineStats` JSON."""

ENGINE_USAGE_PATH = "/tradewind/usage/"
"""Under an engine's route prefix, followed by a request's id: what that request has used, as `RequestUsage`
JSON."""
