"""Pod Security Standard *restricted*, and a little more: the root file system is read-only.

KubeRay copies the Ray container's context to the init container that it adds; the autoscaler's comes
from `autoscalerOptions.securityContext`.
"""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest


def pod_security(*, arbitrary_user: bool = False) -> Manifest:
    """`spec.securityContext` of a pod. fsGroup lets the user read mounted Secrets and write volumes.

    Args:
        arbitrary_user: leave user and groups to OpenShift, which refuses a pod that asks for others.
    """
    user = names.USER_ID
    who: Manifest = {} if arbitrary_user else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return {
        "runAsNonRoot": True,
        **who,
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
