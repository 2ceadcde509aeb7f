"""`status.accepted`: the last spec that was taken, as it stands in a status, and how it is read back. Pure.

The block says which version of the API its spec is written in. The API server converts a resource's own
spec and never this copy, so it is read by a version that is known, and by no guess: one of a later operator
is left as it is, and told of where something depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.model import API_VERSION

UNSAID: Final = "tradewind.dev/v1alpha1"
"""What a block without `apiVersion` is written in: those who wrote none knew no other."""
READ: Final = (API_VERSION,)
"""Versions that this operator reads."""


@dataclass(frozen=True, slots=True)
class AcceptedBlock:
    """One block."""

    generation: int
    spec: Any
    """As it was written; None: nothing was."""
    api_version: str = API_VERSION

    @classmethod
    def of(cls, block: object) -> AcceptedBlock | None:
        """That of a status; None where there is none."""
        if not isinstance(block, Mapping) or not isinstance(block.get("generation"), int):
            return None
        return cls(block["generation"], block.get("spec"), str(block.get("apiVersion") or UNSAID))

    def written(self) -> dict[str, Any]:
        """As it stands in a status."""
        spec = {} if self.spec is None else self.spec
        return {"apiVersion": self.api_version, "generation": self.generation, "spec": spec}

    def foreign(self) -> str:
        """Why its spec cannot be read, without a full stop; empty where it can."""
        if self.api_version in READ:
            return ""
        return (
            f"what was accepted as generation {self.generation} is written in {self.api_version[:64]!r}, "
            f"which this operator does not read; allowed: {', '.join(READ)}"
        )
