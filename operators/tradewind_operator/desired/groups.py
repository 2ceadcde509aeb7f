"""Ray's groups of pods: the head, the gateways, and one group per pool."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tradewind.api.nodes import Pool
from tradewind.api.values import Quantity
from tradewind.compiler.compile import CLUSTER_GATEWAY_CPUS, GATEWAY_ROLE, POOL_LABEL, ROLE_LABEL
from tradewind.compiler.ray_environment import LEAVING_FILE
from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.environment import pod_environment
from tradewind_operator.desired.gcs import gcs_environment, gcs_volume
from tradewind_operator.desired.leaving import (
    HEAD_GRACE_S,
    WORKER_GRACE_S,
    engine_leaves,
    gateway_leaves,
)
from tradewind_operator.desired.pods import Pod, pod_template, resources
from tradewind_operator.desired.probes import gateway_probes, ray_probes
from tradewind_operator.desired.scheduling import (
    gateway_scheduling,
    head_scheduling,
    node_selector,
    pool_scheduling,
    pool_tolerations,
    stay,
    tolerations,
)
from tradewind_operator.desired.volumes import (
    Volume,
    auth_files,
    cache_volume,
    scratch,
    service_account_files,
    shared_memory,
    token_files,
    working_space,
)
from tradewind_operator.desired.world import ClusterWorld, Manifest

_NO_DEVICES: Final[Mapping[str, int]] = MappingProxyType({})
_OBJECT_STORE: Final = Quantity(128 * 2**20)
_SHARED: Final = Quantity(256 * 2**20)
"""Of head and gateways, for the object store; tokens do not pass through it."""
_AGENT_PORTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dashboard-agent-grpc-port": str(names.AGENT_GRPC_PORT),
        "runtime-env-agent-port": str(names.RUNTIME_ENV_PORT),
    }
)
"""Said, and not found out: Ray's node waits 15 seconds, which nothing changes, for agents that choose a port
themselves, and then ends. The third such port is told by `tradewind.serve.agent_port`."""
_IDENTITY_LABELS: Final = {"azure.workload.identity/use": "true"}
"""Azure's webhook gives its token to pods with this label only."""
AUTOSCALER_LOGS: Final = scratch("ray-logs", "/tmp/ray", "8Gi")  # noqa: S108 - a volume
"""Ray's session directory: the autoscaler writes its log where the head reads it."""
AUTOSCALER_TMP: Final = scratch("autoscaler-tmp", "/tmp", "64Mi")  # noqa: S108 - a volume


def head_group(world: ClusterWorld) -> Manifest:
    """`headGroupSpec`. It offers Ray no CPU, so that no replica is put there."""
    head = world.spec.head
    pod = Pod(
        role=names.HEAD_ROLE,
        settings=head.pod.over(world.spec.pod),
        image=world.spec.images.head or world.defaults.images.head,
        resources=resources(head.cpus, head.memory),
        environment=pod_environment(world, more=gcs_environment(world.backend)),
        ports={
            "gcs-server": names.GCS_PORT,
            "dashboard": names.DASHBOARD_PORT,
            # KubeRay makes no Service for Serve without this one; nothing listens there on the head.
            "serve": names.ENDPOINT_PORT,
            "metrics": names.RAY_METRICS_PORT,
        },
        container=ray_probes(),
        volumes=(
            *working_space(),
            AUTOSCALER_LOGS,
            auth_files(world.name, names.INTERNAL_TOKEN_KEY),
            shared_memory(_SHARED),
            *_state(world),
        ),
        more_volumes=(AUTOSCALER_TMP, service_account_files()),
        grace_s=HEAD_GRACE_S,
        annotations=stay(world.backend),
        scheduling={
            **head_scheduling(world.name),
            **node_selector(head.node_selector),
            **_tolerating(tolerations(head.tolerations)),
        },
    )
    return {
        "rayStartParams": {**_ray_start(cpus="0"), "dashboard-host": "0.0.0.0"},  # noqa: S104 - token and policy
        "template": pod_template(world, pod),
    }


def _state(world: ClusterWorld) -> tuple[Volume, ...]:
    """The volume of Ray's state, where it has one."""
    if world.backend is not Backend.ROCKSDB or world.ray_cluster is None:
        return ()
    return (gcs_volume(world.ray_cluster),)


def gateway_group(world: ClusterWorld) -> Manifest:
    """The gateways' worker group: as many pods as replicas."""
    gateway = world.spec.gateway
    pod = Pod(
        role=names.GATEWAY_GROUP,
        settings=gateway.pod.over(world.spec.pod),
        image=world.spec.images.gateway or world.defaults.images.gateway,
        resources=resources(gateway.cpus, gateway.memory),
        environment=pod_environment(world, hash_key=True, more={LEAVING_FILE: names.LEAVING}),
        ports={
            "serve": names.ENDPOINT_PORT,
            "metrics": names.RAY_METRICS_PORT,
            "gateway-metrics": gateway.metrics_port,
        },
        container={**gateway_probes(), "lifecycle": gateway_leaves()},
        volumes=(
            *working_space(),
            auth_files(world.name, names.INTERNAL_TOKEN_KEY, names.HASH_KEY_KEY),
            shared_memory(_SHARED),
        ),
        grace_s=WORKER_GRACE_S,
        scheduling={
            **gateway_scheduling(world.name),
            **node_selector(gateway.node_selector),
            **_tolerating(tolerations(gateway.tolerations)),
        },
        service_account=names.service_account(world.name),
    )
    return {
        "groupName": names.GATEWAY_GROUP,
        "labels": {ROLE_LABEL: GATEWAY_ROLE},
        "rayStartParams": _ray_start(cpus=str(CLUSTER_GATEWAY_CPUS)),
        **_size(world.gateways, world.gateways),
        "template": pod_template(world, pod),
    }


def pool_groups(world: ClusterWorld) -> list[Manifest]:
    """One worker group per pool, in the order of their names."""
    return [_pool_group(world, name, pool) for name, pool in world.spec.pools_by_name]


def _pool_group(world: ClusterWorld, name: str, pool: Pool) -> Manifest:
    images = world.defaults.images
    scheduling = {**pool_scheduling(pool), **_tolerating(pool_tolerations(pool))}
    if pool.runtime_class_name is not None:
        scheduling["runtimeClassName"] = pool.runtime_class_name
    pod = Pod(
        role=names.ENGINE_ROLE,
        settings=pool.pod.over(world.spec.pod),
        image=pool.engine_image or (images.engine_cuda if pool.gpus else images.engine_cpu),
        resources=resources(pool.cpus, pool.memory, _devices(pool)),
        environment=pod_environment(world),
        ports={"metrics": names.RAY_METRICS_PORT},
        container={**ray_probes(), "lifecycle": engine_leaves()},
        volumes=_engine_volumes(world.name, name, pool),
        grace_s=WORKER_GRACE_S,
        scheduling=scheduling,
        service_account=names.engine_account(world.name),
        labels=_IDENTITY_LABELS if world.spec.service_account.workload_identity == "Azure" else {},
    )
    return {
        "groupName": names.pool_group(name),
        "labels": {POOL_LABEL: name},
        # Ray counts whole CPUs; rounding down would leave a model that fits on the pool without a place.
        "rayStartParams": _ray_start(cpus=str(math.ceil(pool.cpus)), devices={pool.hardware.ray: pool.gpus}),
        **_size(pool.min_nodes, pool.max_nodes),
        "template": pod_template(world, pod),
    }


def _devices(pool: Pool) -> dict[str, object]:
    """GPUs, other devices and huge pages of one pod."""
    gpus = {pool.gpu_resource: pool.gpus} if pool.gpus else {}
    pages = {f"hugepages-{page}": size for page, size in pool.hugepages.items()}
    return {**gpus, **pool.extra_resources, **pages}


def _engine_volumes(cluster: str, name: str, pool: Pool) -> tuple[Volume, ...]:
    return (
        *working_space(),
        cache_volume(cluster, name, pool.cache),
        auth_files(cluster, names.INTERNAL_TOKEN_KEY),
        token_files(cluster),
        shared_memory(pool.shared_memory),
    )


def _size(least: int, most: int) -> Manifest:
    return {"minReplicas": least, "maxReplicas": most, "replicas": least, "numOfHosts": 1}


def _ray_start(*, cpus: str, devices: Mapping[str, int] = _NO_DEVICES) -> dict[str, str]:
    """Parameters of `ray start`. The object store would otherwise take 30 % of the memory.

    Args:
        devices: by Ray's name of them. What Ray does not call GPU is a resource of its own, which KubeRay and
            the autoscaler read as JSON within single quotes.
    """
    others = {name: count for name, count in devices.items() if name != "GPU" and count}
    return {
        "num-cpus": cpus,
        "num-gpus": str(devices.get("GPU", 0)),
        "object-store-memory": str(int(_OBJECT_STORE)),
        **_AGENT_PORTS,
        **({"resources": f"'{json.dumps(others)}'"} if others else {}),
    }


def _tolerating(found: list[Manifest]) -> Manifest:
    return {"tolerations": found} if found else {}
