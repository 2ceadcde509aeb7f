"""What a reconcile needs of the Kubernetes API: plain dicts in and out, every error an ApiError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tradewind_operator.kinds import Resource

Object = dict[str, Any]


class Objects(Protocol):
    """To read objects and to change those that are there. See `kube.Kube`, which is the real one."""

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> list[Object]: ...

    async def get(self, resource: Resource, namespace: str, name: str) -> Object: ...

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> Object: ...

    async def put_status(
        self, resource: Resource, namespace: str, name: str, uid: str, version: str, status: Mapping[str, Any]
    ) -> Object: ...


class ApiServer(Objects, Protocol):
    """And to make and remove them."""

    async def create(self, manifest: Mapping[str, Any]) -> Object: ...

    async def apply(self, manifest: Mapping[str, Any]) -> Object: ...

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> None: ...
