"""Small pods that tests start: Python scripts on a node of choice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from tests.e2e.bed.machines import MachineError
from tests.e2e.site import Data, Site

USER = 10001
PORT = 8080
SERVE = f"exec python3 -m http.server {PORT} --directory /tmp"
START_S = 60


@dataclass(frozen=True)
class Pod:
    """A pod that runs, and what one may ask of it."""

    site: Site
    namespace: str
    name: str

    @property
    def address(self) -> str:
        """Its IP address."""
        return str(self.site.get("pod", self.name, f"--namespace={self.namespace}")["status"]["podIP"])

    def run(self, *command: str) -> str:
        """`kubectl exec`; what it printed. Raises MachineError."""
        return self.site.kubectl("exec", f"--namespace={self.namespace}", self.name, "--", *command)

    def reaches(self, url: str) -> bool:
        """Whether a GET from within is answered in 3 seconds."""
        script = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=3).read()"
        try:
            self.run("python3", "-c", script)
        except MachineError as error:
            if "urlopen error" in str(error) or "timed out" in str(error):
                return False
            raise
        return True

    def connects(self, address: str, port: int) -> bool:
        """Whether a TCP connection from within is taken in two seconds."""
        script = (
            f"import socket\ns = socket.socket(); s.settimeout(2)\nprint(s.connect_ex(('{address}', {port})))"
        )
        return self.run("python3", "-c", script).strip() == "0"

    def delete(self) -> None:
        """Until it is gone."""
        self.site.kubectl("delete", f"--namespace={self.namespace}", "pod", self.name, "--grace-period=1")


def fetch(url: str) -> bool:
    """Whether a GET from this machine is answered in 3 seconds."""
    try:
        return httpx.get(url, timeout=3.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def serving(address: str) -> Iterator[str]:
    """A server on this machine at one of its addresses; its URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(Path(__file__).parent))
    with ThreadingHTTPServer((address, 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_address[1]}/"
        finally:
            server.shutdown()


def manifest(
    site: Site, name: str, script: str = SERVE, *, volumes: Sequence[Data] = (), **spec: Any
) -> Data:
    """A pod as restricted Pod Security wants it, with `spec` over that; a volume is mounted at /its-name."""
    container = {
        "name": "main",
        "image": site.image("python"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": list(volumes),
            **spec,
        },
    }


def start(
    site: Site,
    namespace: str,
    name: str,
    script: str = SERVE,
    *,
    volumes: Sequence[Data] = (),
    **spec: Any,
) -> Pod:
    """Start one, until it runs. Raises MachineError."""
    create(site, namespace, manifest(site, name, script, volumes=volumes, **spec))
    waiting = ["wait", "--for=condition=Ready", f"--timeout={START_S}s", f"pod/{name}"]
    site.kubectl(*waiting, f"--namespace={namespace}")
    return Pod(site, namespace, name)


def create(site: Site, namespace: str, content: Data) -> None:
    """Any object. Raises MachineError with what the API server said."""
    site.kubectl("create", f"--namespace={namespace}", "--filename=-", given=json.dumps(content))
