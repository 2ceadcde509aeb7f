"""One reconcile of a RayService as KubeRay 1.7 does it: its status goes in and comes out.

Quirks included: a configuration is compared without sizes and with pools at the end left out; only
`NewCluster` makes a second cluster; while there is one, the first one's applications are not told and get no
new configuration; what is told of applications was looked at before a new configuration was sent, so a
current `observedGeneration` may stand beside an old "RUNNING".
"""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
import time
from typing import Protocol

from tests.cluster.ray import Data, RayCluster

HASH = "ray.io/hash-without-replicas-and-workers-to-delete"
GROUPS = "ray.io/num-worker-groups"
SIZES = ("replicas", "minReplicas", "maxReplicas")


class Clusters(Protocol):
    """Where the RayClusters are."""

    def cluster(self, name: str | None) -> RayCluster | None: ...

    def create_cluster(self, service: Data, name: str, spec: Data) -> RayCluster: ...

    def annotations_of(self, namespace: str, name: str) -> Data: ...

    def update_cluster(self, namespace: str, name: str, spec: Data) -> None: ...

    def delete_cluster(self, namespace: str, name: str) -> None: ...


class Pass:
    """One reconcile of one RayService by KubeRay: the new status comes out."""

    def __init__(self, clusters: Clusters, service: Data, status: Data, now: float) -> None:
        self._clusters = clusters
        self._service = service
        self._status = status
        self._now = now
        self._spec: Data = service["spec"]
        self._namespace: str = service["metadata"]["namespace"]
        self._active = clusters.cluster(self._name("active"))
        self._pending = clusters.cluster(self._name("pending"))

    def _name(self, which: str) -> str | None:
        name: str | None = (self._status.get(f"{which}ServiceStatus") or {}).get("rayClusterName")
        return name

    def run(self) -> Data:
        """The new status."""
        if (name := self._name("pending")) and self._pending is None:
            self._pending = self._clusters.create_cluster(self._service, name, self._spec["rayClusterConfig"])
        self._update_in_place()
        active_apps, pending_apps, ready = self._reconcile_serve()
        self._status["observedGeneration"] = self._service["metadata"]["generation"]
        self._tell("active", active_apps)
        self._tell("pending", pending_apps)
        if ready and self._pending is not None:
            self._promote()
        elif self._needs_new_cluster():
            name = f"{self._service['metadata']['name']}-{secrets.token_hex(3)[:5]}"
            self._status["pendingServiceStatus"] = {"rayClusterName": name}
        self._conclude()
        return self._status

    def _update_in_place(self) -> None:
        """Pools that were added at the end."""
        which = "pending" if self._pending is not None else "active"
        name, cluster = self._name(which), self._pending or self._active
        if name is None or cluster is None or self._compare(name) != "partial":
            return
        self._clusters.update_cluster(self._namespace, name, self._spec["rayClusterConfig"])

    def _compare(self, name: str) -> str:
        """same, partial (pools were added at the end), or other."""
        annotations = self._clusters.annotations_of(self._namespace, name)
        config = self._spec["rayClusterConfig"]
        if annotations[HASH] == digest(config):
            return "same"
        count = int(annotations[GROUPS])
        some = {**config, "workerGroupSpecs": (config.get("workerGroupSpecs") or [])[:count]}
        return "partial" if annotations[HASH] == digest(some) else "other"

    def _needs_new_cluster(self) -> bool:
        if self._active is None and self._pending is None:
            return True
        name = self._name("pending") or self._name("active")
        strategy = (self._spec.get("upgradeStrategy") or {}).get("type", "NewCluster")
        return name is not None and self._compare(name) == "other" and strategy == "NewCluster"

    def _reconcile_serve(self) -> tuple[Data, Data, bool]:
        """Applications of both clusters, and whether the pending one may take over."""
        if self._pending is not None:
            apps, ready = self._submit(self._pending)
            return {}, apps, ready
        if self._active is not None and not self._needs_new_cluster():
            return self._submit(self._active)[0], {}, False
        return {}, {}, False

    def _submit(self, cluster: RayCluster) -> tuple[Data, bool]:
        """Look, then send: in this order, as KubeRay does."""
        if not cluster.head_ready(self._now):
            return {}, False
        apps, ready = cluster.statuses(self._now), cluster.ready(self._now)
        config = json.loads(self._spec["serveConfigV2"])
        if cluster.config != config:
            cluster.put(config, self._now)
        return apps, ready

    def _tell(self, which: str, apps: Data) -> None:
        part = self._status.setdefault(f"{which}ServiceStatus", {})
        part.pop("applicationStatuses", None)
        if apps:
            part["applicationStatuses"] = apps

    def _promote(self) -> None:
        old = self._name("active")
        self._status["activeServiceStatus"] = self._status["pendingServiceStatus"]
        self._status["pendingServiceStatus"] = {}
        self._active, self._pending = self._pending, None
        if old is not None:
            self._clusters.delete_cluster(self._namespace, old)

    def _conclude(self) -> None:
        """Endpoints and conditions."""
        endpoints = self._active.gateways(self._now) if self._active is not None else 0
        both = bool(self._name("active") and self._name("pending"))
        was_ready = any(item["type"] == "Ready" and item["status"] == "True" for item in self._conditions())
        if endpoints:
            ready = ("True", "NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
        elif was_ready:
            ready = ("False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
        else:
            ready = ("False", "Initializing", "RayService is initializing")
        if both:
            upgrade = ("True", "BothActivePendingClustersExist", "Both active and pending Ray clusters exist")
        elif self._name("active"):
            upgrade = ("False", "NoPendingCluster", "Active Ray cluster exists and no pending Ray cluster")
        else:
            upgrade = ("False", "Initializing", "RayService is initializing")
        for key, value in (("numServeEndpoints", endpoints), ("serviceStatus", endpoints and "Running")):
            self._status.pop(key, None)
            if value:
                self._status[key] = value
        self._status["conditions"] = [
            self._condition("Ready", *ready),
            self._condition("UpgradeInProgress", *upgrade),
        ]

    def _conditions(self) -> list[Data]:
        return self._status.get("conditions") or []

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Data:
        old = next((item for item in self._conditions() if item["type"] == kind), {})
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else now,
            "observedGeneration": self._status["observedGeneration"],
        }


def hashes(spec: Data) -> dict[str, str]:
    """KubeRay's annotations on a RayCluster that a RayService made."""
    return {HASH: digest(spec), GROUPS: str(len(spec.get("workerGroupSpecs") or ()))}


def digest(spec: Data) -> str:
    """Of a configuration without sizes, tolerations and what is the autoscaler's."""
    compared = copy.deepcopy(spec)
    compared.pop("upgradeStrategy", None)
    compared.pop("suspend", None)
    workers = compared.get("workerGroupSpecs") or []
    for group in workers:
        for key in SIZES:
            group.pop(key, None)
        (group.get("scaleStrategy") or {}).pop("workersToDelete", None)
    for group in (compared["headGroupSpec"], *workers):
        for key in ("tolerations", "schedulingGates"):
            group["template"]["spec"].pop(key, None)
    return hashlib.sha1(json.dumps(compared, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
