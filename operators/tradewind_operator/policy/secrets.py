"""Kubernetes Secrets that resources refer to: which must be read, and what is said when one is missing.

Values never come here, except into `value_of`, which gives back whether it is there and a keyed digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tradewind.api.cluster import ServingCluster
from tradewind.api.deployment import ModelDeployment
from tradewind.api.explain import dotted
from tradewind.api.key_hash import MAX_KEY_CHARS, MIN_KEY_CHARS, key_fault, key_hash
from tradewind.api.model import Path
from tradewind.api.resources import Resource
from tradewind.api.secrets import SecretKeyRef
from tradewind.api.tenant import Tenant
from tradewind_operator.policy.namespace import Namespace
from tradewind_operator.policy.verdict import Finding, Reason


class Use(Enum):
    """What a Secret's key holds; the value is how a placeholder for it is written."""

    API_KEY = "<api key>"
    TOKEN = "<token>"  # noqa: S105 - a placeholder
    PASSWORD = "<value>"  # noqa: S105 - a placeholder


class State(Enum):
    """What was found of a Secret's key."""

    PRESENT = "present"
    NO_SECRET = "no Secret"  # noqa: S105 - a state
    NO_KEY = "no such key"
    UNUSABLE = "not an API key"


@dataclass(frozen=True, slots=True)
class SecretValue:
    """What may be known of a Secret's value."""

    state: State
    hash: str | None = None
    """`api.key_hash.key_hash` of the value; None unless it could be an API key."""


SecretValues = Mapping[tuple[str, str], SecretValue]
"""(name of the Secret, key in it) → what was read. One that is not in it counts as missing."""

_MISSING: Final = SecretValue(State.NO_SECRET)


@dataclass(frozen=True, slots=True, order=True)
class WantedSecret:
    """A Secret's key that must be read before anything is decided."""

    name: str
    key: str
    use: str
    """Name of the `Use`."""


def value_of(value: bytes, hash_key: bytes) -> SecretValue:
    """What may be known of a Secret's value; `hash_key` is the ServingCluster's own."""
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        return SecretValue(State.UNUSABLE)
    if key_fault(text):
        return SecretValue(State.UNUSABLE)
    return SecretValue(State.PRESENT, key_hash(text, hash_key))


def wanted_secrets(namespace: Namespace) -> frozenset[WantedSecret]:
    """Of all its resources, as they are written and as they were accepted last."""
    return frozenset(
        WantedSecret(reference.name, reference.key, use.name)
        for entry in namespace.entries()
        for form in entry.forms()
        for _, reference, use in references_of(form.resource)
    )


def references_of(resource: Resource) -> Iterable[tuple[Path, SecretKeyRef, Use]]:
    """Every Secret's key that a resource names, with its place."""
    if isinstance(resource, Tenant):
        for position, key in enumerate(resource.spec.keys):
            if key.secret is not None:
                yield ("spec", "keys", position, "secret"), key.secret, Use.API_KEY
    elif isinstance(resource, ModelDeployment):
        for path, token in resource.spec.tokens():
            if token.secret is not None:
                yield path, token.secret, Use.TOKEN
    elif isinstance(resource, ServingCluster):
        for path, reference in resource.spec.secrets():
            yield path, reference, Use.PASSWORD


def secret_findings(resource: Resource, secrets: SecretValues, namespace: str) -> list[Finding]:
    """A finding for every key that no Secret is named for, or whose Secret is not there.

    It says the command that makes it.
    """
    text = "found env or file, which exist on one machine only; allowed in a cluster: secret"
    local = [Finding(Reason.INVALID, f"{dotted(path)}: {text}") for path in _local_keys(resource)]
    return local + [
        finding
        for path, reference, use in references_of(resource)
        if (finding := _finding(path, reference, use, secrets, namespace)) is not None
    ]


def _local_keys(resource: Resource) -> Iterable[Path]:
    if isinstance(resource, Tenant):
        for position, key in enumerate(resource.spec.keys):
            if key.secret is None:
                yield "spec", "keys", position


def found(reference: SecretKeyRef, secrets: SecretValues) -> SecretValue:
    """What was read of it."""
    return secrets.get((reference.name, reference.key), _MISSING)


def hashes(secrets: SecretValues) -> dict[tuple[str, str], str]:
    """For the compiler: digests of everything that could be an API key."""
    return {place: value.hash for place, value in secrets.items() if value.hash is not None}


def _finding(
    path: Path, reference: SecretKeyRef, use: Use, secrets: SecretValues, namespace: str
) -> Finding | None:
    name, key = reference.name, reference.key
    state = found(reference, secrets).state
    if state is State.NO_SECRET:
        command = (
            f"kubectl create secret generic {name} --namespace {namespace} --from-literal='{key}={use.value}'"
        )
        text = f"found Secret {name!r}, which does not exist; make it: {command}"
        return Finding(Reason.SECRET_NOT_FOUND, f"{dotted(path)}: {text}")
    if state is State.NO_KEY:
        patch = f'{{"stringData":{{"{key}":"{use.value}"}}}}'
        command = f"kubectl patch secret {name} --namespace {namespace} --type merge --patch '{patch}'"
        text = f"found Secret {name!r}, which has no key {key!r}; add it: {command}"
        return Finding(Reason.SECRET_KEY_NOT_FOUND, f"{dotted(path)}: {text}")
    if state is State.UNUSABLE and use is Use.API_KEY:
        text = (
            f"found key {key!r} of Secret {name!r}, whose value is no API key; allowed: "
            f"{MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable ASCII characters without spaces"
        )
        return Finding(Reason.SECRET_UNUSABLE, f"{dotted(path)}: {text}")
    return None
