"""What a replica is configured with, beyond what Serve tells it.

Touches a private field of Serve's replica context: `reconfigure` comes after the application is built, and an
engine is built for the adapters that it will hold; and how long it may take to stop no replica is told. A
contract test holds this to the installed Ray.
"""

from __future__ import annotations

from typing import Any

from ray import serve


def first_user_config() -> dict[str, Any] | None:
    """The `user_config` that this replica was started with; None when there is none."""
    config: dict[str, Any] | None = serve.get_replica_context()._deployment_config.user_config
    return config


def grace_s() -> float:
    """Seconds from the moment when Serve stops this replica to the one when it kills it."""
    return float(serve.get_replica_context()._deployment_config.graceful_shutdown_timeout_s)
