"""A stand-in for KubeRay 1.7: it plays what KubeRay writes, and no pod runs.

It follows KubeRay's controller as read in its source (`rayservice.Pass` is one reconcile of it), with shorter
times, and answers over HTTP for the Ray clusters that are not there.

    with KubeRay(client, delays=Delays()) as kuberay:
        kuberay.url                    # Serve's API and gateways of all clusters, by path
        kuberay.broken["llama"] = "CUDA out of memory"   # from its next start on
"""

from __future__ import annotations

import base64
import copy
import threading
import time
from contextlib import suppress
from typing import Any, Self

import urllib3
from kubernetes import client as k8s
from kubernetes import watch

from tests.cluster.ray import Data, Delays, RayCluster
from tests.cluster.ray_http import HeadsAndGateways
from tests.cluster.rayservice import Pass, hashes

GROUP, VERSION = "ray.io", "v1"
SERVICES, CLUSTERS = "rayservices", "rayclusters"
KINDS = {SERVICES: "RayService", CLUSTERS: "RayCluster"}
FINALIZER = "ray.io/rayservice-finalizer"
REQUEUE_S = 0.25
"""KubeRay's is 2 s; what it brings about is the same, sooner."""
WATCH_S = 2
Key = tuple[str, str]
Trouble = (k8s.ApiException, urllib3.exceptions.HTTPError, OSError)


ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
TEXT = {"type": "string"}


def definitions() -> list[Data]:
    """The two kinds that the operator deals with: what it writes is kept as it is.

    The status has KubeRay's own schema. Without one, the API server's book of who owns which field takes
    time that grows with the square of the applications: 17 s for an apply beside 1,000 of them.
    """
    service = {"type": "object", "properties": {"spec": ANYTHING, "status": _status_schema()}}
    return [_definition(SERVICES, service), _definition(CLUSTERS, ANYTHING)]


def _status_schema() -> Data:
    told = {"status": TEXT, "message": TEXT}
    deployments = _map_of({"type": "object", "properties": told})
    application = {"type": "object", "properties": {**told, "serveDeploymentStatuses": deployments}}
    part = {"rayClusterName": TEXT, "applicationStatuses": _map_of(application)}
    number, texts = {"type": "integer"}, ("type", "status", "reason", "message", "lastTransitionTime")
    condition = {**dict.fromkeys(texts, TEXT), "observedGeneration": number}
    conditions = {"type": "array", "items": {"type": "object", "properties": condition, "required": ["type"]}}
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    properties = {
        "conditions": conditions,
        "serviceStatus": TEXT,
        "activeServiceStatus": {"type": "object", "properties": part},
        "pendingServiceStatus": {"type": "object", "properties": part},
        "numServeEndpoints": number,
        "observedGeneration": number,
    }
    return {"type": "object", "properties": properties}


def _map_of(values: Data) -> Data:
    return {"type": "object", "additionalProperties": values}


def _definition(plural: str, schema: Data) -> Data:
    kind = KINDS[plural]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class KubeRay:
    """Plays KubeRay for every RayService of a server, while in use as a context manager."""

    def __init__(self, client: k8s.ApiClient, delays: Delays | None = None) -> None:
        self._objects: Any = k8s.CustomObjectsApi(client)
        self._core: Any = k8s.CoreV1Api(client)
        self._delays = delays or Delays()
        self.broken: dict[str, str] = {}
        """ModelDeployment → why its engine cannot start, from its next start on."""
        self._services: dict[Key, Data] = {}
        self._clusters: dict[str, RayCluster] = {}
        self._tokens: dict[Key, dict[str, str]] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"kuberay-{work.__name__}") for work in (self._look, self._act)
        ]
        self._http = HeadsAndGateways(self._serving, self._secret)

    def __enter__(self) -> Self:
        self._http.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        self._http.stop()
        for namespace, name in self._services:
            # A namespace does not end while a finalizer is left in it.
            with suppress(*Trouble):
                self._objects.patch_namespaced_custom_object(
                    GROUP, VERSION, namespace, SERVICES, name, {"metadata": {"finalizers": None}}
                )

    @property
    def url(self) -> str:
        """Where Serve's API and the gateways are: add `/{namespace}/{cluster}/head` or `/gateway`."""
        return self._http.url

    def generation(self, namespace: str, name: str) -> int:
        """Of a RayService, as the watch told it last: how often its spec was changed."""
        with self._lock:
            return int(self._services[namespace, name]["metadata"]["generation"])

    def serve_config(self, namespace: str, name: str) -> Data | None:
        """What Serve was given last in the Ray cluster that serves; None while there is none."""
        with self._lock:
            serving = self._serving(namespace, name)
            return serving.config if serving is not None else None

    # Looking

    def _look(self) -> None:
        """Keeps `_services` as the server has them."""
        while not self._stop.is_set():
            try:
                listed = self._objects.list_cluster_custom_object(GROUP, VERSION, SERVICES)
                with self._lock:
                    self._services = {_key(item): item for item in listed["items"]}
                self._wake.set()
                self._follow(listed["metadata"]["resourceVersion"])
            except Trouble:
                self._stop.wait(0.2)

    def _follow(self, version: str) -> None:
        while not self._stop.is_set():
            stream: Any = watch.Watch()
            for event in stream.stream(
                self._objects.list_cluster_custom_object,
                GROUP,
                VERSION,
                SERVICES,
                resource_version=version,
                timeout_seconds=WATCH_S,
            ):
                item = event["object"]
                version = item["metadata"]["resourceVersion"]
                with self._lock:
                    if event["type"] == "DELETED":
                        self._services.pop(_key(item), None)
                    else:
                        self._services[_key(item)] = item
                self._wake.set()

    # Acting

    def _act(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(REQUEUE_S)
            self._wake.clear()
            with self._lock:
                services = list(self._services.values())
            for service in services:
                with suppress(*Trouble):
                    self._reconcile(copy.deepcopy(service))

    def _reconcile(self, service: Data) -> None:
        metadata = service["metadata"]
        held = FINALIZER in (metadata.get("finalizers") or ())
        if metadata.get("deletionTimestamp"):
            if held:
                self._end(service)
            return
        if not held:
            finalizers = [*(metadata.get("finalizers") or ()), FINALIZER]
            self._patch(SERVICES, metadata, {"metadata": {"finalizers": finalizers}})
            return
        old = copy.deepcopy(service.get("status") or {})
        status = Pass(self, service, old, time.monotonic()).run()
        if status != (service.get("status") or {}):
            self._write_status(metadata, status)

    def _end(self, service: Data) -> None:
        metadata, status = service["metadata"], service.get("status") or {}
        for part in ("activeServiceStatus", "pendingServiceStatus"):
            if name := (status.get(part) or {}).get("rayClusterName"):
                self.delete_cluster(metadata["namespace"], name)
        self._patch(SERVICES, metadata, {"metadata": {"finalizers": None}})

    def _write_status(self, metadata: Data, status: Data) -> None:
        body = [{"op": "add", "path": "/status", "value": status}]
        written = self._objects.patch_namespaced_custom_object_status(
            GROUP,
            VERSION,
            metadata["namespace"],
            SERVICES,
            metadata["name"],
            body,
            _content_type="application/json-patch+json",
        )
        self._remember(written)

    def _patch(self, plural: str, metadata: Data, patch: Data) -> None:
        written = self._objects.patch_namespaced_custom_object(
            GROUP,
            VERSION,
            metadata["namespace"],
            plural,
            metadata["name"],
            patch,
            _content_type="application/merge-patch+json",
        )
        if plural == SERVICES:
            self._remember(written)

    def _remember(self, written: Data) -> None:
        """Our own write, before the watch tells of it: or the next pass would act on what is old."""
        with self._lock:
            if (known := self._services.get(_key(written))) is not None:
                old, new = (int(item["metadata"]["resourceVersion"]) for item in (known, written))
                if new > old:
                    self._services[_key(written)] = written

    # Ray clusters, for Pass

    def cluster(self, name: str | None) -> RayCluster | None:
        """The Ray cluster of that name, if it is there."""
        return self._clusters.get(name or "")

    def create_cluster(self, service: Data, name: str, spec: Data) -> RayCluster:
        """A RayCluster object, and a Ray cluster behind it."""
        metadata = service["metadata"]
        owner = {
            "apiVersion": service["apiVersion"],
            "kind": service["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
        }
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KINDS[CLUSTERS],
            "metadata": {
                "name": name,
                "labels": {"ray.io/originated-from-cr-name": metadata["name"]},
                "annotations": hashes(spec),
                "ownerReferences": [owner],
            },
            "spec": spec,
        }
        try:
            self._objects.create_namespaced_custom_object(
                GROUP, VERSION, metadata["namespace"], CLUSTERS, body
            )
        except k8s.ApiException as error:
            if error.status != 409:
                raise
        with self._lock:
            # Its pods mount the Secret as it is now.
            self._tokens.pop((metadata["namespace"], metadata["name"]), None)
            made = self._clusters[name] = RayCluster(time.monotonic(), self._delays, self.broken)
        return made

    def annotations_of(self, namespace: str, name: str) -> Data:
        """Those of a RayCluster, by which KubeRay compares."""
        found = self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, CLUSTERS, name)
        annotations: Data = found["metadata"]["annotations"]
        return annotations

    def update_cluster(self, namespace: str, name: str, spec: Data) -> None:
        """The same cluster with pools added at the end."""
        patch = {"metadata": {"annotations": hashes(spec)}, "spec": spec}
        self._patch(CLUSTERS, {"namespace": namespace, "name": name}, patch)

    def delete_cluster(self, namespace: str, name: str) -> None:
        """At once: KubeRay waits `rayClusterDeletionDelaySeconds`, which nobody can see from outside."""
        self._clusters.pop(name, None)
        with suppress(k8s.ApiException):
            self._objects.delete_namespaced_custom_object(GROUP, VERSION, namespace, CLUSTERS, name)

    # For those who ask over HTTP

    def _serving(self, namespace: str, name: str) -> RayCluster | None:
        """The Ray cluster that the Services point at."""
        with self._lock:
            status = (self._services.get((namespace, name)) or {}).get("status") or {}
            parts = (status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {})
            names = [part["rayClusterName"] for part in parts if part.get("rayClusterName")]
            cluster = self.cluster(names[0]) if names else None
            ready = cluster is not None and cluster.head_ready(time.monotonic())
            return cluster if ready else None

    def _secret(self, namespace: str, cluster: str) -> dict[str, str]:
        """The Secret `NAME-auth`, as the pods have it: read once."""
        with self._lock:
            known = self._tokens.get((namespace, cluster))
        if known is None:
            found = self._core.read_namespaced_secret(f"{cluster}-auth", namespace).data
            known = {key: base64.b64decode(value).decode() for key, value in found.items()}
            with self._lock:
                self._tokens[namespace, cluster] = known
        return known


def _key(item: Data) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]
