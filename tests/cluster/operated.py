"""The real operator as a process of its own, as the chart runs it.

It is the chart's service account with the chart's roles, started by the chart's command line on the chart's
settings; only addresses are those of this machine, and times are shorter where a test says so.

    with site(api, kuberay) as place:
        with place.operator(resyncSeconds=2) as operator:
            place.objects.apply(model("llama"))
            operator.kill()
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml
from kubernetes import client as k8s
from kubernetes import utils

from tests.cluster.apiserver import free_port, implied_groups
from tests.cluster.cluster import LOOPBACK, Cluster
from tests.cluster.definitions import put
from tests.cluster.kuberay import KubeRay, definitions
from tests.cluster.objects import Objects, wait_for
from tests.cluster.processes import Program, Programs
from tests.cluster.ray import Data, RayCluster
from tests.golden.chart.rendering import ROOT, render
from tradewind.api.resources import KINDS
from tradewind.schema.crds import crd

ACCOUNT = "tradewind-operator"
READY_S = 60.0
SETTINGS_FILE = "/etc/tradewind/operator/settings.yaml"
PYTHONPATH = os.pathsep.join(str(ROOT / part) for part in ("platform", "operators"))


def install(kube: k8s.ApiClient) -> None:
    """Every definition that the operator needs."""
    put(kube, [*(crd(kind) for kind in KINDS), *definitions()])


@dataclass(frozen=True)
class Operator:
    """One process of it."""

    program: Program
    url: str

    @property
    def pid(self) -> int:
        return self.program.process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.program.process.poll()

    @property
    def log(self) -> str:
        """Everything that it and those before it printed."""
        return self.program.log.read_text(errors="replace")

    def answer(self, path: str) -> tuple[int, str]:
        """Status and text of /healthz, /readyz or /metrics; 0 where nobody listens."""
        try:
            answer = httpx.get(self.url + path, timeout=5.0, trust_env=False)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def leads(self) -> bool:
        """It is this one that works."""
        return "tradewind_operator_leader 1.0" in self.answer("/metrics")[1]

    def wait_until_ready(self, timeout_s: float = READY_S) -> None:
        """Raises ProgramEnded."""
        self.program.wait_until(lambda: self.answer("/readyz")[0] == 200, timeout_s)

    def memory_mb(self) -> float:
        """The most that it ever had resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024

    def kill(self) -> None:
        """As a crash or a lost node ends it: nothing is given up."""
        self.program.kill()

    def stop(self, timeout_s: float = 15.0) -> int:
        """As the kubelet ends it. Returns its exit code."""
        self.program.send(signal.SIGTERM)
        return self.program.process.wait(timeout_s)


@dataclass(frozen=True)
class Site:
    """A namespace with a release of the chart in it, and nobody at work yet."""

    api: Cluster
    kuberay: KubeRay
    namespace: str
    objects: Objects
    home: Path
    programs: Programs

    @property
    def user(self) -> str:
        """The operator's."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    def ray(self, cluster: str = "default") -> RayCluster | None:
        """The Ray cluster that serves, by the ServingCluster's status; None where there is none."""
        name = self.objects.status("ServingCluster", cluster).get("rayCluster")
        return self.kuberay.ray(self.namespace, name) if name is not None else None

    def apps(self, cluster: str = "default") -> dict[str, Data]:
        """Applications that Serve was given last there, by name."""
        ray = self.ray(cluster)
        config = (ray.config if ray is not None else None) or {"applications": []}
        return {app["name"]: app for app in config["applications"]}

    def weights(self, model: str, cluster: str = "default") -> dict[str, int]:
        """Weights in a route, by deployment, as the gateways were given it last; empty: no route."""
        routes = self._gateway(cluster).get("routes") or ()
        variants = next((entry["variants"] for entry in routes if entry["model"] == model), ())
        return {variant["deployment"]: variant.get("weight", 1) for variant in variants}

    def key_hashes(self, tenant: str, cluster: str = "default") -> set[str]:
        """Of a tenant's keys, as the gateways were given them last; empty: nobody knows the tenant there."""
        tenants = self._gateway(cluster).get("tenants") or ()
        return {digest for entry in tenants if entry["name"] == tenant for digest in entry["key_hashes"]}

    def _gateway(self, cluster: str) -> Data:
        gateway = self.apps(cluster).get("gateway")
        config: Data = gateway["deployments"][0]["user_config"] if gateway is not None else {}
        return config

    @contextmanager
    def operator(
        self, *, kubeconfig: Path | None = None, env: dict[str, str] | None = None, **settings: Any
    ) -> Iterator[Operator]:
        """An operator that runs until the context ends, at the latest; it may not be ready yet.

        Args:
            kubeconfig: another than that of the service account.
            env: environment on top of ours.
            settings: over those of the chart, in camelCase.
        """
        operator = self.start(kubeconfig=kubeconfig, env=env, **settings)
        try:
            yield operator
        finally:
            operator.kill()

    def start(
        self, *, kubeconfig: Path | None = None, env: dict[str, str] | None = None, **settings: Any
    ) -> Operator:
        """As `operator`, for the caller to end."""
        port = free_port()
        here = {
            "kubeconfig": str(kubeconfig or self.api.kubeconfig(self.user)),
            "namespace": self.namespace,
            "healthHost": LOOPBACK,
            "healthPort": port,
            "serveApiUrl": self.kuberay.url + "/{namespace}/{cluster}/head",
            "gatewayUrl": self.kuberay.url + "/{namespace}/{cluster}/gateway",
        }
        written = chart_settings(self.namespace)
        for key, value in {**here, **settings}.items():
            written[key] = written[key] | value if isinstance(value, dict) else value
        file = self.home / f"settings-{port}.yaml"
        file.write_text(yaml.safe_dump(written))
        variables = {"PYTHONPATH": PYTHONPATH, "PYTHONUNBUFFERED": "1", **(env or {})}
        command = ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]
        module = [sys.executable, "-m", "tradewind_operator.main"]
        arguments = [str(file) if part == SETTINGS_FILE else part for part in chart_arguments()]
        return Operator(self.programs.start([*command, *module, *arguments]), f"http://{LOOPBACK}:{port}")


def chart_settings(namespace: str) -> Data:
    """What the chart writes into the ConfigMap."""
    config = yaml.safe_load(render(namespace=namespace)["templates/operator/configmap.yaml"])
    settings: Data = yaml.safe_load(config["data"]["settings.yaml"])
    return settings


@cache
def chart_arguments() -> tuple[str, ...]:
    """What follows the operator's name on the command line."""
    deployment = yaml.safe_load(render()["templates/operator/deployment.yaml"])
    return tuple(deployment["spec"]["template"]["spec"]["containers"][0]["args"])


def chart_rules(namespace: str) -> list[Data]:
    """All that the chart's roles let the operator do."""
    documents = yaml.safe_load_all(render(namespace=namespace)["templates/operator/rbac.yaml"])
    return [
        rule
        for document in documents
        if document["kind"] in ("Role", "ClusterRole")
        for rule in document["rules"]
    ]


@contextmanager
def site(api: Cluster, kuberay: KubeRay) -> Iterator[Site]:
    """A namespace of its own, with the chart's service account and roles, gone afterwards."""
    namespace, home = f"t-{secrets.token_hex(4)}", Path(tempfile.mkdtemp(prefix="tradewind-operator-"))
    with api.client() as client:
        core: Any = k8s.CoreV1Api(client)
        core.create_namespace({"metadata": {"name": namespace}})
        _allow(client, namespace)
        objects, programs = Objects(client, namespace), Programs(home)
        try:
            yield Site(api, kuberay, namespace, objects, home, programs)
        finally:
            programs.kill_all()
            core.delete_namespace(namespace)
            _take_back(client, namespace)
            objects.let_go()
            shutil.rmtree(home, ignore_errors=True)


def _grants(namespace: str) -> list[Data]:
    """The chart's service account, its roles and their bindings."""
    texts = render(namespace=namespace)
    documents = [
        document
        for template in ("serviceaccount", "rbac")
        for document in yaml.safe_load_all(texts[f"templates/operator/{template}.yaml"])
    ]
    return [document for document in documents if document]


def _take_back(client: k8s.ApiClient, namespace: str) -> None:
    """What has no namespace does not go with it."""
    roles: Any = k8s.RbacAuthorizationV1Api(client)
    delete = {
        "ClusterRole": roles.delete_cluster_role,
        "ClusterRoleBinding": roles.delete_cluster_role_binding,
    }
    for document in _grants(namespace):
        if document["kind"] in delete:
            delete[document["kind"]](document["metadata"]["name"])


def _allow(client: k8s.ApiClient, namespace: str) -> None:
    """The chart's service account and roles, in force."""
    for document in _grants(namespace):
        utils.create_from_dict(client, document)
    user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
    review = {
        "spec": {
            "user": user,
            "groups": list(implied_groups(user)),
            "resourceAttributes": {
                "namespace": namespace,
                "verb": "create",
                "group": "coordination.k8s.io",
                "resource": "leases",
            },
        }
    }
    reviews: Any = k8s.AuthorizationV1Api(client)
    # A role is effective a moment after it is stored.
    wait_for(lambda: reviews.create_subject_access_review(review).status.allowed, "roles effective")
