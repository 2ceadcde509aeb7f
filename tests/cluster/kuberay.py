"""A stand-in for KubeRay 1.7, Ray's autoscaler and the Ray clusters themselves: no pod runs.

It keeps pods, the head's Service and the status of every RayCluster as KubeRay's controller does
(`raycluster`), with shorter times, and answers over HTTP for the Ray clusters that are not there.

    with KubeRay(client, delays=Delays()) as kuberay:
        kuberay.url                    # Serve's API and gateways of all RayClusters, by path
        kuberay.ray(namespace, name)   # the Ray cluster behind a RayCluster
        kuberay.broken["llama"] = "CUDA out of memory"   # from its next start on
"""

from __future__ import annotations

import base64
import copy
import json
import threading
import time
from contextlib import suppress
from typing import Any, Self

import urllib3
from kubernetes import client as k8s
from kubernetes import watch

from tests.cluster.ray import Data, Delays, RayCluster
from tests.cluster.ray_http import HeadsAndGateways
from tests.cluster.raycluster import (
    HEAD_GROUP,
    NODE_MARK,
    Pod,
    can_be_ready,
    groups_of,
    head_service,
    node_ips,
    pod_status,
    pods_of,
    sizes,
    status_of,
)

GROUP, VERSION = "ray.io", "v1"
SERVICES, CLUSTERS = "rayservices", "rayclusters"
KINDS = {SERVICES: "RayService", CLUSTERS: "RayCluster"}
REQUEUE_S = 0.25
"""KubeRay's is 2 s; what it brings about is the same, sooner."""
WATCH_S = 2
EXISTS = 409
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
Key = tuple[str, str]
Trouble = (k8s.ApiException, urllib3.exceptions.HTTPError, OSError, ValueError)
"""What comes of a server that goes away; ValueError of an answer that it began."""


def definitions() -> list[Data]:
    """KubeRay's kinds that the operator knows; whatever is written is kept as it is."""
    return [_definition(SERVICES), _definition(CLUSTERS)]


def _definition(plural: str) -> Data:
    kind = KINDS[plural]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class KubeRay:
    """Plays KubeRay for every RayCluster of a server, while in use as a context manager."""

    def __init__(self, client: k8s.ApiClient, delays: Delays | None = None) -> None:
        self._objects: Any = k8s.CustomObjectsApi(client)
        self._core: Any = k8s.CoreV1Api(client)
        self._delays = delays or Delays()
        self.broken: dict[str, str] = {}
        """ModelDeployment → why its engine cannot start, from its next start on."""
        self._clusters: dict[Key, Data] = {}
        self._rays: dict[Key, tuple[str, RayCluster]] = {}
        """With the UID of the RayCluster that it is of."""
        self._secrets: dict[Key, dict[str, str]] = {}
        self._addresses = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"kuberay-{work.__name__}") for work in (self._look, self._act)
        ]
        self._http = HeadsAndGateways(self._answering, self._secret)

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

    @property
    def url(self) -> str:
        """Where Serve's API and the gateways are: add `/{namespace}/{cluster}/head` or `/gateway`."""
        return self._http.url

    def ray(self, namespace: str, name: str) -> RayCluster | None:
        """The Ray cluster behind a RayCluster; None where there is none (yet)."""
        with self._lock:
            found = self._rays.get((namespace, name))
        return found[1] if found is not None else None

    # Looking

    def _look(self) -> None:
        """Keeps `_clusters` as the server has them."""
        while not self._stop.is_set():
            try:
                listed = self._objects.list_cluster_custom_object(GROUP, VERSION, CLUSTERS)
                with self._lock:
                    self._clusters = {_key(item): item for item in listed["items"]}
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
                CLUSTERS,
                resource_version=version,
                timeout_seconds=WATCH_S,
            ):
                item = event["object"]
                version = item["metadata"]["resourceVersion"]
                with self._lock:
                    if event["type"] == "DELETED":
                        self._clusters.pop(_key(item), None)
                    else:
                        self._clusters[_key(item)] = item
                self._wake.set()

    # Acting

    def _act(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(REQUEUE_S)
            self._wake.clear()
            with suppress(*Trouble):
                self._pass()

    def _pass(self) -> None:
        with self._lock:
            clusters = {
                key: copy.deepcopy(item)
                for key, item in self._clusters.items()
                if not item["metadata"].get("deletionTimestamp")
            }
            for key in self._rays.keys() - clusters.keys():
                del self._rays[key]
                self._secrets.pop(key, None)
        pods: dict[Key, list[Pod]] = {}
        for pod in self._list_pods():
            pods.setdefault((pod.namespace, pod.cluster), []).append(pod)
        for key in pods.keys() - clusters.keys():
            with suppress(*Trouble):
                self._end(key, pods[key])
        for key, cluster in clusters.items():
            with suppress(*Trouble):
                self._reconcile(cluster, pods.get(key, []))

    def _list_pods(self) -> list[Pod]:
        # As text: the client's own objects for whole pods take long to make.
        answer = self._core.list_pod_for_all_namespaces(
            label_selector=f"{NODE_MARK}=yes", _preload_content=False
        )
        return [Pod.of(item) for item in json.loads(answer.data)["items"]]

    def _end(self, key: Key, pods: list[Pod]) -> None:
        """Of a RayCluster that is gone, what Kubernetes would collect in its own time."""
        for pod in pods:
            self._delete_pod(pod)
        self._core.delete_namespaced_service(f"{key[1]}-head-svc", key[0])

    def _reconcile(self, cluster: Data, pods: list[Pod]) -> None:
        """One pass of KubeRay over a RayCluster, and of its autoscaler."""
        metadata = cluster["metadata"]
        namespace, _ = key = _key(cluster)
        ray = self._ray_of(cluster)
        self._create(self._core.create_namespaced_service, namespace, head_service(cluster), not pods)
        there = {pod.name: pod for pod in pods}
        wanted = {manifest["metadata"]["name"]: manifest for manifest in pods_of(cluster)}
        for each in there.keys() - wanted.keys():
            # Of a group that has left the spec nobody deletes pods.
            if there[each].group in {HEAD_GROUP, *(group["groupName"] for group in groups_of(cluster))}:
                self._delete_pod(there.pop(each))
        failure = ""
        for each, manifest in wanted.items():
            try:
                self._create(self._core.create_namespaced_pod, namespace, manifest, each not in there)
            except k8s.ApiException as error:
                failure = f"{each}: {json.loads(error.body)['message']}"
                break
        if not failure and ray.head_ready(time.monotonic()):
            for each, manifest in wanted.items():
                serves = can_be_ready(manifest["metadata"]["labels"]["ray.io/group"], ray.config)
                if each not in there or not there[each].address:
                    self._tell_pod(namespace, each, self._next_address(), serves)
                elif serves and not there[each].ready:
                    self._tell_pod(namespace, each, there[each].address, serves)
        if metadata != self._metadata(key):
            return  # It was changed meanwhile: the next pass sees it.
        ray.node_ips = node_ips(ray.config, there.values())
        status = status_of(cluster, there.values(), failure)
        if status != cluster.get("status"):
            self._patch(cluster, [{"op": "add", "path": "/status", "value": status}], "status")
        for position, size in sizes(cluster, ray.config):
            self._resize(cluster, position, size)

    def _ray_of(self, cluster: Data) -> RayCluster:
        key, uid = _key(cluster), cluster["metadata"]["uid"]
        with self._lock:
            known = self._rays.get(key)
            if known is None or known[0] != uid:
                self._secrets.pop(key, None)
                known = self._rays[key] = (uid, RayCluster(time.monotonic(), self._delays, self.broken))
        return known[1]

    def _metadata(self, key: Key) -> Data | None:
        with self._lock:
            item = self._clusters.get(key)
            return copy.deepcopy(item["metadata"]) if item is not None else None

    def _create(self, create: Any, namespace: str, manifest: Data, missing: bool) -> None:
        if not missing:
            return
        try:
            create(namespace, manifest)
        except k8s.ApiException as error:
            if error.status != EXISTS:
                raise

    def _delete_pod(self, pod: Pod) -> None:
        self._core.delete_namespaced_pod(pod.name, pod.namespace, grace_period_seconds=0)

    def _next_address(self) -> str:
        self._addresses += 1
        return f"10.64.{self._addresses // 250 % 250}.{self._addresses % 250 + 1}"

    def _tell_pod(self, namespace: str, name: str, address: str, ready: bool) -> None:
        status = {"status": pod_status(address, ready)}
        self._core.patch_namespaced_pod_status(name, namespace, status, _content_type=MERGE_PATCH)
        self._wake.set()

    def _resize(self, cluster: Data, position: int, size: int) -> None:
        """By position, as the autoscaler writes it."""
        at = f"/spec/workerGroupSpecs/{position}"
        name = groups_of(cluster)[position]["groupName"]
        operations = [
            {"op": "test", "path": f"{at}/groupName", "value": name},
            {"op": "add", "path": f"{at}/replicas", "value": size},
        ]
        self._patch(cluster, operations)

    def _patch(self, cluster: Data, operations: list[Data], part: str = "") -> None:
        namespace, name = _key(cluster)
        patch = self._objects.patch_namespaced_custom_object
        if part:
            patch = self._objects.patch_namespaced_custom_object_status
        written = patch(GROUP, VERSION, namespace, CLUSTERS, name, operations, _content_type=JSON_PATCH)
        self._remember(written)

    def _remember(self, written: Data) -> None:
        """Our own write, before the watch tells of it: or the next pass would act on what is old."""
        with self._lock:
            if (known := self._clusters.get(_key(written))) is not None:
                old, new = (int(item["metadata"]["resourceVersion"]) for item in (known, written))
                if new > old:
                    self._clusters[_key(written)] = written

    # For those who ask over HTTP

    def _answering(self, namespace: str, name: str) -> RayCluster | None:
        """The Ray cluster behind a RayCluster, once its head answers."""
        ray = self.ray(namespace, name)
        return ray if ray is not None and ray.head_ready(time.monotonic()) else None

    def _secret(self, namespace: str, name: str) -> dict[str, str]:
        """The Secret that a RayCluster names, as its pods have it: read once."""
        key = namespace, name
        with self._lock:
            known, cluster = self._secrets.get(key), self._clusters.get(key)
        if known is None:
            of = cluster["spec"]["authOptions"]["secretName"] if cluster is not None else name
            found = self._core.read_namespaced_secret(of, namespace).data
            known = {each: base64.b64decode(value).decode() for each, value in found.items()}
            with self._lock:
                self._secrets[key] = known
        return known


def _key(item: Data) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]
