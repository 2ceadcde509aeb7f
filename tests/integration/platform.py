"""A platform started the way a user starts it, for the tests of a whole session."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

from tradewind.api.headers import ENGINE_STATS_PATH, ENGINE_TOKEN
from tradewind.rayapi.client import ServeControl
from tradewind.serve import runfile

ROOT = Path(__file__).resolve().parents[2]
START_S = 420.0
COMMAND = (sys.executable, "-m", "tradewind.cli.main")
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
REPLICA_PORTS = range(30_000, 30_040)
"""The first of those that Serve gives to replicas."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> float:
    """Seconds until `condition` is true; AssertionError after `timeout_s`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


@dataclass
class Platform:
    """`tradewind up` in a process of its own, with its own state directory and port."""

    home: Path
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    children: list[psutil.Process] = field(default_factory=list)
    started_s: float = 0.0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What `up` has printed."""
        return (self.home / "up.log").read_text()

    @property
    def key(self) -> str:
        return (self.home / "keys" / "quickstart").read_text().strip()

    @property
    def token(self) -> str:
        """The internal token, which only gateways may show to engines."""
        return (self.home / "internal-token").read_text().strip()

    @property
    def run(self) -> runfile.RunFile:
        return runfile.read(self.home)

    def env(self) -> dict[str, str]:
        own = {"TRADEWIND_HOME": str(self.home), "COLUMNS": "200", "NO_COLOR": "1"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
        return {**inherited, "PYTHONPATH": path, **own, **self.environment}

    def start(self, *files: Path) -> None:
        """`tradewind up FILES`, until it serves."""
        self.home.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with (self.home / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tradewind.cli.main",
                    "up",
                    *map(str, files),
                    "--port",
                    str(self.port),
                ],
                env=self.env(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while "until Ctrl-C" not in self.output:
            assert self.process.poll() is None, f"up ended: {self.output}"
            assert time.monotonic() - began < START_S, f"not ready: {self.output}"
            time.sleep(0.2)
        self.started_s = time.monotonic() - began

    def stop(self) -> list[str]:
        """Ctrl-C, and the names of the processes that outlive it (there should be none)."""
        if self.process is None or self.process.poll() is not None:
            return []
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(2)
        try:
            self.process.wait(90)
        finally:
            _, left = psutil.wait_procs(self.children, timeout=60)
            names = [f"{process.pid} {process.name()}" for process in left if process.is_running()]
            for process in left:
                process.kill()
        return names

    def cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Another `tradewind` command on the same state directory."""
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.env(),
            capture_output=True,
            text=True,
            input=stdin,
            timeout=600,
            check=False,
        )

    def apply(self, manifests: str) -> subprocess.CompletedProcess[str]:
        return self.cli("apply", "-", stdin=manifests)

    def openai(self, **options: object) -> OpenAI:
        defaults: dict[str, object] = {"api_key": self.key, "max_retries": 0}
        return OpenAI(base_url=f"{self.base}/v1", **(defaults | options))  # type: ignore[arg-type]

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=120.0)

    def control(self) -> ServeControl:
        return ServeControl(self.run.dashboard_url, (self.home / "ray-token").read_text().strip())

    def applications(self) -> dict[str, Any]:
        """What Ray says of every application, by name. Raises ControlError."""
        control = self.control()
        try:
            found: dict[str, Any] = control._request("GET").json()["applications"]
        finally:
            control.close()
        return found

    def engine_processes(self, deployment: str) -> list[psutil.Process]:
        """The Serve replica processes of one engine, and below them vLLM's own."""
        return self.processes(f"ServeReplica:{deployment}:")

    def processes(self, titled: str) -> list[psutil.Process]:
        """Those of the platform with this in their title."""
        assert self.process is not None
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if titled in title:
                found.append(process)
        return found

    def engine_stats(self, deployment: str) -> dict[str, Any]:
        """What a deployment's one replica says of itself, asked the way a gateway asks."""
        # Serve's public API names proxies only: the replica is where its path answers.
        path, headers = f"/engines/{deployment}{ENGINE_STATS_PATH}", {ENGINE_TOKEN: self.token}
        for port in REPLICA_PORTS:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=30.0)
                if answer.status_code == httpx.codes.OK:
                    stats: dict[str, Any] = answer.json()
                    return stats
        raise AssertionError(f"no replica of {deployment} answers on {REPLICA_PORTS}")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a sample over the gateway's Prometheus page."""
        from prometheus_client.parser import text_string_to_metric_families

        page = httpx.get(f"{self.run.metrics_url}/metrics", timeout=10.0).text
        wanted = {name.replace(".", "_"): value for name, value in labels.items()}
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and wanted.items() <= sample.labels.items()
        )
