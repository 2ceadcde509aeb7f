"""What a pod's container prints: a real Ray node with the gateway and an engine, started as in a pod."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fixtures import models
from tests.integration import tiny
from tests.integration.platform import ROOT, free_port, wait_for
from tradewind.compiler.compile import compile_resources
from tradewind.compiler.documents import read_documents
from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.home import CACHE, HASH_KEY_FILE, HOME, TOKEN_FILE, cache_dir
from tradewind.rayapi.client import ServeControl
from tradewind.serve.ingress import write_launcher
from tradewind.serve.node import COMMAND

pytestmark = pytest.mark.engine

PROMPT = "canary-3f1c the harbour is closed tonight"
RAY_TOKEN = "a7" * 32
TOKEN = "b8" * 32
HASH_KEY = "c9" * 32
POD = "default-pool-cpu-worker-x1"
READY_S = 240.0
RESOURCES = (
    """
apiVersion: tradewind.dev/v1alpha1
kind: ServingCluster
metadata: {{name: default}}
spec:
  telemetry: {{engineMetrics: true}}
  gateway: {{metricsPort: {metrics}, endpoint: {{host: 127.0.0.1, port: {port}}}}}
"""
    + tiny.RESOURCES
)
BROKEN = """
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: broken}}
spec:
  source: {{uri: "file://{directory}"}}
  engine: {{args: {{enforceEager: true, maxModelLen: 2048, kvCacheMemoryBytes: 524288}}}}
"""


@dataclass
class Node:
    """The container: its output so far is in a file."""

    process: subprocess.Popen[bytes]
    output: Path
    control: ServeControl
    port: int = field(default_factory=free_port)
    gateway_metrics: int = field(default_factory=free_port)
    ray_metrics: int = 0

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

    def serve(self, resources: str) -> None:
        text = resources.format(directory=models.llama(), port=self.port, metrics=self.gateway_metrics)
        self.control.apply(compile_resources(read_documents([("node", text)])).serve_config)

    def ask(self) -> httpx.Response:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": " ".join([PROMPT] * 5)}],
            "max_tokens": 8,
        }
        return httpx.post(f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body, timeout=60)


def start(home: Path, output: Path) -> Node:
    """`python -m tradewind.serve.node` with what KubeRay and the operator give a container."""
    dashboard, metrics = free_port(), free_port()
    secrets = {"ray-token": RAY_TOKEN, "internal-token": TOKEN, "hash-key": HASH_KEY}
    for name, value in secrets.items():
        (home / name).write_text(value)
    command = (
        f"ray start --head --block --no-monitor --port={free_port()} --node-ip-address=127.0.0.1 "
        f"--num-cpus=4 --num-gpus=0 --dashboard-host=127.0.0.1 --dashboard-port={dashboard} "
        f"--dashboard-agent-listen-port={free_port()} "
        f"--metrics-export-port={metrics} --ray-client-server-port={free_port()} "
        f"--object-store-memory=134217728 --temp-dir={home}/ray"
    )
    ports = Ports(haproxy_metrics=free_port(), haproxy_stats=free_port(), replicas=33_500)
    ingress = str(write_launcher(home / "haproxy"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        **ray_environment(token_file=home / "ray-token", run_dir=home, ingress=ingress, ports=ports),
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
    return Node(process, output, control, ray_metrics=metrics)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    # A socket's path has at most 107 bytes, and Ray's are long.
    with tempfile.TemporaryDirectory(prefix="tw-node-") as home:
        node = start(Path(home), tmp_path_factory.mktemp("node") / "output")
        try:
            wait_for(lambda: _answers(node), "Ray's API", READY_S)
            node.serve(RESOURCES)
            wait_for(lambda: tiny.all_ready(node.control), "gateway and engine", READY_S)
            wait_for(lambda: node.ask().status_code == 200, "an answer", 60)
            yield node
        finally:
            node.control.close()
            _end(node.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    node = psutil.Process(process.pid)
    children = node.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([node, *children], timeout=60)
    for one in left:
        one.kill()
    process.wait()


def _answers(node: Node) -> bool:
    assert node.process.poll() is None, node.output.read_text()
    try:
        return node.control.applications() is not None
    except Exception:  # not there yet
        return False


def test_every_line_is_an_object_that_says_when_how_bad_who_and_which_pod(node: Node) -> None:
    found = node.records()
    assert len(found) > 20
    for record in found:
        assert {"ts", "level", "logger", "message", "pod"} <= set(record), record
        assert record["pod"] == POD
        assert record["level"] in {"debug", "info", "warning", "error", "critical"}, record


def test_gateway_engine_vllm_and_serve_all_speak(node: Node) -> None:
    assert node.has(service="gateway", logger="tradewind.serve.applications", message="is in force")
    assert node.has(service="engine", model="tiny", message="engine tiny is ready")
    assert node.has(logger="vllm", process="EngineCore", model="tiny")
    assert node.has(logger="ray.serve", component="controller", message="Adding 1 replica")
    ours = [record for record in node.records() if record.get("service") in ("engine", "gateway")]
    assert all(record["replica"] for record in ours)


def test_ray_says_only_what_is_wrong(node: Node) -> None:
    levels = {record["level"] for record in node.records() if record["logger"] == "ray"}
    assert levels <= {"warning", "error", "critical"}


def test_no_request_and_no_secret_is_in_the_output(node: Node) -> None:
    assert node.ask().status_code == 200
    text = node.output.read_text()
    for hidden in (PROMPT, "canary-3f1c", RAY_TOKEN, TOKEN, HASH_KEY):
        assert hidden not in text


def test_vllms_metrics_are_at_rays_port_under_the_names_that_the_documents_give(node: Node) -> None:
    guide = (ROOT / "docs" / "how-to" / "collect-traces-and-metrics.md").read_text()
    named = set(re.findall(r"`(ray_vllm_[a-z_]+)`", guide))
    assert len(named) >= 5
    seen: set[str] = set()

    def all_seen() -> bool:
        # A gauge is there only while the engine works.
        assert node.ask().status_code == 200
        page = httpx.get(f"http://127.0.0.1:{node.ray_metrics}/metrics", timeout=10).text
        seen.update(line.partition("{")[0] for line in page.splitlines() if 'model_name="tiny"' in line)
        return named <= seen

    # Ray's processes report every few seconds.
    wait_for(all_seen, f"all series: {named}", 120)


def test_why_an_engine_does_not_start_is_an_error_with_its_models_name(node: Node) -> None:
    node.serve(RESOURCES + BROKEN)
    wait_for(
        lambda: node.has(model="broken", level="error", logger="vllm", message="KV cache is needed"),
        "the cause",
        READY_S,
    )


def test_the_output_has_the_last_words(node: Node) -> None:
    """The last test: it ends the node."""
    node.process.send_signal(signal.SIGTERM)
    node.process.wait(60)
    last = node.records()[-1]
    assert last["message"].startswith("Ray has ended with status")
    assert last["level"] == "info"
