"""Brings stored resources to the version of the API that their definition stores now.

A definition remembers in `status.storedVersions` every version that a resource may still be stored in, and
the API server refuses to lose one of them. So before a version can be dropped, everything must have been
written once more, and the list be cut. Each step may be broken off and done again.

The server that is asked must be one that stores the new version already: it says so in its discovery, and
list, writes and that question go over one connection. With several API servers, begin a minute after the
definition has changed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from tradewind_operator.api_server import Object, Objects
from tradewind_operator.errors import Conflict, Invalid, NotFound, NotMigrated
from tradewind_operator.kinds import DEFINITION, Resource

_TRIES: Final = 10
_SHOWN: Final = 5


class StoredObjects(Objects, Protocol):
    """What a migration needs of the API. One connection is enough, and wanted."""

    async def served(self, root: str) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was done about one kind."""

    kind: str
    version: str
    """That is stored now."""
    dropped: tuple[str, ...] = ()
    """Versions that nothing is stored in any more."""
    written: int = 0
    """Resources that were written."""

    def __str__(self) -> str:
        if not self.dropped:
            return f"{self.kind}: everything is stored as {self.version}"
        return f"{self.kind}: {self.written} stored as {self.version} now; no more {', '.join(self.dropped)}"


async def migrate(
    api: StoredObjects, kind: Resource, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Migrated:
    """Write every resource of a kind once more, and take the versions of before off its definition.

    Raises:
        NotMigrated: a resource is refused as it is, or the server goes on storing another version.
        ApiError: the API server could not be asked; do it again.
    """
    definition = await api.get(DEFINITION, "", kind.full_name)
    version = stored_version(definition)
    dropped = tuple(each for each in definition["status"]["storedVersions"] if each != version)
    if not dropped:
        return Migrated(kind.kind, version)
    stored = replace(kind, api_version=f"{kind.group}/{version}")
    await _await_version(api, stored, sleep)
    written, refused = 0, []
    for item in await api.list(stored, ""):
        try:
            written += await _write(api, stored, item)
        except Invalid as error:
            refused.append(str(error))
    if refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise NotMigrated(
            f"{kind.kind}: {len(refused)} resources break the rules of {version}; correct them and do this"
            f" again: {'; '.join(refused[:_SHOWN])}{more}"
        )
    await _cut(api, kind, version)
    return Migrated(kind.kind, version, dropped, written)


def stored_version(definition: Mapping[str, Any]) -> str:
    """The version that a definition stores resources in. Pure."""
    return next(str(each["name"]) for each in definition["spec"]["versions"] if each["storage"])


def version_hash(stored: Resource) -> str:
    """As discovery names the version in which a kind is stored. Pure."""
    text = f"{stored.group}/{stored.version}/{stored.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


async def _await_version(
    api: StoredObjects, stored: Resource, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Return once the server stores the new version: it learns of a change of the definition by a watch."""
    for _ in range(_TRIES):
        if (await api.served(stored.root)).get(stored.plural) == version_hash(stored):
            return
        await sleep(1.0)
    raise NotMigrated(f"{stored.kind}: this API server does not store {stored.version} yet; do this again")


async def _write(api: StoredObjects, stored: Resource, item: Object) -> bool:
    """Write a resource as it is; False where somebody else has just written it, or it is gone.

    Raises:
        Invalid: the API server refuses it as it is.
    """
    about = item["metadata"]
    patch = {"metadata": {"uid": about["uid"], "resourceVersion": about["resourceVersion"]}}
    try:
        await api.merge_patch(stored, about["namespace"], about["name"], patch)
    except (Conflict, NotFound):
        return False
    return True


async def _cut(api: StoredObjects, kind: Resource, version: str) -> None:
    """Leave one version on the definition, as long as that is the one that is stored."""
    for _ in range(_TRIES):
        definition = await api.get(DEFINITION, "", kind.full_name)
        if stored_version(definition) != version:
            break
        about, status = definition["metadata"], {**definition["status"], "storedVersions": [version]}
        try:
            await api.put_status(
                DEFINITION, "", kind.full_name, about["uid"], about["resourceVersion"], status
            )
        except Conflict:
            continue
        return
    raise NotMigrated(f"{kind.kind}: its definition was changed meanwhile; do this again")
