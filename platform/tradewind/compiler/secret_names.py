"""Where Kubernetes Secrets reach an engine: one file per key, in a volume that every engine pod has.

Files and not variables, because a variable is part of the pod, and a new one would need new pods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from tradewind.api.wire import SecretRef, digest

TOKENS_DIR: Final = "/etc/tradewind/tokens"
ARRIVAL_S: Final = 150.0
"""The kubelet brings a change of a mounted Secret within its sync period and cache time, about 2 minutes."""


@dataclass(frozen=True, slots=True, order=True)
class SecretUse:
    """A Secret's key that engines read in the file `TOKENS_DIR/<file>`."""

    file: str
    name: str
    key: str


@dataclass(slots=True)
class SecretNames:
    """Collects the Secrets that a compilation refers to."""

    uses: set[SecretUse] = field(default_factory=set)

    def reference(self, name: str, key: str) -> SecretRef:
        """Where this Secret's key is read."""
        file = secret_file(name, key)
        self.uses.add(SecretUse(file, name, key))
        return SecretRef(file=f"{TOKENS_DIR}/{file}", wait_s=ARRIVAL_S)


def secret_file(name: str, key: str) -> str:
    """File for this Secret's key; the digest keeps `a-b`/`c` apart from `a`/`b-c`."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{name}-{key}".lower())[:64].strip("-")
    return f"{words}-{digest([name, key])[:8]}"
