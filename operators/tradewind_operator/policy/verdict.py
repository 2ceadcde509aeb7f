"""What is said about one resource: whether it is in force as it is written and, if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tradewind.compiler.diagnostics import Diagnostic

MAX_MESSAGE: Final = 1_000
"""Characters of a condition's message."""

Key = tuple[str, str]
"""Kind and name of a resource; the namespace is always one."""


class Reason(StrEnum):
    """Reasons of the condition `Accepted`. Stable: people and tools may branch on them."""

    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    CLUSTER_NOT_ACCEPTED = "ClusterNotAccepted"
    DEPLOYMENT_NOT_FOUND = "DeploymentNotFound"
    DEPLOYMENT_NOT_ACCEPTED = "DeploymentNotAccepted"
    DEPLOYMENT_DELETING = "DeploymentDeleting"
    MIXED_CLUSTERS = "MixedClusters"
    MODEL_TAKEN = "ModelTaken"
    MODEL_NOT_FOUND = "ModelNotFound"
    TENANT_NOT_FOUND = "TenantNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound"  # noqa: S105 - a reason
    SECRET_UNUSABLE = "SecretUnusable"  # noqa: S105 - a reason
    KEY_IN_USE = "KeyInUse"
    IMAGE_NOT_ALLOWED = "ImageNotAllowed"
    POOL_IN_USE = "PoolInUse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a resource as it is written."""

    reason: Reason
    text: str

    @classmethod
    def of(cls, diagnostic: Diagnostic, reason: Reason = Reason.INVALID) -> Finding:
        """A diagnostic without the resource's own name: the condition is on the resource already."""
        path = f"{diagnostic.path}: " if diagnostic.path else ""
        hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
        return cls(reason, f"{path}{diagnostic.message}{hint}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One resource's condition `Accepted`."""

    accepted: bool
    """It is in force as it is written."""
    reason: Reason
    message: str
    from_generation: int | None
    """The generation whose spec is in force; None: nothing of it is."""


def verdict(findings: Sequence[Finding], generation: int | None, unread: str = "") -> Verdict:
    """The verdict on a resource with these findings, of which `generation` is in force.

    Args:
        unread: why what was accepted before cannot go on, where that is so.
    """
    if not findings:
        return Verdict(True, Reason.ACCEPTED, "It is in force as it is written.", generation)
    if generation is None:
        ending = f"Nothing of this resource is in force{unread and ': '}{unread}."
    else:
        ending = f"What was accepted as generation {generation} stays in force."
    texts = list(dict.fromkeys(finding.text for finding in findings))
    return Verdict(False, findings[0].reason, joined(texts, ending), generation)


def joined(texts: Sequence[str], ending: str) -> str:
    """All texts with `; ` between them and the ending after them, in at most `MAX_MESSAGE` characters."""
    room = MAX_MESSAGE - len(ending) - len("; and 9999 more. ")
    message = texts[0] if len(texts[0]) <= room else texts[0][: room - 3] + "..."
    shown = 1
    while shown < len(texts) and len(message) + len(texts[shown]) + 2 <= room:
        message += f"; {texts[shown]}"
        shown += 1
    if shown < len(texts):
        message += f"; and {len(texts) - shown} more"
    return f"{message}. {ending}"
