"""Resources of one namespace as the API server gives them, and decisions about them."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit.api.builders import Data, changed, resource
from tradewind_operator.policy.decide import decide
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.policy.namespace import Documents, Namespace
from tradewind_operator.policy.secrets import SecretValue, SecretValues, State

NAMESPACE = "team"
ALLOWED = AllowedImages(("ghcr.io/tradewind/",))
KEYS: SecretValues = {
    ("acme", "key"): SecretValue(State.PRESENT, "aa" * 32),
    ("beta", "key"): SecretValue(State.PRESENT, "bb" * 32),
}
POOLS = {"cpu": {"cpus": 8, "memory": "16Gi", "maxNodes": 4}}


def live(data: Data, generation: int = 1, **metadata: Any) -> Data:
    """As it comes from the API server."""
    result = copy.deepcopy(data)
    result["metadata"] |= {"namespace": NAMESPACE, "generation": generation, "uid": data["metadata"]["name"]}
    result["metadata"] |= {"annotations": {"note": "x" * 9_000}, "managedFields": [{}], **metadata}
    return result


def cluster(name: str = "default", **spec: Any) -> Data:
    return live(resource("ServingCluster", name, {"pools": POOLS, **spec}))


def model(name: str = "llama", **spec: Any) -> Data:
    source = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}
    return live(resource("ModelDeployment", name, {"source": source, **spec}))


def route(name: str = "chat", *deployments: str, **spec: Any) -> Data:
    names = deployments or ("llama", "mistral")
    variants = [{"name": f"v-{each}", "deployment": each, "weight": 50} for each in names]
    return live(resource("ModelRoute", name, {"model": name, "variants": variants, **spec}))


def tenant(name: str = "acme", **spec: Any) -> Data:
    keys = [{"secret": {"name": name, "key": "key"}}]
    return live(resource("Tenant", name, {"keys": keys, **spec}))


def accepted(data: Data) -> Data:
    """After the operator has taken it as it is."""
    spec, generation = copy.deepcopy(data["spec"]), data["metadata"]["generation"]
    return data | {"status": {"accepted": {"generation": generation, "spec": spec}}}


def edited(data: Data, path: str, value: Any) -> Data:
    """After someone has changed a field of the spec: the generation is one higher."""
    generation = data["metadata"]["generation"] + 1
    return changed(changed(data, path, value), "metadata.generation", generation)


def deleting(data: Data) -> Data:
    return changed(data, "metadata.deletionTimestamp", "2026-11-22T10:00:00Z")


def documents(*data: Data) -> Documents:
    kinds = dict.fromkeys(each["kind"] for each in data)
    return Documents(
        NAMESPACE, {kind: tuple(each for each in data if each["kind"] == kind) for kind in kinds}
    )


def decided(*data: Data, about: str = "default", secrets: SecretValues = KEYS, **more: Any) -> Decision:
    return decide(about, Namespace.of(documents(*data)), secrets, ALLOWED, **more)


def platform() -> list[Data]:
    """A platform without a fault, all of it accepted."""
    parts = [cluster(), model(), model("mistral"), route(), route("direct", "llama"), tenant()]
    return [accepted(part) for part in parts]
