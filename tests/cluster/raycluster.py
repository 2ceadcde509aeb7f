"""What KubeRay 1.7 and Ray's autoscaler make of a RayCluster: pods, a Service, sizes and a status. Pure.

Pods are made from the real templates, so that a real API server checks them. Nothing starts them: they name
a scheduler that there is not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.ray import Data

HEAD_GROUP = "headgroup"
NODE_MARK = "ray.io/is-ray-node"
GROUP_SELECTOR = "tradewind.dev/group"
SCHEDULER = "played"
SIZES = ("minReplicas", "maxReplicas")


@dataclass(frozen=True)
class Pod:
    """A pod as the API server has it."""

    namespace: str
    name: str
    cluster: str
    group: str
    address: str
    ready: bool

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Pod:
        metadata, status = found["metadata"], found.get("status") or {}
        labels = metadata["labels"]
        ready = any(
            item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ()
        )
        return cls(
            metadata["namespace"],
            metadata["name"],
            labels["ray.io/cluster"],
            labels["ray.io/group"],
            status.get("podIP") or "",
            ready,
        )


def groups_of(cluster: Data) -> list[Data]:
    """Its worker groups."""
    return list(cluster["spec"].get("workerGroupSpecs") or ())


def size_of(group: Data) -> int:
    """Pods that KubeRay keeps for a worker group."""
    least, most = (int(group[key]) for key in SIZES)
    return max(least, min(int(group.get("replicas") or 0), most))


def pods_of(cluster: Data) -> Iterator[Data]:
    """Manifests of all pods that there should be, the head's first."""
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    yield _pod(cluster, f"{name}-head", HEAD_GROUP, spec["headGroupSpec"]["template"])
    for group in groups_of(cluster):
        for number in range(size_of(group)):
            pod = f"{name}-{group['groupName']}-worker-{number}"
            yield _pod(cluster, pod, group["groupName"], group["template"])


def _pod(cluster: Data, name: str, group: str, template: Data) -> Data:
    about = template.get("metadata") or {}
    labels = {
        **(about.get("labels") or {}),
        "ray.io/cluster": cluster["metadata"]["name"],
        "ray.io/group": group,
        "ray.io/node-type": "head" if group == HEAD_GROUP else "worker",
        NODE_MARK: "yes",
    }
    metadata = {
        "name": name,
        "labels": labels,
        "annotations": about.get("annotations") or {},
        "ownerReferences": [owner(cluster)],
    }
    spec = {**template["spec"], "schedulerName": SCHEDULER}
    if group == HEAD_GROUP:
        # The autoscaler's account, which KubeRay makes.
        spec.setdefault("serviceAccountName", cluster["metadata"]["name"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def owner(cluster: Data) -> Data:
    """The reference by which what KubeRay makes goes with the RayCluster."""
    metadata = cluster["metadata"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def head_service(cluster: Data) -> Data:
    """Manifest of the head's Service."""
    name = cluster["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"{name}-head-svc",
            "labels": {"ray.io/cluster": name, "ray.io/node-type": "head"},
            "ownerReferences": [owner(cluster)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": {"ray.io/cluster": name, "ray.io/node-type": "head"},
            "ports": [{"name": "dashboard", "port": 8265}, {"name": "gcs-server", "port": 6379}],
        },
    }


def sizes(cluster: Data, config: Data | None) -> Iterator[tuple[int, int]]:
    """What the autoscaler changes: position of a worker group and its new `replicas`.

    A group has a pod for each replica of an application that is placed on it, within its bounds.
    """
    wanted: Counter[str] = Counter()
    for app in (config or {}).get("applications") or ():
        if (group := group_of(app)) is not None:
            wanted[group] += replicas_of(app)
    for position, group in enumerate(groups_of(cluster)):
        size = size_of({**group, "replicas": wanted[group["groupName"]]})
        if size != group.get("replicas"):
            yield position, size


def group_of(app: Data) -> str | None:
    """Worker group that an application is placed on."""
    options = app["deployments"][0].get("ray_actor_options") or {}
    found: str | None = (options.get("label_selector") or {}).get(GROUP_SELECTOR)
    return found


def replicas_of(app: Data) -> int:
    """Replicas that an application has at the least."""
    deployment = app["deployments"][0]
    scaled = deployment.get("autoscaling_config")
    return int(scaled["min_replicas"] if scaled else deployment.get("num_replicas", 1))


def node_ips(config: Data | None, pods: Iterable[Pod]) -> dict[str, str]:
    """Application → address of a pod of its group, in turn."""
    there: dict[str, list[str]] = {}
    for pod in pods:
        if pod.ready:
            there.setdefault(pod.group, []).append(pod.address)
    found = {}
    for number, app in enumerate((config or {}).get("applications") or ()):
        if addresses := there.get(group_of(app) or ""):
            found[app["name"]] = addresses[number % len(addresses)]
    return found


def can_be_ready(group: str, config: Data | None) -> bool:
    """Whether a pod in which Ray runs answers its probe: a gateway's does when a replica is there."""
    if not group.startswith("gateway-"):
        return True
    apps = (config or {}).get("applications") or ()
    return any(app["name"] == "gateway" and group_of(app) == group for app in apps)


def pod_status(address: str, ready: bool) -> Data:
    """Of a pod that runs."""
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _now()}
    container = {
        "name": "ray",
        "ready": ready,
        "started": True,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    }
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [condition],
        "containerStatuses": [{**container, "state": {"running": {"startedAt": _now()}}}],
    }


def status_of(cluster: Data, pods: Iterable[Pod], failure: str = "") -> Data:
    """The new status.

    Args:
        failure: why a pod could not be made; empty while all could.
    """
    ready = [pod for pod in pods if pod.ready]
    head = next((pod for pod in ready if pod.group == HEAD_GROUP), None)
    groups, old = groups_of(cluster), cluster.get("status") or {}
    desired = sum(map(size_of, groups))
    complete = head is not None and len(ready) > desired
    provisioned = complete or _is_true(old, "RayClusterProvisioned")
    conditions = [
        _condition(old, "HeadPodReady", head is not None, "HeadPodRunningAndReady", "ContainersNotReady"),
        _condition(
            old,
            "RayClusterProvisioned",
            provisioned,
            "AllPodRunningAndReadyFirstTime",
            "RayClusterPodsProvisioning",
        ),
    ]
    if failure:
        refused = _condition(old, "ReplicaFailure", True, "FailedCreatePod", "")
        conditions.append({**refused, "message": failure})
    status: Data = {
        "observedGeneration": cluster["metadata"]["generation"],
        "conditions": conditions,
        "desiredWorkerReplicas": desired,
        "availableWorkerReplicas": len(ready) - (head is not None),
        "minWorkerReplicas": sum(int(group["minReplicas"]) for group in groups),
        "maxWorkerReplicas": sum(int(group["maxReplicas"]) for group in groups),
    }
    if head is not None:
        service = f"{cluster['metadata']['name']}-head-svc"
        status["head"] = {"podName": head.name, "podIP": head.address, "serviceName": service}
    if complete or old.get("state"):
        status["state"] = "ready"
    return status


def _is_true(status: Data, kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in status.get("conditions") or ())


def _condition(old: Data, kind: str, holds: bool, why: str, why_not: str) -> Data:
    before = next((item for item in old.get("conditions") or () if item["type"] == kind), {})
    status = "True" if holds else "False"
    return {
        "type": kind,
        "status": status,
        "reason": why if holds else why_not,
        "message": "",
        "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == status else _now(),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
