"""Objects of one namespace on the API server, as plain data, and waiting for what they say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kubernetes import client as k8s

from tests.cluster.ray import Data
from tradewind_operator.kinds import (
    CUSTOM,
    DISRUPTION_BUDGET,
    EVENT,
    MODEL_DEPLOYMENT,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SERVING_CLUSTER,
    VOLUME_CLAIM,
    Resource,
)

MISSING, EXISTS, FAILED = 404, 409, 300
KINDS = {
    kind.kind: kind
    for kind in (
        *CUSTOM,
        RAY_SERVICE,
        RAY_CLUSTER,
        SERVICE,
        POD,
        SERVICE_ACCOUNT,
        SECRET,
        NETWORK_POLICY,
        DISRUPTION_BUDGET,
        VOLUME_CLAIM,
        EVENT,
    )
}
KINDS["ConfigMap"] = Resource("v1", "ConfigMap", "configmaps")
KINDS["Lease"] = Resource("coordination.k8s.io/v1", "Lease", "leases")
T = TypeVar("T")


class Objects:
    """What a person at `kubectl -n NAMESPACE` can do, and see. Kinds are named as in YAML."""

    def __init__(self, client: k8s.ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def apply(self, manifest: Data) -> Data:
        """As `kubectl apply` of something without a list of which an item was taken out."""
        kind = KINDS[manifest["kind"]]
        try:
            return self._call("POST", kind, "", body=manifest)
        except k8s.ApiException as error:
            if error.status != EXISTS:
                raise
            return self.edit(manifest["kind"], manifest["metadata"]["name"], manifest)

    def apply_all(self, manifests: Iterable[Data], at_once: int = 8) -> None:
        """Several, some at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.apply, manifests))

    def edit(self, kind: str, name: str, patch: Data, part: str = "") -> Data:
        """`kubectl patch --type merge`, of the object or of a subresource."""
        return self._call("PATCH", KINDS[kind], name, part, body=patch, content="merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        """`kubectl delete --wait=false`."""
        self._call("DELETE", KINDS[kind], name)

    def find(self, kind: str, name: str) -> Data | None:
        """The object; None where there is none."""
        try:
            return self._call("GET", KINDS[kind], name)
        except k8s.ApiException as error:
            if error.status != MISSING:
                raise
            return None

    def get(self, kind: str, name: str) -> Data:
        return self._call("GET", KINDS[kind], name)

    def list(self, kind: str) -> list[Data]:
        found: list[Data] = self._call("GET", KINDS[kind], "")["items"]
        return found

    def status(self, kind: str, name: str) -> Data:
        """Its status; empty while there is none."""
        return (self.find(kind, name) or {}).get("status") or {}

    def condition(self, kind: str, name: str, which: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty while there is none."""
        for item in self.status(kind, name).get("conditions") or ():
            if item["type"] == which:
                return item["status"], item["reason"], item["message"]
        return "", "", ""

    def events(self, name: str) -> list[Data]:
        """Events about objects of that name."""
        return [event for event in self.list("Event") if event["regarding"]["name"] == name]

    def let_go(self) -> None:
        """Take every finalizer of ours away, so that the namespace can end."""
        held = [
            (kind.kind, item["metadata"]["name"])
            for kind in (SERVING_CLUSTER, MODEL_DEPLOYMENT)
            for item in self.list(kind.kind)
            if item["metadata"].get("finalizers")
        ]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: self.edit(*at, {"metadata": {"finalizers": None}}), held))

    def _call(
        self,
        method: str,
        kind: Resource,
        name: str,
        part: str = "",
        *,
        body: object = None,
        content: str = "json",
    ) -> Data:
        headers = {"Accept": "application/json", "Content-Type": f"application/{content}"}
        request = self._client.param_serialize(
            method,
            kind.path(self._namespace, name, part),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=30)
        answer.read()
        if answer.status >= FAILED:
            raise k8s.ApiException(status=answer.status, reason=answer.reason, body=answer.data.decode())
        found: Data = json.loads(answer.data)
        return found


def wait_for(found: Callable[[], T], what: str, timeout_s: float = 60.0, every_s: float = 0.05) -> T:
    """What `found` returns, once that is true.

    Raises:
        AssertionError: not within `timeout_s`; says what was found last.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}; found {value!r}"
        time.sleep(every_s)
    return value
