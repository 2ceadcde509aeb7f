"""Sets of resources as YAML text, from the builders of the api's tests."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.api.builders import Data, cluster, model, route
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.gateway import KeyHashes
from tradewind.compiler.world import LOCAL, Platform


def text(*resources: Data) -> str:
    """One YAML document (JSON is YAML) per line pair."""
    return "".join(f"---\n{json.dumps(resource)}\n" for resource in resources)


def located(*resources: Data) -> tuple[Located, ...]:
    return read_documents([("set.yaml", text(*resources))])


def compiled(*resources: Data, platform: Platform = LOCAL, key_hashes: KeyHashes | None = None) -> Compiled:
    return compile_resources(located(*resources), platform=platform, key_hashes=key_hashes)


def pools(more: Data | None = None, **spec: Any) -> Data:
    """A ServingCluster with one pool of small GPU nodes, one of large, and `more`."""
    small = {"gpus": 1, "cpus": 4, "memory": "16Gi", "maxNodes": 4}
    large = {"gpus": 2, "cpus": 16, "memory": "128Gi", "maxNodes": 2}
    return cluster(pools={"l4": small, "h100": large, **(more or {})}, **spec)


def pair() -> tuple[Data, Data, Data]:
    """Two models and the route between them."""
    return model("llama"), model("mistral"), route()
