"""An API server of dicts: enough of Kubernetes for the operator's own calls, and every call noted."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tradewind_operator.errors import AlreadyExists, ApiError, Conflict, Invalid, NotFound
from tradewind_operator.kinds import Resource, resource_of

Object = dict[str, Any]


class FakeApi:
    """Objects by resource, namespace and name. Server-side apply replaces what is not metadata or status."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.calls: list[tuple[str, str, str]] = []
        """(verb, plural, name) in order."""
        self.failing: dict[tuple[str, str], ApiError] = {}
        """(verb, plural) that raises."""
        self.managers: set[str] = set()
        """Field managers that have applied something."""
        self._versions: Iterator[int] = itertools.count(1)

    def put(self, manifest: Mapping[str, Any]) -> Object:
        """What someone else writes; no call is noted."""
        resource = resource_of(manifest)
        made = copy.deepcopy(dict(manifest))
        metadata = made["metadata"]
        before = self.objects.get((resource.plural, metadata["namespace"], metadata["name"]))
        metadata.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{next(self._versions)}")
        old_spec = before.get("spec") if before else None
        generation = before["metadata"]["generation"] if before else 0
        metadata["generation"] = generation + (old_spec != made.get("spec") or before is None)
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[resource.plural, metadata["namespace"], metadata["name"]] = made
        return copy.deepcopy(made)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """What someone else deletes."""
        del self.objects[resource.plural, namespace, name]

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object as it is; no call is noted."""
        return copy.deepcopy(self.objects.get((resource.plural, namespace, name)))

    def made(self, verb: str) -> list[tuple[str, str]]:
        """(plural, name) of all calls with this verb."""
        return [(plural, name) for called, plural, name in self.calls if called == verb]

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> list[Object]:
        self._note("list", resource, "")
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        return [
            copy.deepcopy(found)
            for (plural, place, _), found in sorted(self.objects.items())
            if plural == resource.plural
            and namespace in ("", place)
            and wanted.items() <= (found["metadata"].get("labels") or {}).items()
        ]

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        self._note("get", resource, name)
        return copy.deepcopy(self._find(resource, namespace, name))

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        resource, metadata = resource_of(manifest), manifest["metadata"]
        self._note("create", resource, metadata["name"])
        if self.find(resource, metadata["namespace"], metadata["name"]) is not None:
            raise AlreadyExists("create", 409, "AlreadyExists")
        return self.put(manifest)

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = "tradewind-operator") -> Object:
        resource, metadata = resource_of(manifest), manifest["metadata"]
        self._note("apply", resource, metadata["name"])
        self.managers.add(manager)
        before = self.find(resource, metadata["namespace"], metadata["name"])
        kept = {"status": before["status"]} if before is not None and "status" in before else {}
        finalizers = (before or {}).get("metadata", {}).get("finalizers")
        merged = {**metadata, **({"finalizers": finalizers} if finalizers else {})}
        return self.put({**manifest, **kept, "metadata": merged})

    async def replace(self, manifest: Mapping[str, Any]) -> Object:
        resource, metadata = resource_of(manifest), manifest["metadata"]
        self._note("update", resource, metadata["name"])
        self._unchanged(resource, metadata["namespace"], metadata["name"], metadata)
        return self.put(manifest)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> Object:
        self._note("patch", resource, name)
        self._unchanged(resource, namespace, name, patch.get("metadata") or {})
        merged = _merge(self._find(resource, namespace, name), patch)
        metadata = merged["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.remove(resource, namespace, name)
            return merged
        return self.put(merged)

    async def put_status(
        self, resource: Resource, namespace: str, name: str, uid: str, version: str, status: Mapping[str, Any]
    ) -> Object:
        self._note("status", resource, name)
        found = self._find(resource, namespace, name)
        if found["metadata"]["uid"] != uid:
            raise Invalid("status", 422, "Invalid")
        self._unchanged(resource, namespace, name, {"resourceVersion": version})
        return self.put({**found, "status": copy.deepcopy(dict(status))})

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> None:
        self._note("delete", resource, name)
        found = self._find(resource, namespace, name)
        if uid is not None and found["metadata"]["uid"] != uid:
            raise Conflict("delete", 409, "Conflict")
        if found["metadata"].get("finalizers"):
            found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            self.remove(resource, namespace, name)

    def _note(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, resource.plural, name))
        if (error := self.failing.get((verb, resource.plural))) is not None:
            raise error

    def _find(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self.objects.get((resource.plural, namespace, name))
        if found is None:
            raise NotFound(f"get {resource.kind} {namespace}/{name}", 404, "NotFound")
        return found

    def _unchanged(self, resource: Resource, namespace: str, name: str, metadata: Mapping[str, Any]) -> None:
        found = self._find(resource, namespace, name)
        wanted = metadata.get("resourceVersion")
        if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
            raise Conflict("update", 409, "Conflict")


def _merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
