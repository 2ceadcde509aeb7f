"""Environment variables of the pods. None holds a secret, and none comes from a model, route or tenant."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tradewind.compiler.ray_environment import ray_environment
from tradewind_operator.desired import names
from tradewind_operator.desired.world import ClusterWorld, Manifest

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_CLUSTER: Final[Mapping[str, str]] = MappingProxyType(
    {
        # `ray start` asks the GCS for its own node and gives up when it has not registered by then. Half a
        # minute, the default, is too short for a node whose CPUs are busy: its pod was killed and began anew.
        "RAY_raylet_start_wait_time_s": "300",
        # The same for the node's agents, which are Python and start more slowly than what waits for them.
        "RAY_agent_register_timeout_ms": "300000",
        # A worker whose head is away goes on with what it knows, for as long as a new head may take to come.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        # preStop hooks take a node away before SIGTERM. A second wait for the same would only keep the pod,
        # and the head's, which never gets idle, would keep the next head from starting.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Serve must not hang on a GCS that is away. KubeRay sets these for a RayService alone.
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
    }
)
"""What Ray needs to know of Kubernetes."""


def pod_environment(
    world: ClusterWorld, *, hash_key: bool = False, more: Mapping[str, str] = _NOTHING
) -> list[Manifest]:
    """Variables of a Ray container, by name, so that the same set is the same pod template.

    Args:
        hash_key: also where the key of the tenants' key hashes is read; for gateways only.
        more: variables of one role alone.
    """
    variables = {
        **ray_environment(token_file=None),
        **_CLUSTER,
        **more,
        # The root file system is read-only; what libraries keep in the home goes to a volume.
        "HOME": names.HOME_DIR,
        # torch and vLLM ask who they are; a user that OpenShift has chosen is in no /etc/passwd.
        "USER": names.USER_NAME,
        "LOGNAME": names.USER_NAME,
        "TRADEWIND_HOME": names.HOME_DIR,
        "TRADEWIND_CACHE": names.CACHE_DIR,
        "TRADEWIND_INTERNAL_TOKEN_FILE": f"{names.AUTH_DIR}/{names.INTERNAL_TOKEN_KEY}",
    }
    if hash_key:
        variables["TRADEWIND_HASH_KEY_FILE"] = f"{names.AUTH_DIR}/{names.HASH_KEY_KEY}"
    variables |= dict(world.defaults.environment) | world.compiled.environment
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]
