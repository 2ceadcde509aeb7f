"""Pod Security Standard *restricted*, and a little more: the root file system is read-only.

KubeRay copies the Ray container's context to the init container that it adds; the autoscaler's comes
from `autoscalerOptions.securityContext`.
"""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest


def pod_security() -> Manifest:
    """`spec.securityContext` of a pod. fsGroup lets the user read mounted Secrets and write volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": names.USER_ID,
        "runAsGroup": names.USER_ID,
        "fsGroup": names.USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """`securityContext` of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
