"""Which of the models that are being deleted have ended."""

from __future__ import annotations

from tradewind_operator.status.observation import Observation


def ended(seen: Observation) -> tuple[str, ...]:
    """ModelDeployments that are being deleted and run nowhere any more, on positive evidence alone.

    Either there is no RayCluster, or Serve of every one that may have been given applications has answered
    and does not list the model. A head that cannot be asked keeps the finalizer: its engines may serve.
    """
    if seen.earlier is not None:
        return ()
    running: set[str] = set()
    for name, cluster in seen.clusters.items():
        if not cluster.configured:
            continue
        apps = seen.lives[name].apps if name in seen.lives else None
        if apps is None:
            return ()
        running |= set(apps)
    return tuple(name for name in seen.decision.draining if name not in running)
