"""A real Ray node started as a pod's container starts it, which serves what the operator would give it.

One machine is the head, the gateways' group and the pool in one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

from tests.fixtures import models
from tests.integration.platform import ROOT, free_port, wait_for
from tradewind.api.key_hash import key_hash
from tradewind.compiler.compile import (
    CLUSTER_PORT,
    GATEWAY_ROLE,
    POOL_LABEL,
    ROLE_LABEL,
    Compiled,
    compile_resources,
)
from tradewind.compiler.documents import read_documents
from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.compiler.world import CLUSTER
from tradewind.home import CACHE, HASH_KEY_FILE, HOME, TOKEN_FILE, cache_dir
from tradewind.rayapi.client import ServeControl
from tradewind.serve.node import COMMAND

PROMPT = "canary-3f1c the harbour is closed tonight"
KEY = "sk-operated-0123456789abcdef0123456789"
RAY_TOKEN = "a7" * 32
TOKEN = "b8" * 32
HASH_KEY = "c9" * 32
HASH = key_hash(KEY, HASH_KEY.encode())
POD = "default-pool-cpu-worker-x1"
BASE = f"http://127.0.0.1:{CLUSTER_PORT}"
LABELS = {ROLE_LABEL: GATEWAY_ROLE, POOL_LABEL: "cpu"}
READY_S = 240.0
RESOURCES = """
apiVersion: tradewind.dev/v1alpha1
kind: ServingCluster
metadata: {{name: default}}
spec:
  telemetry: {{engineMetrics: true}}
  gateway: {{metricsPort: 19464}}
  pools: {{cpu: {{cpus: 4, memory: 8Gi, maxNodes: 1}}}}
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: tiny}}
spec:
  source: {{uri: "file://{directory}"}}
  engine: {{args: {{enforceEager: true, maxModelLen: 512, kvCacheMemoryBytes: 67108864}}}}
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata: {{name: chat}}
spec: {{model: chat, variants: [{{name: only, deployment: tiny}}]}}
---
apiVersion: tradewind.dev/v1alpha1
kind: Tenant
metadata: {{name: team}}
spec: {{keys: [{{secret: {{name: team-key, key: key}}}}]}}
"""
"""To be formatted with `directory`, that of the weights."""


def compiled(more: str = "") -> Compiled:
    """What the operator makes of the resources, and of others after them."""
    text = (RESOURCES + more).format(directory=models.llama())
    hashes = {("team-key", "key"): HASH}
    return compile_resources(read_documents([("cluster", text)]), platform=CLUSTER, key_hashes=hashes)


def serve_config() -> str:
    """As it is sent to Ray."""
    return json.dumps(compiled().serve_config)


@dataclass
class Node:
    """The container: its output so far is in a file."""

    process: subprocess.Popen[bytes]
    home: Path
    output: Path
    control: ServeControl
    ray_metrics: int

    def records(self) -> list[dict[str, Any]]:
        """Whole lines so far; each must be an object."""
        text = self.output.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def has(self, **wanted: str) -> bool:
        """Whether a record has these values, the message a part of it."""
        message = wanted.pop("message", "")
        return any(
            message in record["message"] and record.items() >= wanted.items() for record in self.records()
        )

    def applications(self) -> dict[str, Any]:
        """All that Ray says of what it serves."""
        document: dict[str, Any] = self.control._request("GET").json()
        return document

    def gateways(self) -> dict[str, int]:
        """Process ids of the replicas that run, by replica id."""
        replicas = self.applications()["applications"]["gateway"]["deployments"]["gateway"]["replicas"]
        return {each["replica_id"]: each["pid"] for each in replicas if each["state"] == "RUNNING"}

    def readiness(self) -> httpx.Response:
        """What the operator asks the gateways."""
        return httpx.get(f"{BASE}/readyz", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30)

    def openai(self, key: str) -> OpenAI:
        return OpenAI(base_url=f"{BASE}/v1", api_key=key, max_retries=0, timeout=60)

    def http(self) -> httpx.Client:
        """A client of the tenant."""
        return httpx.Client(base_url=BASE, headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    def ask(self) -> httpx.Response:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": " ".join([PROMPT] * 5)}],
            "max_tokens": 8,
        }
        with self.http() as client:
            return client.post("/v1/chat/completions", json=body)

    def wait_until_ready(self) -> None:
        """Serve what the operator gives it, until the tenant is answered."""
        wait_for(self._has_ray, "Ray's API", READY_S)
        self.control.apply(compiled().serve_config)
        wait_for(self._all_run, "gateways and engine", READY_S)
        wait_for(lambda: self.readiness().status_code == httpx.codes.OK, "the engine in rotation", 60)
        wait_for(lambda: self.ask().status_code == httpx.codes.OK, "an answer", 60)

    def _has_ray(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        try:
            return self.control.applications() is not None
        except Exception:  # not there yet
            return False

    def _all_run(self) -> bool:
        found = self.control.applications()
        assert not any(app.failed for app in found.values()), found
        return len(found) == 2 and all(app.ready for app in found.values())

    def end(self) -> None:
        """End it and all that it started, if it has not ended; what does not go is killed."""
        self.control.close()
        if self.process.poll() is not None:
            return
        node = psutil.Process(self.process.pid)
        children = node.children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs([node, *children], timeout=60)
        for one in left:
            one.kill()
        self.process.wait()


def start(home: Path, output: Path, telemetry: Mapping[str, str]) -> Node:
    """`python -m tradewind.serve.node` with what KubeRay and the operator give a container."""
    dashboard, metrics = free_port(), free_port()
    secrets = {"ray-token": RAY_TOKEN, "internal-token": TOKEN, "hash-key": HASH_KEY}
    for name, value in secrets.items():
        (home / name).write_text(value)
    labels = ",".join(f"{name}={value}" for name, value in LABELS.items())
    command = (
        f"ray start --head --block --no-monitor --port={free_port()} --node-ip-address=127.0.0.1 "
        f"--num-cpus=4 --num-gpus=0 --labels={labels} "
        f"--dashboard-host=127.0.0.1 --dashboard-port={dashboard} "
        f"--dashboard-agent-listen-port={free_port()} --dashboard-agent-grpc-port={free_port()} "
        f"--runtime-env-agent-port={free_port()} "
        f"--metrics-export-port={metrics} --ray-client-server-port={free_port()} "
        f"--object-store-memory=134217728 --temp-dir={home}/ray"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        **ray_environment(token_file=home / "ray-token", ports=Ports(replicas=33_500)),
        **telemetry,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("platform", ".")),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_raylet_start_wait_time_s": "300",
        # A busy machine starts the proxy slowly, and Serve would give it up.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "HOSTNAME": POD,
        HOME: str(home),
        CACHE: str(cache_dir()),
        HASH_KEY_FILE: str(home / "hash-key"),
        TOKEN_FILE: str(home / "internal-token"),
        COMMAND: command,
    }
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tradewind.serve.node"], env=environment, stdout=file, cwd=ROOT
        )
    control = ServeControl(f"http://127.0.0.1:{dashboard}", RAY_TOKEN)
    return Node(process, home, output, control, metrics)
