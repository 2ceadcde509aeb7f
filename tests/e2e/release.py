"""A release of the chart on the cluster, with this checkout's images, and a way to ask what it serves."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from helm_python import Config

from tests.e2e.bed.images import say
from tests.e2e.bed.machines import MachineError
from tests.e2e.bed.plan import ENGINE_LABEL
from tests.e2e.site import Data, Site
from tests.golden.chart.rendering import ROOT, copy_with_kuberay

NAME = "tradewind"
NAMESPACE = "tradewind"
KEY_SECRET = "tradewind-test-key"
MODEL = ROOT / "examples" / "cluster-cpu.yaml"
PORT = 8000
IMAGES = {"operator": "operator", "gateway": "gateway", "engineCpu": "engine-cpu"}
"""Key of the chart's values to the image."""


def values(site: Site) -> Data:
    """The chart's defaults, with this checkout's images and pods that fit on nodes of 2 CPUs."""
    engines = {
        "cpus": 1.5,
        "memory": "5Gi",
        "maxNodes": 2,
        "nodeSelector": {ENGINE_LABEL: "engines"},
        "tolerations": [{"key": ENGINE_LABEL, "operator": "Exists"}],
    }
    spec = {"head": {"cpus": 0.5, "memory": "3Gi"}, "gateway": {"cpus": 0.5}, "pools": {"cpu": engines}}
    return {
        "kuberay": {"enabled": False},
        "cluster": {"spec": spec},
        **{key: {"image": _image(site.image(name))} for key, name in IMAGES.items()},
    }


def _image(reference: str) -> dict[str, str]:
    registry, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    return {"registry": registry, "repository": repository, "tag": tag}


@dataclass
class Phases:
    """What came when, in seconds since the beginning; each is printed as it comes."""

    started: float = field(default_factory=time.monotonic)
    at: dict[str, float] = field(default_factory=dict)

    def reached(self, name: str) -> None:
        """Note it."""
        self.at[name] = time.monotonic() - self.started
        say(f"{self.at[name]:6.1f} s  {name}")


@dataclass(frozen=True)
class Release:
    """A release that is installed in its namespace."""

    site: Site
    helm: Config
    key: str

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """In its namespace. Raises MachineError."""
        return self.site.kubectl(f"--namespace={NAMESPACE}", *arguments, given=given)

    def wait_ready(self, what: str, timeout_s: int) -> None:
        """Until its condition Ready is true. Raises MachineError with how everything is."""
        try:
            self.kubectl("wait", "--for=condition=Ready", f"--timeout={timeout_s}s", what)
        except MachineError as error:
            shown = self.kubectl("get", "scl,md,mr,tn,pods", "--output=wide")
            raise MachineError(f"{error}\n{shown}") from error

    def url(self) -> str:
        """Of the endpoint's Service, which the bed's machine reaches by address."""
        service = self.site.get("service", "default", f"--namespace={NAMESPACE}")
        return f"http://{service['spec']['clusterIP']}:{PORT}"

    def first_token_s(self, question: str) -> tuple[float, str]:
        """Seconds until the first streamed token, and the whole answer. Raises httpx's HTTPError."""
        body = {
            "model": "chat",
            "max_tokens": 16,
            "stream": True,
            "messages": [{"role": "user", "content": question}],
        }
        headers = {"authorization": f"Bearer {self.key}"}
        started, first, lines = time.monotonic(), 0.0, []
        url = f"{self.url()}/v1/chat/completions"
        ask: dict[str, Any] = {"json": body, "headers": headers, "timeout": 60, "trust_env": False}
        with httpx.stream("POST", url, **ask) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                first = first or time.monotonic() - started
                lines.append(line)
        return first, "\n".join(lines)


@contextmanager
def installed(site: Site, folder: Path, phases: Phases) -> Iterator[Release]:
    """Install the chart by what the tutorial says; take everything away at the end."""
    site.kubectl("create", "namespace", NAMESPACE)
    helm = Config(kubeconfig_path=site.kubectl.kubeconfig, namespace=NAMESPACE)
    release = Release(site, helm, f"tw-{secrets.token_hex(32)}")
    try:
        helm.install(copy_with_kuberay(folder), NAME, values(site), namespace=NAMESPACE)
        phases.reached("helm install returned")
        secret = ("create", "secret", "generic", KEY_SECRET, f"--from-literal=key={release.key}")
        release.kubectl(*secret)
        yield release
    finally:
        with suppress(MachineError):
            release.kubectl("delete", "md,mr,tn,scl", "--all", "--timeout=120s")
        helm.uninstall(NAME, ignore_not_found=True)
        site.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")
