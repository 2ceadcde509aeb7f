"""Applies the ServingCluster that comes with a release; runs in a Job, with the operator image's Python.

Helm cannot do it: it looks up every kind before it makes the first object, and refuses a resource whose
definition comes with the same release. This waits for the definition, then applies on the server's side with
a field manager of its own, so that what is no longer in the values goes, and what others have set stays.

    python apply_cluster.py MANIFEST.json

Settings come from the environment: KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT, ACCOUNT_DIRECTORY,
DEADLINE_SECONDS. Exit code 0: applied. 1: refused, or not done in time; the last line says why.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FIELD_MANAGER = "tradewind-chart"
INSTANCE = "app.kubernetes.io/instance"
PAUSE_S = 2.0
MAX_ANSWER = 1 << 20


class Refused(Exception):
    """The API server will not take it, and trying again would not help."""


class NotYet(Exception):
    """Something is still on its way: the definition, the permission or the API server."""


class Api:
    """The API server, as this pod's service account."""

    def __init__(self, account: Path, host: str, port: str) -> None:
        self._account = account
        self._base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer. Raises NotYet when there is none."""
        # Read anew each time: the kubelet renews the token.
        token = (self._account / "token").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(self._base + path, data=body, method=method)  # noqa: S310 - https, above
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Accept", "application/json")
        request.add_header("Content-Type", "application/apply-patch+yaml")
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._tls) as answer:  # noqa: S310
                return answer.status, _object(answer.read(MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _object(error.read(MAX_ANSWER))
        except OSError as error:
            raise NotYet(f"the API server cannot be reached: {error}") from None


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object; empty when it is something else, such as the plain text of a proxy."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def apply(api: Api, manifest: dict[str, Any]) -> None:
    """One try. Raises NotYet or Refused."""
    metadata = manifest["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    path = f"/apis/{manifest['apiVersion']}/namespaces/{namespace}/servingclusters/{name}"
    status, found = api.call("GET", path)
    if status == 200:
        owner = found.get("metadata", {}).get("labels", {}).get(INSTANCE)
        if owner not in (None, metadata["labels"][INSTANCE]):
            raise Refused(
                f"ServingCluster {name} in namespace {namespace} belongs to release {owner}; set "
                "cluster.name to another name, or cluster.create=false to use that one"
            )
    query = f"?fieldManager={FIELD_MANAGER}&force=true"
    status, answer = api.call("PATCH", path + query, json.dumps(manifest).encode())
    if status in (200, 201):
        return
    said = str(answer.get("message") or f"status {status}")
    if status in (400, 422):
        raise Refused(f"cluster.spec was refused: {said}")
    if status == 404:
        raise NotYet("the definition of ServingCluster is not there yet (crds.install=false?)")
    raise NotYet(said)


def main(manifest: dict[str, Any], api: Api, deadline_s: float) -> int:
    """Try until it is applied, refused or too late; the exit code."""
    end = time.monotonic() + deadline_s
    name, last = manifest["metadata"]["name"], ""
    while True:
        try:
            apply(api, manifest)
        except Refused as reason:
            print(f"ServingCluster {name} was not applied: {reason}", flush=True)
            return 1
        except NotYet as reason:
            if time.monotonic() >= end:
                print(f"ServingCluster {name} was not applied in {deadline_s:g} s: {reason}", flush=True)
                return 1
            if str(reason) != last:
                last = str(reason)
                print(f"waiting: {last}", flush=True)
            time.sleep(PAUSE_S)
        else:
            print(f"ServingCluster {name} is applied", flush=True)
            return 0


if __name__ == "__main__":
    sys.exit(
        main(
            json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")),
            Api(
                Path(os.environ.get("ACCOUNT_DIRECTORY", "/var/run/secrets/kubernetes.io/serviceaccount")),
                os.environ["KUBERNETES_SERVICE_HOST"],
                os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
            ),
            float(os.environ.get("DEADLINE_SECONDS", "300")),
        )
    )
