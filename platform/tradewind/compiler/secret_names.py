"""Names of the environment variables through which Kubernetes Secrets reach a process."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tradewind.api.wire import digest


@dataclass(frozen=True, slots=True, order=True)
class SecretUse:
    """A Secret's key that must be in the environment under `env` before the platform starts."""

    env: str
    name: str
    key: str


@dataclass(slots=True)
class SecretNames:
    """Collects the Secrets that a compilation refers to."""

    uses: set[SecretUse] = field(default_factory=set)

    def env(self, name: str, key: str) -> str:
        """Variable for this Secret's key; the digest keeps `a-b`/`c` apart from `a`/`b-c`."""
        words = re.sub(r"[^A-Z0-9]+", "_", f"{name}_{key}".upper())[:64].strip("_")
        variable = f"TRADEWIND_SECRET_{words}_{digest([name, key])[:8].upper()}"
        self.uses.add(SecretUse(variable, name, key))
        return variable
