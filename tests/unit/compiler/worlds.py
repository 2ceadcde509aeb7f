"""Sets of resources as YAML text, from the builders of the api's tests."""

from __future__ import annotations

import json

from tests.unit.api.builders import Data, model, route
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.world import LOCAL, Platform


def text(*resources: Data) -> str:
    """One YAML document (JSON is YAML) per line pair."""
    return "".join(f"---\n{json.dumps(resource)}\n" for resource in resources)


def located(*resources: Data) -> tuple[Located, ...]:
    return read_documents([("set.yaml", text(*resources))])


def compiled(*resources: Data, platform: Platform = LOCAL) -> Compiled:
    return compile_resources(located(*resources), platform=platform)


def pair() -> tuple[Data, Data, Data]:
    """Two models and the route between them."""
    return model("llama"), model("mistral"), route()
