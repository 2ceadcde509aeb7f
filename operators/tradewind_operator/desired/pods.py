"""Pod templates, from the parts that head, gateways and engines have in common.

They meet the Pod Security Standard *restricted*, and a little more: the root file system is read-only. Values
that Kubernetes would fill in are written out: a template that is read back is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Final

from tradewind.api.pods import PodSettings
from tradewind.api.values import Quantity
from tradewind_operator.desired import names
from tradewind_operator.desired.given import scheduled, variables, volumes
from tradewind_operator.desired.metadata import pod_labels
from tradewind_operator.desired.volumes import Volume
from tradewind_operator.desired.world import ClusterWorld, Manifest

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_LOGS: Final = 2**30
"""Bytes for what containers write to their logs, of which the kubelet keeps some files."""
RAY_CONTAINER: Final = "ray"
"""KubeRay takes the first container as Ray's, whatever its name."""
_STARTS: Final = (f"{names.PREFIX}/bin/python", "-m", "tradewind.serve.node")
"""Runs the command that KubeRay makes and writes what Ray and the engines print as JSON."""
_OWN_COMMAND: Final = {
    # KubeRay leaves its command in a variable, and the container's own as it is.
    "ray.io/overwrite-container-cmd": "true",
    # `kubectl logs` of the head, and of pods with a mesh's container, means this one.
    "kubectl.kubernetes.io/default-container": RAY_CONTAINER,
}


@dataclass(frozen=True, slots=True)
class Pod:
    """What makes one kind of pod different from another."""

    role: str
    image: str
    resources: Manifest
    environment: list[Manifest]
    ports: dict[str, int]
    """By name, at most 15 characters."""
    container: Manifest
    """Probes and lifecycle."""
    volumes: tuple[Volume, ...]
    grace_s: int
    scheduling: Manifest
    """Node selector, affinity, topology spread, tolerations, runtime class."""
    service_account: str | None = None
    """None leaves it to KubeRay, which makes one for the head's autoscaler."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Beside those by which the pod is found."""
    more_volumes: tuple[Volume, ...] = field(default=())
    """Volumes that another container of the pod mounts."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the platform itself."""
    settings: PodSettings = field(default_factory=PodSettings)


def resources(cpus: float, memory: Quantity, more: Mapping[str, object] = _NOTHING) -> Manifest:
    """Requests and limits: memory and devices are the pod's own. CPUs have no limit: throttling a gateway or
    an engine between two tokens makes latency worse and gives nobody anything.

    Args:
        more: GPUs, other devices and huge pages, by Kubernetes' name of them.
    """
    own = {"memory": str(memory), **{name: str(amount) for name, amount in more.items()}}
    return {"requests": {"cpu": cpu_quantity(cpus), **own}, "limits": dict(own)}


def _with_disk(given: Manifest, volumes: Iterable[Volume]) -> Manifest:
    """With room on the node's disk for the pod's volumes and its containers' logs.

    So a pod is placed where there is some, and not the first to go when the disk is full.
    """
    needs, sizes = (sum(each) for each in zip(*(volume.disk() for volume in volumes), strict=True))
    disk = {"requests": str(Quantity(needs + _LOGS)), "limits": str(Quantity(sizes + _LOGS))}
    return {kind: {**amounts, "ephemeral-storage": disk[kind]} for kind, amounts in given.items()}


def cpu_quantity(cpus: float) -> str:
    """As Kubernetes writes it: `2` or `500m`."""
    thousandths = round(cpus * 1000)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def pod_template(world: ClusterWorld, pod: Pod) -> Manifest:
    """`template` of a Ray group."""
    given = volumes(pod.settings)
    every = (*pod.volumes, *pod.more_volumes, *given)
    spec: Manifest = {
        # Only the autoscaler needs a token; it gets one of its own.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(arbitrary_user=bool(pod.settings.arbitrary_user)),
        "terminationGracePeriodSeconds": pod.grace_s,
        "containers": [_ray_container(pod, given, _with_disk(pod.resources, every))],
        "volumes": [volume.volume() for volume in every],
        **scheduled(pod.scheduling, pod.settings, world.name, pod.role),
    }
    if pod.settings.priority_class_name is not None:
        spec["priorityClassName"] = pod.settings.priority_class_name
    if pod.service_account is not None:
        spec["serviceAccountName"] = pod.service_account
    if pull := dict.fromkeys((*world.defaults.image_pull_secrets, *world.spec.image_pull_secrets)):
        spec["imagePullSecrets"] = [{"name": name} for name in pull]
    return {
        "metadata": {
            "labels": {**pod.settings.labels, **pod.labels, **pod_labels(world.name, pod.role)},
            "annotations": {
                **pod.settings.annotations,
                **pod.annotations,
                **_OWN_COMMAND,
                names.CONFIG_FORMAT_ANNOTATION: names.CONFIG_FORMAT,
            },
        },
        "spec": spec,
    }


def _ray_container(pod: Pod, given: tuple[Volume, ...], needs: Manifest) -> Manifest:
    return {
        "name": RAY_CONTAINER,
        "image": pod.image,
        "command": list(_STARTS),
        "securityContext": container_security(),
        "resources": needs,
        "env": sorted([*pod.environment, *variables(pod.settings)], key=itemgetter("name")),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in pod.ports.items()
        ],
        "volumeMounts": [volume.mount() for volume in (*pod.volumes, *given)],
        **pod.container,
    }


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
    """`securityContext` of a container. KubeRay copies Ray's to the init container that it adds."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
