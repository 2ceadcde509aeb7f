"""`tradewind trace`: one request's way as a tree."""

from __future__ import annotations

import re

from tradewind import home
from tradewind.cli.console import out
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.telemetry.store import load_trace
from tradewind.telemetry.tree import render_tree


def trace(request_id: str) -> None:
    """Print the tree. CommandFailed: it is no id (2), or no file knows it (1)."""
    wanted = request_id.strip()
    if not re.fullmatch(r"(req_)?[0-9a-f]{32}", wanted):
        raise CommandFailed(
            f"{request_id!r} is no request id",
            exit_code=BAD_INPUT,
            hint="it is the x-request-id header of an answer, req_ and 32 hex digits; or a trace id",
        )
    found = load_trace(home.home_dir(), wanted)
    if found is None:
        raise CommandFailed(
            f"no trace of {wanted} under {home.home_dir() / 'traces'}",
            hint="only the last ones are kept there, those that were sampled, and none while "
            "OTEL_EXPORTER_OTLP_ENDPOINT sends them elsewhere",
        )
    out.print(render_tree(found))
