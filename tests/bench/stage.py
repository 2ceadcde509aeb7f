"""The platform under test: compiled and started as `tradewind up` does it, with engines that do no work."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.load import CHAT_PATH, Plan
from tradewind import home
from tradewind.cli import manifests
from tradewind.cli.client import Client
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.documents import read_documents
from tradewind.compiler.ray_environment import Ports
from tradewind.serve.local import LocalOptions, LocalPlatform, free_port, run_dir

ROOT = Path(__file__).resolve().parents[2]
TOKEN_INTERVAL_S = 0.02
REPLICA_PORTS = range(31_500, 31_600)
"""Away from those of a platform that somebody runs beside the bench."""
_READY_S = 120.0
_ROUTE = "bench"
_VARIANTS = {"control": 80, "candidate": 20}
_MODEL = """
apiVersion: tradewind.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: {name}}}
spec:
  source: {{uri: file:///no-weights}}
  engine: {{args: {{maxModelLen: 65536}}}}
  replicas: {replicas}
---"""
_REST = """
apiVersion: tradewind.dev/v1alpha1
kind: ServingCluster
metadata: {{name: default}}
spec:
  telemetry: {telemetry}
  gateway:
    replicas: {gateways}
    metricsPort: {metrics_port}
    endpoint: {{port: {port}}}
---
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata: {{name: bench}}
spec:
  model: {route}
  variants:
{variants}
  assignment: {{by: ["header:x-user-id", user, session, tenant]}}
---
apiVersion: tradewind.dev/v1alpha1
kind: Tenant
metadata: {{name: bench}}
spec: {{keys: [{{file: keys/bench}}]}}
"""
_SENTENCE = "The quick brown fox jumps over the lazy dog while the north wind carries the ships home. "


class StageFailed(Exception):
    """The platform did not come up."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many of each."""

    gateways: int = 1
    replicas: int = 1
    """Of each of the two engines."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Running gateways, which are the way in, and what the measurements need to know of them."""

    port: int
    key: str
    gateways: tuple[int, ...]
    """Process ids."""
    metrics_port: int
    """Of the first gateway; each other one's is one higher."""
    owner: int
    """Process id of whoever started all the others."""
    state: str
    """Its TRADEWIND_HOME."""

    @property
    def gateway(self) -> int:
        """Process id of the only one."""
        (only,) = self.gateways
        return only

    def now(self) -> dict[str, list[int]]:
        """Process ids as they are now: of `engines`, `gateways` and Serve's `controller`."""
        found = processes.family(self.owner, Path(self.state))
        engines = [each for name in _VARIANTS for each in processes.replicas(found, name)]
        controller = [each for each in found if processes.title(each).startswith("ray::ServeController")]
        groups = {
            "engines": engines,
            "gateways": processes.replicas(found, "gateway"),
            "controller": controller,
        }
        return {name: [each.pid for each in group] for name, group in groups.items()}


@dataclass(frozen=True, slots=True)
class Stage:
    """A running platform."""

    front: Gateway
    engine_port: int
    """Of the replica of variant `control`."""
    token: str

    def through(self, bodies: list[str], users: list[str], **shape: Any) -> Plan:
        """Requests through the gateway."""
        headers = [("authorization", f"Bearer {self.front.key}"), ("content-type", "application/json")]
        return Plan(self.front.port, CHAT_PATH, headers, bodies, users, **shape)

    def direct(self, bodies: list[str], users: list[str], **shape: Any) -> Plan:
        """The same to an engine replica on its own port, as the gateway would ask it."""
        headers = [("x-tradewind-token", self.token), ("content-type", "application/json")]
        return Plan(self.engine_port, f"/engines/control{CHAT_PATH}", headers, bodies, users, **shape)


_ONE_EACH = Scale()


def resources(port: int, metrics_port: int, telemetry: str = "{}", scale: Scale = _ONE_EACH) -> Compiled:
    """The resources above, compiled: a split by user between two models, a key, metrics."""
    variants = "\n".join(
        f"  - {{name: {name}, deployment: {name}, weight: {weight}}}" for name, weight in _VARIANTS.items()
    )
    text = "\n".join(_MODEL.format(name=name, replicas=scale.replicas) for name in _VARIANTS)
    text += _REST.format(
        port=port,
        metrics_port=metrics_port,
        route=_ROUTE,
        variants=variants,
        telemetry=telemetry,
        gateways=scale.gateways,
    )
    return compile_resources(read_documents([("bench", text)]))


def compiled(
    port: int, metrics_port: int, interval_s: float = TOKEN_INTERVAL_S, scale: Scale = _ONE_EACH
) -> Compiled:
    """The resources, with only the engines' builders exchanged."""
    result = resources(port, metrics_port, scale=scale)
    for app in result.serve_config["applications"]:
        if app["name"] in _VARIANTS:
            app["import_path"] = "tests.bench.no_work:engine"
            app["args"] = {"interval_s": interval_s}
    return result


def bodies(*, tokens: int, stream: bool, users: list[str]) -> list[str]:
    """Chat requests of about a kilobyte, one for each user."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": _SENTENCE * 9},
    ]
    body = {"model": _ROUTE, "messages": messages, "temperature": 0.7, "top_p": 0.95}
    return [json.dumps({**body, "max_tokens": tokens, "stream": stream, "user": user}) for user in users]


@contextmanager
def scratch_state() -> Iterator[Path]:
    """A state directory for one platform; gone afterwards, with what Ray wrote for it."""
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as directory:
        try:
            yield Path(directory)
        finally:
            shutil.rmtree(run_dir(Path(directory)), ignore_errors=True)


@contextmanager
def running(state: Path, root: Path, scale: Scale = _ONE_EACH) -> Iterator[Stage]:
    """Start the platform with `state` as its home; stop it at the end. `root` is the checkout."""
    with serving(state, root, lambda port, metrics: compiled(port, metrics, scale=scale)) as front:
        engine = processes.replicas(processes.family(os.getpid(), state), "control")[0]
        yield Stage(
            front=front,
            engine_port=processes.listening_port(engine, REPLICA_PORTS),
            token=(state / "internal-token").read_text().strip(),
        )


@contextmanager
def serving(state: Path, root: Path, make: Callable[[int, int], Compiled]) -> Iterator[Gateway]:
    """Start what `make` gives for the endpoint's port and the metrics'; stop it at the end."""
    os.environ[home.HOME] = str(state)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]  # telemetry as the resources have it
    # Replicas import the engine from the checkout.
    paths = [str(root), str(root / "platform"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    port = free_port(18_000)
    metrics_port = free_port(19_464)
    config = make(port, metrics_port)
    os.environ.update(config.environment)
    home.private_dir(state)
    prepare_keys(config.gateway)
    key, _ = first_key(config.gateway)
    ports = Ports(replicas=REPLICA_PORTS.start, replica_count=len(REPLICA_PORTS))
    with LocalPlatform(LocalOptions(home=state, cpus=64, ports=ports, dashboard_port=18_265)) as platform:
        platform.start(print)
        platform.apply(config.serve_config)
        _wait(platform, config, key, state)
        found = processes.family(os.getpid(), state)
        yield Gateway(
            port=port,
            key=key,
            gateways=tuple(each.pid for each in processes.replicas(found, "gateway")),
            metrics_port=metrics_port,
            owner=os.getpid(),
            state=str(state),
        )


def _wait(platform: LocalPlatform, config: Compiled, key: str, state: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        apps = platform.control.applications().values()
        if apps and all(app.ready for app in apps):
            break
        failed = [f"{app.name}: {app.message}" for app in apps if app.failed]
        if failed or time.monotonic() > deadline:
            raise StageFailed(f"the platform did not come up: {failed or list(apps)}")
        time.sleep(0.2)
    client = Client(manifests.endpoint(config), key)
    manifests.wait_until_in_force(client, config, timeout_s=60.0)
    client.close()
