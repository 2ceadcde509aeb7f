"""What a cluster has beside Kubernetes itself: DNS, a StorageClass, KubeRay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.e2e.bed.kubectl import Kubectl
from tests.e2e.bed.plan import Home
from tools.cluster_binaries import DEFINITIONS, ROLE

MANIFESTS = Path(__file__).parent / "manifests"
READY_S = 90


def install_addons(kubectl: Kubectl, home: Home, programs: Path) -> None:
    """Apply all of it; the pods may still be on their way. Raises MachineError."""
    home.volumes.mkdir(parents=True, exist_ok=True)
    script = {"volumes.py": (MANIFESTS / "volumes.py").read_text()}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "volumes", "namespace": "kube-system"},
        "data": script,
    }
    volumes = (MANIFESTS / "volumes.yaml").read_text().replace("VOLUMES", str(home.volumes))
    kubectl.apply(yaml.safe_dump(config))
    for text in ((MANIFESTS / "policies.yaml").read_text(), (MANIFESTS / "dns.yaml").read_text(), volumes):
        kubectl.apply(text)
    definitions = sorted((programs / DEFINITIONS).glob("*.yaml"))
    for file in definitions:
        kubectl.apply(file.read_text())
    kubectl.apply((programs / ROLE).read_text())
    names = [f"crd/{_name(file)}" for file in definitions]
    kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    kubectl.apply((MANIFESTS / "kuberay.yaml").read_text())


def wait_until_ready(kubectl: Kubectl, nodes: int) -> None:
    """Return once every node is Ready and every addon works. Raises MachineError."""
    ready = ["wait", "--for=condition=Ready", f"--timeout={READY_S}s"]
    kubectl.until(
        lambda: len(kubectl("get", "nodes", "--output=name").split()) == nodes, READY_S, "all nodes"
    )
    kubectl(*ready, "node", "--all")
    for namespace, names in (
        ("kube-system", ("coredns", "volumes")),
        ("kuberay-system", ("kuberay-operator",)),
    ):
        for name in names:
            kubectl(
                f"--namespace={namespace}", "rollout", "status", f"--timeout={READY_S}s", f"deployment/{name}"
            )


def _name(definition: Path) -> str:
    content: dict[str, Any] = yaml.load(definition.read_text(), Loader=yaml.CSafeLoader)
    return str(content["metadata"]["name"])
