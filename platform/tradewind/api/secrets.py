"""References to secrets. A resource never holds a secret itself, only where to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tradewind.api.model import ApiModel, Fault
from tradewind.api.values import TEXT_PATTERN, EnvName, SecretKey, SecretName

SecretFile = Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=1024)]


def file_faults(file: str | None) -> Iterable[Fault]:
    """A fault when a path climbs out of the directory it is relative to."""
    if file is not None and ".." in re.split(r"[/\\]", file):
        yield Fault(
            ("file",), "found '..' in the path; allowed: an absolute path, or one below TRADEWIND_HOME"
        )


def _places(model: ApiModel, secret: str) -> Iterable[Fault]:
    """A fault unless there is a place to read from, and at most one on one machine."""
    local = [name for name in ("env", "file") if getattr(model, name) is not None]
    if len(local) > 1:
        yield Fault((), "found env and file; allowed: at most one of them")
    elif not local and getattr(model, secret) is None:
        yield Fault(
            (), f"found none; allowed: one of env and file (on one machine), and {secret} (in a cluster)"
        )


class SecretKeyRef(ApiModel):
    """One key of a Kubernetes Secret in the same namespace."""

    name: SecretName
    """Name of the Secret."""
    key: SecretKey
    """Key in the Secret."""


class TokenRef(ApiModel):
    """Where a token is read: on one machine `env` or `file`, in a cluster `name` with `key`; one at least."""

    env: EnvName | None = None
    """Environment variable of the platform's process. On one machine only."""
    file: SecretFile | None = None
    """Absolute path, or one relative to TRADEWIND_HOME. On one machine only."""
    name: SecretName | None = None
    """Kubernetes Secret in the same namespace. In a cluster only."""
    key: SecretKey | None = None
    """Key of that Secret."""

    @property
    def secret(self) -> SecretKeyRef | None:
        """The Kubernetes Secret's key, where one is named."""
        if self.name is None or self.key is None:
            return None
        return SecretKeyRef(name=self.name, key=self.key)

    def faults(self) -> Iterable[Fault]:
        yield from _places(self, "name")
        yield from file_faults(self.file)
        if (self.name is None) != (self.key is None):
            missing, given = ("key", "name") if self.key is None else ("name", "key")
            yield Fault((), f"found {given} without {missing}; a Secret needs both")


class ApiKeyRef(ApiModel):
    """Where an API key is read: on one machine `env` or `file`, in a cluster `secret`; one at least."""

    env: EnvName | None = None
    """Environment variable of the gateway's process. On one machine only."""
    file: SecretFile | None = None
    """Absolute path, or one relative to TRADEWIND_HOME; one key in the file. On one machine only."""
    secret: SecretKeyRef | None = None
    """Kubernetes Secret. In a cluster only."""

    def faults(self) -> Iterable[Fault]:
        yield from _places(self, "secret")
        yield from file_faults(self.file)
