"""API keys: which tenant a key belongs to.

Keys are held only as keyed blake2b digests: under random bytes of this process or, in a cluster, under
the hash key that operator and gateways share. So what is in memory is no credential, here or elsewhere,
and the time of a look-up says nothing about a key: whoever guesses keys does not know which digests they
have.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

from tradewind.api.key_hash import HASH_BYTES, MAX_KEY_CHARS, key_digest, key_fault
from tradewind.api.problems import Code
from tradewind.api.steps import Steps, at_once
from tradewind.api.wire import GatewayConfig, SecretRef, TenantEntry
from tradewind.gateway.head import Head
from tradewind.gateway.problems import ConfigRefused, Refused

ANONYMOUS = "anonymous"
"""Tenant of callers without a key, where the configuration allows them."""

_ALL = "*"

SecretReader = Callable[[SecretRef], str]
"""Reads a secret where the reference says. Any exception means that it cannot be read."""


class Tenant:
    """A caller: its name and the models it may call."""

    __slots__ = ("_models", "name")

    def __init__(self, name: str, models: tuple[str, ...] = (_ALL,)) -> None:
        self.name = name
        self._models = None if _ALL in models else frozenset(models)

    def may_call(self, model: str) -> bool:
        """Whether `model`, the public name, is among the tenant's."""
        return self._models is None or model in self._models


class KeyIndex:
    """Digests of all keys. Immutable: a new configuration makes a new one."""

    __slots__ = ("_anonymous", "_digests", "_open", "_pepper")

    def __init__(self, digests: dict[bytes, tuple[bytes, Tenant]], pepper: bytes, anonymous: bool) -> None:
        self._digests = digests
        self._pepper = pepper
        self._anonymous = Tenant(ANONYMOUS) if anonymous else None
        # Where nobody has a key, any key is as good as none: SDKs insist on sending one.
        self._open = anonymous and not digests

    @classmethod
    def build(
        cls, config: GatewayConfig, read_secret: SecretReader, hash_key: bytes | None = None
    ) -> KeyIndex:
        """Reads every tenant's keys anew. Raises ConfigRefused; the message names tenants, never a key.

        Args:
            hash_key: under which the configuration's key hashes were made; None where it holds none.
        """
        return at_once(cls.building(config, read_secret, hash_key))

    @classmethod
    def building(
        cls, config: GatewayConfig, read_secret: SecretReader, hash_key: bytes | None = None
    ) -> Steps[KeyIndex]:
        """`build` in steps, one for each tenant."""
        pepper = hash_key or secrets.token_bytes(32)
        digests: dict[bytes, tuple[bytes, Tenant]] = {}
        for entry in config.tenants:
            tenant = Tenant(entry.name, entry.models)
            read = [key_digest(_read_key(entry, key, read_secret), pepper) for key in entry.keys]
            for digest in (*read, *_hashes(entry, hash_key)):
                owner = digests.setdefault(digest, (digest, tenant))[1]
                if owner.name != entry.name:
                    raise ConfigRefused(f"tenants {owner.name} and {entry.name} have the same key")
            yield
        return cls(digests, pepper, config.anonymous)

    def authenticate(self, head: Head) -> Tenant:
        """The caller. Raises Refused (invalid_api_key)."""
        key = _sent_key(head)
        if key is None:
            if self._anonymous is not None:
                return self._anonymous
            raise _unknown("Send an API key: Authorization: Bearer <key>, or x-api-key.")
        if self._open and self._anonymous is not None:
            return self._anonymous
        digest = key_digest(key[: MAX_KEY_CHARS + 1], self._pepper)
        found = self._digests.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            raise _unknown("Nobody has this API key.")
        return found[1]


def _sent_key(head: Head) -> bytes | None:
    authorization = head.get(b"authorization")
    own = head.get(b"x-api-key")
    if authorization is None:
        return own
    scheme, _, key = authorization.partition(b" ")
    key = key.strip()
    if scheme.lower() != b"bearer" or not key:
        raise _unknown("The Authorization header must be: Bearer <key>.")
    if own is not None and not hmac.compare_digest(own, key):
        raise _unknown("Authorization and x-api-key hold different keys.")
    return key


def _read_key(entry: TenantEntry, reference: SecretRef, read_secret: SecretReader) -> bytes:
    where = f"tenant {entry.name}: key from " + (
        f"environment variable {reference.env}" if reference.env else f"file {reference.file}"
    )
    try:
        key = read_secret(reference).strip()
    except Exception as error:
        # Whatever a reader raises. Only the kind of the failure: its text may quote what was read.
        raise ConfigRefused(f"{where} cannot be read ({type(error).__name__})") from None
    if fault := key_fault(key):
        raise ConfigRefused(f"{where} {fault}")
    return key.encode()


def _hashes(entry: TenantEntry, hash_key: bytes | None) -> list[bytes]:
    if entry.key_hashes and hash_key is None:
        raise ConfigRefused(f"tenant {entry.name}: has key hashes, but this gateway has no hash key")
    try:
        hashes = [bytes.fromhex(text) for text in entry.key_hashes]
    except ValueError:
        raise ConfigRefused(f"tenant {entry.name}: a key hash is not hexadecimal") from None
    if any(len(digest) != HASH_BYTES for digest in hashes):
        raise ConfigRefused(f"tenant {entry.name}: a key hash must have {HASH_BYTES} bytes")
    return hashes


def _unknown(message: str) -> Refused:
    return Refused(Code.INVALID_API_KEY, message)
