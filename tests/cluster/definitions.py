"""Definitions of custom resources on the server of the session: put there, brought up to date, taken away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubernetes import client as k8s

from tests.cluster.objects import EXISTS, wait_for
from tests.unit.api.builders import Data

SERVED_S = 30.0


def put(kube: k8s.ApiClient, manifests: Iterable[Data]) -> dict[str, Any]:
    """Create or replace them, and say what the server has of each, by name. They stay for others."""
    extensions: Any = k8s.ApiextensionsV1Api(kube)
    names = [_put(extensions, manifest) for manifest in manifests]
    return {
        name: wait_for(lambda n=name: _served(extensions, n), f"{name} served", SERVED_S) for name in names
    }


def take_away(kube: k8s.ApiClient, name: str) -> None:
    """Until it is gone: nobody can make it anew while it goes."""
    extensions: Any = k8s.ApiextensionsV1Api(kube)
    extensions.delete_custom_resource_definition(name)

    def gone() -> bool:
        return name not in {item.metadata.name for item in extensions.list_custom_resource_definition().items}

    wait_for(gone, f"{name} gone", SERVED_S)


def _put(extensions: Any, manifest: Data) -> str:
    name = str(manifest["metadata"]["name"])
    try:
        extensions.create_custom_resource_definition(manifest)
    except k8s.ApiException as error:
        if error.status != EXISTS:
            raise
        version = extensions.read_custom_resource_definition(name).metadata.resource_version
        metadata = {**manifest["metadata"], "resourceVersion": version}
        extensions.replace_custom_resource_definition(name, {**manifest, "metadata": metadata})
    return name


def _served(extensions: Any, name: str) -> Any:
    found = extensions.read_custom_resource_definition(name)
    told = {condition.type: condition.status for condition in found.status.conditions or ()}
    return found if told.get("Established") == "True" else None
