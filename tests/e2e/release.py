"""A release of the chart on the cluster, with this checkout's images, and ways to ask what it serves."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from helm_python import Config

from tests.e2e.bed.images import say
from tests.e2e.bed.machines import MachineError
from tests.e2e.bed.plan import ENGINE_LABEL, HOST
from tests.e2e.forwards import Forwards, forwarding
from tests.e2e.pods import Pod
from tests.e2e.recorder import Record, recording
from tests.e2e.site import Data, Site
from tests.fakes.otlp import OtlpCollector, otlp_collector
from tests.golden.chart.rendering import ROOT, copy_with_kuberay

NAME = "tradewind"
NAMESPACE = "tradewind"
KEY_SECRET = "tradewind-test-key"
MODEL = ROOT / "examples" / "cluster-cpu.yaml"
PORT = 8000
OTLP_PORT = 4318
IMAGES = {"operator": "operator", "gateway": "gateway", "engineCpu": "engine-cpu"}
"""Key of the chart's values to the image."""
KEEP = "TRADEWIND_E2E_KEEP"
"""Set while writing tests, beside `make cluster-up`: the release outlives a run."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def values(site: Site) -> Data:
    """The chart's defaults with this checkout's images; all pods but engines fit on one node of 2 CPUs."""
    engines: Data = {"cpus": 1.5, "memory": "5Gi", "maxNodes": 2}
    if site.bed is not None:
        engines |= {
            "nodeSelector": {ENGINE_LABEL: "engines"},
            "tolerations": [{"key": ENGINE_LABEL, "operator": "Exists"}],
            # A volume for all of them: only the first has weights to fetch.
            "cache": {"storageClassName": "standard"},
        }
    otlp = {} if site.bed is None else {"otlp": {"endpoint": f"http://{HOST}:{OTLP_PORT}"}}
    spec = {"head": {"cpus": 0.5, "memory": "3Gi"}, "gateway": {"cpus": 0.3}, "pools": {"cpu": engines}}
    return {
        "kuberay": {"enabled": False},
        "allowedImages": [f"{site.image('engine-cpu').partition('/')[0]}/"],
        "cluster": {"spec": spec},
        **otlp,
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
class Condition:
    """A condition of an object's status; `status` is empty where there is none."""

    status: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Release:
    """A release that is installed in its namespace."""

    site: Site
    helm: Config
    key: str
    chart: Path
    record: Record
    forwards: Forwards
    collector: OtlpCollector | None
    """What its pods export to; pods of a given cluster do not reach this machine."""
    namespace: str = NAMESPACE

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """In its namespace. Raises MachineError."""
        return self.site.kubectl(f"--namespace={self.namespace}", *arguments, given=given)

    def apply(self, *objects: Data) -> None:
        """Objects of its namespace. Raises MachineError with what the API server said."""
        content = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", given=json.dumps(content))

    def patch(self, what: str, content: Data) -> None:
        """A merge patch of `kind/name`. Raises MachineError."""
        self.kubectl("patch", what, "--type=merge", f"--patch={json.dumps(content)}")

    def get(self, *what: str) -> Data:
        """An object, or a list. Raises MachineError."""
        return self.site.get(*what, f"--namespace={self.namespace}")

    def condition(self, what: str, kind: str = "Ready") -> Condition:
        """As `kind/name` has it now."""
        for each in self.get(what).get("status", {}).get("conditions", []):
            if each["type"] == kind:
                return Condition(each["status"], each["reason"], each["message"])
        return Condition()

    def pods(self, role: str) -> list[Data]:
        """Those of "head", "gateway" or "engine" that are not on their way out."""
        found = self.get("pods", f"--selector=tradewind.dev/role={role}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self, role: str) -> list[Data]:
        """Those whose containers are all ready."""
        return [pod for pod in self.pods(role) if _is_ready(pod)]

    def own_pod(self, role: str) -> Pod:
        """One of them, to run something in."""
        return Pod(self.site, self.namespace, self.ready_pods(role)[0]["metadata"]["name"])

    def ray_clusters(self) -> set[str]:
        """Names of the RayClusters that there are."""
        return {each["metadata"]["name"] for each in self.get("rayclusters")["items"]}

    def approve_upgrade(self, value: str | None) -> None:
        """Set or take away the annotation that approves a second Ray cluster."""
        self.patch("scl/default", {"metadata": {"annotations": {"tradewind.dev/approve-upgrade": value}}})

    def wait_ready(self, what: str, timeout_s: int) -> None:
        """Until its condition Ready is true. Raises MachineError with how everything is."""
        try:
            self.kubectl("wait", "--for=condition=Ready", f"--timeout={timeout_s}s", what)
        except MachineError as error:
            raise MachineError(f"{error}\n{self.shown()}") from error

    def shown(self) -> str:
        """How everything is, for a person."""
        objects = self.kubectl("get", "scl,md,mr,tn,rayclusters,pods", "--output=wide")
        warnings = self.kubectl("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
        return "\n".join([objects, *warnings.splitlines()[-20:]])

    def wait(self, what: str, true: Callable[[], bool], timeout_s: float) -> float:
        """Seconds until `true`, which may fail meanwhile. Raises AssertionError with how everything is."""
        started = time.monotonic()
        while True:
            with suppress(MachineError, httpx.HTTPError, KeyError):
                if true():
                    return time.monotonic() - started
            waited = time.monotonic() - started
            assert waited < timeout_s, f"not within {timeout_s:.0f} s: {what}\n{self.shown()}"
            time.sleep(0.1)

    def url(self) -> str:
        """Of the endpoint's Service, which the bed's machine reaches by address."""
        if self.site.bed is None:
            return self.forwards.url("service/default", PORT)
        return f"http://{self.get('service', 'default')['spec']['clusterIP']}:{PORT}"

    def gateways(self) -> list[str]:
        """The URL of each gateway that is ready."""
        pods = self.ready_pods("gateway")
        if self.site.bed is None:
            return [self.forwards.url(f"pod/{pod['metadata']['name']}", PORT) for pod in pods]
        return [f"http://{pod['status']['podIP']}:{PORT}" for pod in pods]

    def ask(
        self, url: str = "", *, key: str = "", model: str = "chat", tokens: int = 4, **headers: str
    ) -> httpx.Response:
        """One answer, whole. Raises httpx's HTTPError where there is none."""
        body = {
            "model": model,
            "max_tokens": tokens,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
        headers = {"authorization": f"Bearer {key or self.key}", **headers}
        return httpx.post(
            f"{url or self.url()}/v1/chat/completions",
            json=body,
            headers=headers,
            timeout=60,
            trust_env=False,
        )

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


def _is_ready(pod: Data) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextmanager
def installed(site: Site, folder: Path, phases: Phases) -> Iterator[Release]:
    """Install the chart, in pods that fit on the nodes; take everything away at the end.

    With `TRADEWIND_E2E_KEEP` it stays, and the next run goes on with it.
    """
    keep = bool(os.environ.get(KEEP))
    kept = _key(site) if keep else ""
    helm = Config(kubeconfig_path=site.kubectl.kubeconfig, namespace=NAMESPACE)
    chart = copy_with_kuberay(folder)
    try:
        if not kept:
            _install(site, helm, chart, phases)
        with (
            recording(site, NAMESPACE) as record,
            forwarding(site.kubectl, NAMESPACE) as forwards,
            _collecting(site) as collector,
        ):
            key = kept or f"tw-{secrets.token_hex(32)}"
            release = Release(site, helm, key, chart, record, forwards, collector)
            if not kept:
                secret = ("create", "secret", "generic", KEY_SECRET, f"--from-literal=key={release.key}")
                release.kubectl(*secret)
            yield release
    finally:
        if not keep:
            _take_away(site, helm)


@contextmanager
def _collecting(site: Site) -> Iterator[OtlpCollector | None]:
    if site.bed is None:
        yield None
    else:
        with otlp_collector(HOST, OTLP_PORT) as collector:
            yield collector


def _install(site: Site, helm: Config, chart: Path, phases: Phases) -> None:
    namespace = {"metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
    site.kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", **namespace}))
    helm.install(chart, NAME, values(site), namespace=NAMESPACE)
    phases.reached("helm install returned")


def _take_away(site: Site, helm: Config) -> None:
    with suppress(MachineError):
        here = f"--namespace={NAMESPACE}"
        site.kubectl("delete", here, "configmap", "tradewind-cluster", "--ignore-not-found")
        site.kubectl("delete", here, "md,mr,tn,scl", "--all", "--timeout=180s")
        site.kubectl("wait", here, "--for=delete", "pod", "--selector=ray.io/cluster", "--timeout=180s")
    helm.uninstall(NAME, ignore_not_found=True)
    site.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s", "--ignore-not-found")


def _key(site: Site) -> str:
    """The key of a release that was kept; empty where there is none."""
    try:
        data = site.get("secret", KEY_SECRET, f"--namespace={NAMESPACE}")["data"]
    except MachineError:
        return ""
    return base64.b64decode(data["key"]).decode()
