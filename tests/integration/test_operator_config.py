"""What the operator writes is what Ray takes: its Serve configuration on a real Ray, with an engine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from openai import AuthenticationError, OpenAI

from tests.fixtures import models
from tests.integration import tiny
from tests.integration.operated import PORTS
from tests.integration.platform import ROOT, wait_for
from tradewind.api.key_hash import key_hash
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.documents import read_documents
from tradewind.compiler.world import CLUSTER
from tradewind.home import HASH_KEY_FILE, TOKEN_FILE
from tradewind.rayapi.app_status import deployed_configs, is_applied
from tradewind.rayapi.client import ServeControl

pytestmark = pytest.mark.engine

KEY = "sk-operated-0123456789abcdef0123456789"
HASH_KEY = "5f" * 32
TOKEN = "e7" * 32
READY_S = 240.0
RESOURCES = (
    """
apiVersion: tradewind.dev/v1alpha1
kind: ServingCluster
metadata: {{name: default}}
spec:
  gateway: {{metricsPort: 19464}}
  pools: {{cpu: {{cpus: 4, memory: 8Gi, maxNodes: 1}}}}
"""
    + tiny.RESOURCES
    + """\
---
apiVersion: tradewind.dev/v1alpha1
kind: Tenant
metadata: {{name: team}}
spec: {{keys: [{{secret: {{name: team-key, key: key}}}}]}}
"""
)


def compiled() -> Compiled:
    text = RESOURCES.format(directory=models.llama())
    hashes = {("team-key", "key"): key_hash(KEY, HASH_KEY.encode())}
    return compile_resources(read_documents([("cluster", text)]), platform=CLUSTER, key_hashes=hashes)


def serve_config() -> str:
    """As it is sent to Ray."""
    return json.dumps(compiled().serve_config)


@dataclass
class Operated:
    """The platform and how it was given its secrets."""

    process: subprocess.Popen[bytes]
    home: Path
    url: str = ""
    """Of Ray's API."""
    base: str = "http://127.0.0.1:8000"

    def client(self, key: str) -> OpenAI:
        return OpenAI(base_url=f"{self.base}/v1", api_key=key, max_retries=0, timeout=60)

    def control(self) -> ServeControl:
        return ServeControl(self.url, (self.home / "ray-token").read_text().strip())

    def gateways(self) -> dict[str, int]:
        """Process ids of the replicas that run, by replica id."""
        control = self.control()
        try:
            document = control._request("GET").json()
        finally:
            control.close()
        replicas = document["applications"]["gateway"]["deployments"]["gateway"]["replicas"]
        return {each["replica_id"]: each["pid"] for each in replicas if each["state"] == "RUNNING"}

    def in_rotation(self) -> set[str]:
        """Replica ids of the gateways that HAProxy asks."""
        page = httpx.get(f"http://127.0.0.1:{PORTS.haproxy_stats}/stats;csv", timeout=30).text
        rows = csv.DictReader(page.removeprefix("# ").splitlines())
        up = [row["svname"] for row in rows if row["status"].startswith("UP")]
        return {name.rpartition("-")[2] for name in up if name.startswith("SERVE_REPLICA_gateway-")}

    def readiness(self) -> httpx.Response:
        return httpx.get(f"{self.base}/readyz", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30)


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    home = tmp_path_factory.mktemp("operated")
    (home / "config.yaml").write_text(serve_config())
    (home / "hash-key").write_text(HASH_KEY)
    # `up` would make its own; in a pod it is a file of a Secret.
    (home / "internal-token").write_text(TOKEN)
    path = os.pathsep.join(str(ROOT / folder) for folder in ("platform", "operators", "."))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "PYTHONPATH": path,
        HASH_KEY_FILE: str(home / "hash-key"),
        TOKEN_FILE: str(home / "internal-token"),
    }
    command = [sys.executable, "-m", "tests.integration.operated", str(home), str(home / "config.yaml")]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT
        )
    try:
        platform = Operated(process, home)
        _wait_until_ready(platform)
        yield platform
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.communicate(timeout=90)
        _, left = psutil.wait_procs(children, timeout=60)
        for child in left:
            child.kill()
    assert left == []


def _wait_until_ready(platform: Operated) -> None:
    assert platform.process.stdout is not None
    platform.url = platform.process.stdout.readline().decode().strip()
    assert platform.url, (platform.home / "log").read_text()
    control = platform.control()
    try:
        wait_for(lambda: tiny.all_ready(control), "both applications", READY_S)
    finally:
        control.close()
    wait_for(lambda: platform.readiness().status_code == 200, "the engine in rotation", 60)


def test_a_tenant_whose_key_came_as_a_hash_is_answered(operated: Operated) -> None:
    answer = operated.client(KEY).chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_the_hash_itself_opens_nothing(operated: Operated) -> None:
    for wrong in (key_hash(KEY, HASH_KEY.encode()), TOKEN, HASH_KEY):
        with pytest.raises(AuthenticationError):
            operated.client(wrong).models.list()


def test_the_operator_learns_what_is_in_force(operated: Operated) -> None:
    told = operated.readiness().json()
    assert told["revision"] == compiled().gateway.revision
    assert told["deployments"] == {"tiny": {"ready": 1, "context_length": 512}}
    assert "deployments" not in httpx.get(f"{operated.base}/readyz", timeout=30).json()


def test_neither_key_nor_token_is_in_what_the_operator_writes() -> None:
    written = serve_config()
    for secret in (KEY, HASH_KEY, TOKEN):
        assert secret not in written


def test_a_killed_gateway_costs_no_request_that_had_not_begun_to_stream(operated: Operated) -> None:
    def ask(number: int) -> int:
        body = {"model": "chat", "prompt": f"{number}", "max_tokens": 8}
        headers = {"authorization": f"Bearer {KEY}"}
        # No retry on the client's side, and a connection each.
        return httpx.post(
            f"{operated.base}/v1/completions", json=body, headers=headers, timeout=60
        ).status_code

    def two_in_rotation() -> bool:
        return len(operated.gateways()) == 2 and operated.in_rotation() == operated.gateways().keys()

    # Serve calls a gateway running before HAProxy has heard of it, and then there is no other to ask.
    wait_for(two_in_rotation, "two gateways", 60)
    (victim, pid), (survivor, _) = operated.gateways().items()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(40)]
        wait_for(lambda: sum(answer.done() for answer in answers) >= 8, "the first answers", 60)
        psutil.Process(pid).kill()
        assert {answer.result() for answer in answers} == {200}
    wait_for(lambda: len(operated.gateways().keys() - {victim}) == 2, "the gateway replaced", 60)
    assert survivor in operated.gateways()


def test_what_was_sent_is_known_again_in_what_ray_says(operated: Operated) -> None:
    """Else the operator would send it at every look."""
    control = operated.control()
    try:
        document = control._request("GET").json()
    finally:
        control.close()
    assert is_applied(deployed_configs(document), compiled().serve_config)
