"""Environment variables of the pods. None holds a secret, and none comes from a model, route or tenant."""

from __future__ import annotations

from pathlib import Path

from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind_operator.desired import names
from tradewind_operator.desired.world import ClusterWorld, Manifest


def pod_environment(world: ClusterWorld, *, hash_key: bool = False) -> list[Manifest]:
    """Variables of a Ray container, by name, so that the same set is the same pod template.

    Args:
        hash_key: also where the key of the tenants' key hashes is read; for gateways only.
    """
    ray = ray_environment(token_file=None, run_dir=Path(names.RUN_DIR), ingress=names.HAPROXY, ports=Ports())
    variables = {
        **ray,
        # The root file system is read-only; what libraries keep in the home goes to a volume.
        "HOME": names.HOME_DIR,
        "TRADEWIND_HOME": names.HOME_DIR,
        "TRADEWIND_CACHE": names.CACHE_DIR,
        "TRADEWIND_INTERNAL_TOKEN_FILE": f"{names.AUTH_DIR}/{names.INTERNAL_TOKEN_KEY}",
    }
    if hash_key:
        variables["TRADEWIND_HASH_KEY_FILE"] = f"{names.AUTH_DIR}/{names.HASH_KEY_KEY}"
    variables |= dict(world.defaults.environment) | world.compiled.environment
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]
