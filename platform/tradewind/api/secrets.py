"""References to secrets. A resource never holds a secret itself, only where to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tradewind.api.model import ApiModel, Fault, exactly_one
from tradewind.api.values import TEXT_PATTERN, EnvName, SecretKey, SecretName

SecretFile = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=1024)]


def file_faults(file: str | None) -> Iterable[Fault]:
    """A fault when a path climbs out of the directory it is relative to."""
    if file is not None and ".." in re.split(r"[/\\]", file):
        yield Fault(
            ("file",), "found '..' in the path; allowed: an absolute path, or one below TRADEWIND_HOME"
        )


class TokenRef(ApiModel):
    """Where a token is read: exactly one of `env`, `file`, or `name` with `key`."""

    env: EnvName | None = None
    """Environment variable of the engine's process."""
    file: SecretFile | None = None
    """Absolute path, or one relative to TRADEWIND_HOME."""
    name: SecretName | None = None
    """Kubernetes Secret in the same namespace; only in a cluster."""
    key: SecretKey | None = None
    """Key of that Secret."""

    def faults(self) -> Iterable[Fault]:
        yield from exactly_one(self, "env", "file", "name")
        yield from file_faults(self.file)
        if (self.name is None) != (self.key is None):
            missing, given = ("key", "name") if self.key is None else ("name", "key")
            yield Fault((), f"found {given} without {missing}; a Secret needs both")


class SecretKeyRef(ApiModel):
    """One key of a Kubernetes Secret in the same namespace."""

    name: SecretName
    """Name of the Secret."""
    key: SecretKey
    """Key in the Secret."""


class ApiKeyRef(ApiModel):
    """Where an API key is read: exactly one of `env`, `file`, `secret`."""

    env: EnvName | None = None
    """Environment variable of the gateway's process."""
    file: SecretFile | None = None
    """Absolute path, or one relative to TRADEWIND_HOME; one key in the file."""
    secret: SecretKeyRef | None = None
    """Kubernetes Secret; only in a cluster."""

    def faults(self) -> Iterable[Fault]:
        yield from exactly_one(self, "env", "file", "secret")
        yield from file_faults(self.file)
