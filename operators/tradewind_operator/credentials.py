"""The Secrets of a ServingCluster: those the operator makes, and what it reads of those that people make.

Values pass through here and nowhere else: into `NAME-tokens`, and as keyed hashes into the decision. They
are not kept, not logged and never part of a message.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tradewind.compiler.secret_names import SecretUse
from tradewind_operator.api_server import ApiServer
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import is_ours, own_marks, owned_labels, owner_reference
from tradewind_operator.errors import AlreadyExists, NotFound, NotOurs
from tradewind_operator.kinds import SECRET
from tradewind_operator.policy.secrets import SecretValue, SecretValues, State, WantedSecret, value_of

AUTH_TOKEN: Final = "auth_token"  # noqa: S105 - a key's name, which KubeRay prescribes
_KEYS: Final = (AUTH_TOKEN, names.INTERNAL_TOKEN_KEY, names.HASH_KEY_KEY)
_AT_ONCE: Final = 8

Values = Mapping[str, Mapping[str, bytes] | None]
"""Name of a Secret → its values by key; None where there is no such Secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `NAME-auth` holds."""

    auth_token: str = field(repr=False)
    """Ray's own token."""
    internal_token: str = field(repr=False)
    """Between gateway, engines and operator."""
    hash_key: bytes = field(repr=False)
    """Under which API keys are hashed."""
    created: bool = False
    """The Secret, or a part of it, was not there and was made now."""


def _random() -> str:
    return secrets.token_hex(32)


class ClusterSecrets:
    """Reads and writes the Secrets of one ServingCluster.

    Args:
        uid: of the ServingCluster, which the Secrets go away with.
    """

    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        cluster: str,
        uid: str,
        *,
        random: Callable[[], str] = _random,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._cluster = cluster
        self._uid = uid
        self._random = random

    async def ensure(self) -> Credentials:
        """Read `NAME-auth`, or make what is missing of it. What is there is never changed.

        Raises:
            NotOurs: a Secret of that name is someone else's.
            ApiError: it cannot be read or made.
        """
        name = names.auth_secret(self._cluster)
        try:
            found = await self._api.get(SECRET, self._namespace, name)
        except NotFound:
            manifest = self._manifest(name, {key: self._random() for key in _KEYS})
            try:
                return self._read(await self._api.create(manifest), created=True)
            except AlreadyExists:
                found = await self._api.get(SECRET, self._namespace, name)
        self._check(found)
        missing = {key: _encode(self._random()) for key in _KEYS if not _value(found, key)}
        if not missing:
            return self._read(found, created=False)
        patch = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "data": missing,
        }
        return self._read(await self._api.merge_patch(SECRET, self._namespace, name, patch), created=True)

    async def put_tokens(self, uses: Iterable[SecretUse], values: Values) -> None:
        """Copy hub tokens into `NAME-tokens`: exactly those that are used.

        Without any it is emptied and not deleted: the operator may not delete Secrets.

        A token whose Secret is gone is left out; its engines have their weights already.

        Raises:
            NotOurs: a Secret of that name is someone else's.
            ApiError: it cannot be written.
        """
        name = names.tokens_secret(self._cluster)
        tokens = {
            use.file: value
            for use in uses
            if (value := (values.get(use.name) or {}).get(use.key)) is not None
        }
        try:
            found: dict[str, Any] | None = await self._api.get(SECRET, self._namespace, name)
        except NotFound:
            found = None
        if found is not None:
            self._check(found)
        data = {file: base64.b64encode(value).decode() for file, value in sorted(tokens.items())}
        if data != ((found or {}).get("data") or {}):
            await self._api.apply(self._manifest(name, None) | {"data": data})

    def _manifest(self, name: str, texts: Mapping[str, str] | None) -> dict[str, Any]:
        manifest = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.kind,
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": owned_labels(self._cluster),
                "ownerReferences": [owner_reference(self._cluster, self._uid)],
            },
            "type": "Opaque",
        }
        return manifest if texts is None else manifest | {"data": {k: _encode(v) for k, v in texts.items()}}

    def _check(self, secret: Mapping[str, Any]) -> None:
        if not is_ours(secret, self._cluster):
            wanted = ", ".join(f"{key}={value}" for key, value in own_marks(self._cluster).items())
            raise NotOurs(
                f"Secret {self._namespace}/{secret['metadata']['name']} belongs to someone else;"
                f" rename it or the ServingCluster, or label it {wanted}"
            )

    def _read(self, secret: Mapping[str, Any], *, created: bool) -> Credentials:
        token, internal, key = ((_value(secret, name) or b"").strip() for name in _KEYS)
        return Credentials(token.decode("latin-1"), internal.decode("latin-1"), key, created)


async def read_secrets(api: ApiServer, namespace: str, wanted: Iterable[str]) -> Values:
    """The Secrets of these names, each read once, a few at a time. Raises ApiError."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def read(name: str) -> tuple[str, Mapping[str, bytes] | None]:
        async with gate:
            try:
                secret = await api.get(SECRET, namespace, name)
            except NotFound:
                return name, None
        found = {key: _value(secret, key) for key in secret.get("data") or {}}
        return name, {key: value for key, value in found.items() if value is not None}

    return dict(await asyncio.gather(*(read(name) for name in sorted(set(wanted)))))


def digest_values(wanted: Iterable[WantedSecret], values: Values, hash_key: bytes) -> SecretValues:
    """What may be known of the wanted keys: whether each is there, and its keyed hash."""
    found: dict[tuple[str, str], SecretValue] = {}
    for item in wanted:
        secret = values.get(item.name)
        if secret is None:
            found[item.name, item.key] = SecretValue(State.NO_SECRET)
        elif item.key not in secret:
            found[item.name, item.key] = SecretValue(State.NO_KEY)
        else:
            found[item.name, item.key] = value_of(secret[item.key], hash_key)
    return found


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _value(secret: Mapping[str, Any], key: str) -> bytes | None:
    """A value of a Secret; None where it is absent, empty or not base64."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True) or None
    except (binascii.Error, ValueError):
        return None
