"""The control plane: etcd, API server, controller manager, scheduler; kube-proxy is for this machine."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tests.cluster import audit
from tests.e2e.bed.access import URL, Access
from tests.e2e.bed.machines import Machine
from tests.e2e.bed.plan import API, API_PORT, CONTROL_PLANE, PODS, SERVICES, Home
from tests.e2e.bed.programs import Program, Register, start_program

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
START_S = 90.0
ISSUER = "https://kubernetes.default.svc.cluster.local"
GRACE_S = 20
"""How long a node may be silent before it counts as lost; kubelets speak every 4 s."""


def flags(values: Mapping[str, object]) -> list[str]:
    """`--name=value` of each."""
    return [f"--{name}={value}" for name, value in values.items()]


def start_control_plane(
    home: Home, machine: Machine, programs: Path, access: Access, register: Register
) -> None:
    """Start all of it, until the API server is ready. Raises ProgramEnded."""
    folder = home.of(CONTROL_PLANE)
    (folder / "audit-policy.yaml").write_text(audit.POLICY)

    def start(name: str, command: Sequence[str]) -> Program:
        program = start_program(machine, name, command, folder)
        register.add(program)
        return program

    start("etcd", [str(programs / "etcd"), *flags(etcd(folder)), "--unsafe-no-fsync"])
    server = start("kube-apiserver", [str(programs / "kube-apiserver"), *flags(api_server(home, access))])
    server.wait_until(lambda: ready(access), START_S)
    manager = [str(programs / "kube-controller-manager"), *flags(controller_manager(access))]
    start("kube-controller-manager", manager)
    start("kube-scheduler", [str(programs / "kube-scheduler"), *flags(scheduler(access))])
    start("kube-proxy", [str(programs / "kube-proxy"), *flags(proxy(access, CONTROL_PLANE, API))])


def ready(access: Access) -> bool:
    """Whether the API server says so, asked as its admin."""
    context = ssl.create_default_context(cafile=access.authority)
    context.load_cert_chain(access.certificate("admin"), access.key("admin"))
    with suppress(httpx.TransportError), httpx.Client(verify=context, trust_env=False) as probe:
        return probe.get(f"{URL}/readyz", timeout=2.0).status_code == httpx.codes.OK
    return False


def etcd(folder: Path) -> dict[str, object]:
    return {
        "data-dir": folder / "etcd",
        "listen-client-urls": ETCD,
        "advertise-client-urls": ETCD,
        "listen-peer-urls": ETCD_PEER,
        "initial-advertise-peer-urls": ETCD_PEER,
        "initial-cluster": f"default={ETCD_PEER}",
    }


def api_server(home: Home, access: Access) -> dict[str, object]:
    return {
        "etcd-servers": ETCD,
        "bind-address": "0.0.0.0",
        "advertise-address": API,
        "secure-port": API_PORT,
        "service-cluster-ip-range": SERVICES,
        "tls-cert-file": access.certificate("api"),
        "tls-private-key-file": access.key("api"),
        "client-ca-file": access.authority,
        "service-account-key-file": access.key("service-accounts"),
        "service-account-signing-key-file": access.key("service-accounts"),
        "service-account-issuer": ISSUER,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "kubelet-client-certificate": access.certificate("kubelet-client"),
        "kubelet-client-key": access.key("kubelet-client"),
        "kubelet-certificate-authority": access.authority,
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": access.authority,
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": access.certificate("front-proxy"),
        "proxy-client-key-file": access.key("front-proxy"),
        "enable-aggregator-routing": "true",
        "audit-policy-file": home.of(CONTROL_PLANE) / "audit-policy.yaml",
        "audit-log-path": home.audit_log,
        # In megabytes: one file for the whole life of the cluster.
        "audit-log-maxsize": 4096,
        "allow-privileged": "true",
        # A lost node's pods go after these seconds, unless they tolerate more; usually 300.
        "default-not-ready-toleration-seconds": 15,
        "default-unreachable-toleration-seconds": 15,
    }


def controller_manager(access: Access) -> dict[str, object]:
    return {
        **_client("controller-manager", access),
        "use-service-account-credentials": "true",
        "service-account-private-key-file": access.key("service-accounts"),
        "root-ca-file": access.authority,
        "cluster-signing-cert-file": access.authority,
        "cluster-signing-key-file": access.key("ca"),
        "allocate-node-cidrs": "false",
        "node-monitor-period": "2s",
        "node-monitor-grace-period": f"{GRACE_S}s",
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "horizontal-pod-autoscaler-sync-period": "5s",
    }


def scheduler(access: Access) -> dict[str, object]:
    return {**_client("scheduler", access), "kube-api-qps": 200, "kube-api-burst": 400}


def proxy(access: Access, name: str, address: str) -> dict[str, object]:
    """kube-proxy of the machine `name`; the nodes have one each."""
    return {
        "kubeconfig": access.kubeconfig("proxy"),
        "hostname-override": name,
        "bind-address": address,
        "cluster-cidr": PODS,
        "proxy-mode": "iptables",
        # They are the whole computer's, which the cluster only borrows.
        "conntrack-max-per-core": 0,
        "conntrack-min": 0,
        "conntrack-tcp-timeout-established": 0,
        "conntrack-tcp-timeout-close-wait": 0,
        "iptables-min-sync-period": "100ms",
    }


def _client(name: str, access: Access) -> dict[str, object]:
    file = access.kubeconfig(name)
    return {
        "kubeconfig": file,
        "authentication-kubeconfig": file,
        "authorization-kubeconfig": file,
        "leader-elect": "false",
    }
