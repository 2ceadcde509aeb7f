"""Which release of Tradewind is installed."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Version of the installed distribution; `unknown` where there is none."""
    try:
        return metadata.version("tradewind")
    except metadata.PackageNotFoundError:
        return "unknown"
