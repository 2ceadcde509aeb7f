"""Gives every claim of the bed's StorageClass a folder, and takes it away with the claim. Runs in a pod.

    python3 volumes.py FOLDER

A volume is a `local` one, so that the kubelet gives it to the pod's group (fsGroup); it names no single node,
for every node of the bed sees FOLDER: a pod may come back on another node and finds its data.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROVISIONER = "tradewind.dev/e2e-folders"
CLASS = "standard"
CHOSEN = "volume.kubernetes.io/selected-node"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = (
    f"https://{os.environ.get('KUBERNETES_SERVICE_HOST')}:{os.environ.get('KUBERNETES_SERVICE_PORT')}/api/v1/"
)
EVERY_S = 0.5


def call(method: str, path: str, body: object = None) -> Any:
    """What the API server answers. Raises urllib's URLError."""
    headers = {
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, headers, method=method)
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return json.load(answer)


def volume(claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The volume of a claim, with its data in `folder`."""
    metadata, spec = claim["metadata"], claim["spec"]
    anywhere = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": folder.name,
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [anywhere]}},
        },
    }


def waits(claim: dict[str, Any]) -> bool:
    """Whether it is ours and a pod that uses it has been given a node."""
    annotations = claim["metadata"].get("annotations", {})
    return claim["spec"].get("storageClassName") == CLASS and CHOSEN in annotations


def look(home: Path) -> None:
    """Make what is missing and remove what is no longer claimed."""
    volumes = {each["metadata"]["name"]: each for each in call("GET", "persistentvolumes")["items"]}
    for claim in call("GET", "persistentvolumeclaims")["items"]:
        name = f"pvc-{claim['metadata']['uid']}"
        if waits(claim) and name not in volumes and not claim["spec"].get("volumeName"):
            (home / name).mkdir(exist_ok=True)
            call("POST", "persistentvolumes", volume(claim, home / name))
            print("made", name, "of", claim["metadata"]["namespace"], claim["metadata"]["name"])
    for name, found in volumes.items():
        ours = found["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and found.get("status", {}).get("phase") == "Released":
            call("DELETE", f"persistentvolumes/{name}")
            shutil.rmtree(home / name, ignore_errors=True)
            print("removed", name)


def main() -> None:
    """Look again and again; an API server that is away is asked later."""
    home = Path(sys.argv[1])
    while True:
        try:
            look(home)
        except (urllib.error.URLError, OSError, ValueError) as error:
            print("later:", error)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
