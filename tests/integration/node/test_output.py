"""What a pod's container prints: gateways and an engine on a real Ray node.

The last file of its folder: its last test ends the node.
"""

from __future__ import annotations

import json
import re
import signal

import httpx
import pytest

from tests.integration.node.process import (
    HASH,
    HASH_KEY,
    KEY,
    POD,
    PROMPT,
    RAY_TOKEN,
    READY_S,
    TOKEN,
    Node,
    compiled,
)
from tests.integration.platform import ROOT, wait_for

pytestmark = pytest.mark.engine

BROKEN = """
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: broken}}
spec:
  source: {{uri: "file://{directory}"}}
  engine: {{args: {{enforceEager: true, maxModelLen: 2048, kvCacheMemoryBytes: 524288}}}}
"""
CAUSE = "To serve at least one request with the model's max seq len (2048)"


def test_every_line_is_an_object_that_says_when_how_bad_who_and_which_pod(node: Node) -> None:
    found = node.records()
    assert len(found) > 20
    for record in found:
        assert {"ts", "level", "logger", "message", "pod"} <= set(record), record
        assert record["pod"] == POD
        assert record["level"] in {"debug", "info", "warning", "error", "critical"}, record


def test_gateway_engine_vllm_and_serve_all_speak(node: Node) -> None:
    assert node.has(service="gateway", logger="tradewind.gateway.intake", message="is in force")
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
    for hidden in (PROMPT, "canary-3f1c", KEY, HASH, RAY_TOKEN, TOKEN, HASH_KEY):
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
    """The cause of vLLM's own that is found out last; it is published as the start's progress too."""
    node.control.apply(compiled(BROKEN).serve_config)
    wait_for(
        lambda: node.has(model="broken", level="error", logger="vllm", message="KV cache is needed"),
        "the cause",
        READY_S,
    )
    file = node.home / "progress" / "broken.json"

    def failed_of() -> str:
        progress = json.loads(file.read_text())
        return str(progress["message"]) if progress["stage"] == "failed" else ""

    # Serve tries again, and then it is under way.
    wait_for(lambda: failed_of().startswith(CAUSE), "the cause as progress", 60)


def test_the_output_has_the_last_words(node: Node) -> None:
    """The last test of the folder: it ends the node."""
    node.process.send_signal(signal.SIGTERM)
    node.process.wait(60)
    last = node.records()[-1]
    assert last["message"].startswith("Ray has ended with status")
    assert last["level"] == "info"
