"""Resources as plain data, to be changed by a dotted path: `changed(model(), "spec.replicas", 0)`."""

from __future__ import annotations

import copy
from typing import Any

Data = dict[str, Any]


def resource(kind: str, name: str, spec: Data) -> Data:
    return {"apiVersion": "tradewind.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cluster(**spec: Any) -> Data:
    return resource("ServingCluster", "default", spec)


def model(name: str = "llama", **spec: Any) -> Data:
    return resource(
        "ModelDeployment", name, {"source": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}, **spec}
    )


def route(name: str = "chat", **spec: Any) -> Data:
    variants = [
        {"name": "control", "deployment": "llama", "weight": 80},
        {"name": "candidate", "deployment": "mistral", "weight": 20},
    ]
    return resource("ModelRoute", name, {"model": name, "variants": variants, **spec})


def tenant(name: str = "acme", **spec: Any) -> Data:
    return resource("Tenant", name, {"keys": [{"env": "ACME_KEY"}], **spec})


def changed(data: Data, path: str, value: Any) -> Data:
    """A copy with the value at `path` set; list positions are numbers between dots."""
    result = copy.deepcopy(data)
    *parents, last = path.split(".")
    place: Any = result
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return result
