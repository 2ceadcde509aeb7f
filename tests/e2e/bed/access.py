"""Who is who in the cluster: certificates of its parts, and kubeconfigs that show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.authority import Authority, new_key, pem
from tests.cluster.cluster import write_kubeconfig
from tests.e2e.bed.plan import API, API_PORT, FIRST_SERVICE, NODES, Home, Node

URL = f"https://{API}:{API_PORT}"
MASTERS = "system:masters"
ADMIN = "tradewind-e2e"
API_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
PARTS = {
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    "policies": ("kube-router", ()),
    "kubelet-client": ("kube-apiserver-kubelet-client", (MASTERS,)),
    "front-proxy": ("front-proxy", ()),
}
"""File name to the user, and his groups, as who a part of the cluster works."""


@dataclass(frozen=True)
class Access:
    """Certificates in `folder`, made for one run of the cluster."""

    folder: Path

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        return self.folder / f"{name}.kubeconfig"

    @property
    def authority(self) -> Path:
        return self.certificate("ca")


def grant(home: Home) -> Access:
    """Make every certificate and kubeconfig of the cluster, the admin's too."""
    home.certificates.mkdir(parents=True, exist_ok=True)
    authority, access = Authority(home.certificates), Access(home.certificates)
    access.key("service-accounts").write_bytes(pem(new_key()))
    authority.serving("api", API_NAMES, addresses=(API, FIRST_SERVICE, "127.0.0.1"))
    users = {**PARTS, **{node.name: node_user(node) for node in NODES}, "admin": (ADMIN, (MASTERS,))}
    place = {"server": URL, "certificate-authority": str(authority.certificate)}
    for name, (user, groups) in users.items():
        certificate, key = authority.user(name, user, groups)
        identity = {"client-certificate": str(certificate), "client-key": str(key)}
        write_kubeconfig(access.kubeconfig(name), place, identity)
    for node in NODES:
        authority.serving(f"{node.name}-serving", (node.name,), addresses=(node.address,))
    write_kubeconfig(home.admin, place, identity)
    return access


def node_user(node: Node) -> tuple[str, tuple[str, ...]]:
    """The name and group by which the Node authorizer and NodeRestriction know a kubelet."""
    return f"system:node:{node.name}", ("system:nodes",)
