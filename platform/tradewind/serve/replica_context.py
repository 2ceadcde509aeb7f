"""What a replica that starts is configured with, before Serve's `reconfigure` tells it.

Touches a private field of Serve's replica context: `reconfigure` comes after the application is built,
and an engine is built for the adapters that it will hold. A contract test holds this to the installed Ray.
"""

from __future__ import annotations

from typing import Any

from ray import serve


def first_user_config() -> dict[str, Any] | None:
    """The `user_config` that this replica was started with; None when there is none."""
    config: dict[str, Any] | None = serve.get_replica_context()._deployment_config.user_config
    return config
