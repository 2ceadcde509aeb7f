"""Which of the models that are being deleted have ended."""

from __future__ import annotations

from tradewind_operator.status.observation import Observation


def ended(seen: Observation) -> tuple[str, ...]:
    """ModelDeployments that are being deleted and whose application is nowhere any more.

    That holds when there is no RayService, or when KubeRay has taken the configuration without it and
    neither Serve nor KubeRay lists it. `seen` must be from after the apply.
    """
    service, apps = seen.service, seen.live.apps
    if service is None:
        return seen.decision.draining
    started = service.active is not None or service.pending is not None
    if seen.decision.compiled is None or (started and not service.current):
        return ()
    running = set(service.apps) | set(apps or {})
    return tuple(name for name in seen.decision.draining if name not in running)
