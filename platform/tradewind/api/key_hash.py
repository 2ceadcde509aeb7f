"""What an API key may look like, and the keyed hash under which the gateway knows it.

The operator hashes what the referenced Secrets hold and hands the hashes to the gateway, so that no
configuration ever carries a key. Without the cluster's hash key a hash can be neither made nor guessed
at, and a hash is no credential: the gateway hashes what a client sends.
"""

from __future__ import annotations

import hashlib
from typing import Final

MIN_KEY_CHARS: Final = 16
MAX_KEY_CHARS: Final = 512
HASH_BYTES: Final = 32
_PERSON: Final = b"tradewind-key"


def key_fault(key: str) -> str:
    """What is wrong with an API key without surrounding white space; empty when nothing is."""
    if not key.isascii() or not key.isprintable() or " " in key:
        return "must be printable ASCII without spaces"
    if not MIN_KEY_CHARS <= len(key) <= MAX_KEY_CHARS:
        return f"must have {MIN_KEY_CHARS} to {MAX_KEY_CHARS} characters"
    return ""


def key_hash(key: str, hash_key: bytes) -> str:
    """Hex blake2b-256 of an API key without surrounding white space.

    Args:
        key: the API key as a client sends it or a Secret holds it.
        hash_key: the cluster's own secret, 1 to 64 bytes.

    Raises:
        ValueError: `hash_key` is empty or longer than 64 bytes.
    """
    if not 1 <= len(hash_key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError(f"the hash key has {len(hash_key)} bytes; allowed: 1 to 64")
    return key_digest(key.strip().encode("utf-8"), hash_key).hex()


def key_digest(key: bytes, hash_key: bytes) -> bytes:
    """The same as 32 bytes, for a key exactly as given: once per request, so nothing is checked."""
    return hashlib.blake2b(key, digest_size=HASH_BYTES, key=hash_key, person=_PERSON).digest()
