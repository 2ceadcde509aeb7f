"""The resources of a small platform, and the words in which tests ask how it is."""

from __future__ import annotations

from typing import Any

from tests.unit.api.builders import Data, resource

POOLS = {"cpu": {"cpus": 8, "memory": "16Gi", "maxNodes": 4}}
NAMES = {"llama": "meta-llama/Llama-3.1-8B-Instruct", "mistral": "mistralai/Mistral-7B-Instruct-v0.3"}


def secret(name: str, **content: str) -> Data:
    """A Secret that a person made."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}


def cluster(name: str = "default", **spec: Any) -> Data:
    return resource("ServingCluster", name, {"pools": POOLS, **spec})


def model(name: str = "llama", **spec: Any) -> Data:
    source = {"uri": f"hf://{NAMES.get(name, NAMES['llama'])}"}
    return resource("ModelDeployment", name, {"source": source, **spec})


def route(name: str = "chat", weights: dict[str, int] | None = None, **spec: Any) -> Data:
    """Shares of deployments in a public model name."""
    split = weights or {"llama": 80, "mistral": 20}
    variants = [{"name": f"v-{each}", "deployment": each, "weight": part} for each, part in split.items()]
    return resource("ModelRoute", name, {"model": name, "variants": variants, **spec})


def tenant(name: str = "acme", **spec: Any) -> Data:
    """With the key `key` of the Secret of its name."""
    return resource("Tenant", name, {"keys": [{"secret": {"name": name, "key": "key"}}], **spec})


def world(key: str = "tw-a-key-of-a-tenant-000000000001") -> list[Data]:
    """A cluster with two models, a route over both and a tenant who may call them."""
    return [secret("acme", key=key), cluster(), model(), model("mistral"), route(), tenant()]
