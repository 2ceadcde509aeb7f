"""How large a configuration is. etcd takes 1.5 MiB for the whole RayService."""

from __future__ import annotations

import json
from typing import Final

from tradewind.compiler.compile import Compiled
from tradewind_operator.policy.verdict import Key

MAX_SERVE_CONFIG: Final = 1_200_000
"""Bytes of serveConfigV2 as compact JSON."""


def bytes_of(content: object) -> int:
    """Of compact JSON, ASCII only, which is how serveConfigV2 is written."""
    return len(json.dumps(content, separators=(",", ":")))


def bytes_by_resource(compiled: Compiled) -> dict[Key, int]:
    """What each resource takes of the configuration; that of a route is under its model's name."""
    gateway = compiled.serve_config["applications"][0]["deployments"][0]["user_config"]
    sizes: dict[Key, int] = {}
    for app in compiled.serve_config["applications"][1:]:
        sizes["ModelDeployment", app["name"]] = bytes_of(app)
    for entry in gateway.get("deployments", ()):
        sizes["ModelDeployment", entry["name"]] += bytes_of(entry)
    for entry in gateway.get("routes", ()):
        sizes["ModelRoute", entry["model"]] = bytes_of(entry)
    for entry in gateway.get("tenants", ()):
        sizes["Tenant", entry["name"]] = bytes_of(entry)
    return sizes
