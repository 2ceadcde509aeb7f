"""A node: containerd, kubelet, kube-proxy, and kube-router, which enforces network policies."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from pathlib import Path

import yaml

from tests.cluster.processes import ProgramEnded
from tests.e2e.bed import cgroups
from tests.e2e.bed.access import URL, Access
from tests.e2e.bed.control_plane import flags, proxy
from tests.e2e.bed.machines import Machine, MachineError
from tests.e2e.bed.plan import DNS, FIRST_SERVICE, SERVICES, Home, Node
from tests.e2e.bed.programs import Register, start_program
from tests.e2e.bed.store import PAUSE, SOCKET, settings

CNI_PROGRAMS = "/usr/lib/cni"
START_S = 60.0
GIB = 2**30
KUBELET_PORT = 10250
POLICY_SYNC = "1m"
"""Beside the changes that it watches, kube-router writes all rules again this often."""


def start_node(
    home: Home, node: Node, machine: Machine, programs: Path, access: Access, register: Register
) -> None:
    """Start all of it, until the kubelet works; the node is Ready soon after. Raises ProgramEnded."""
    folder = home.of(node.name)
    cgroups.make(node.name)
    write_network(folder / "cni", node)
    (folder / "resolv.conf").write_text("# Pods ask the cluster's own DNS.\nnameserver 127.0.0.1\n")
    (folder / "containerd.toml").write_text(containerd(folder / "cni"))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet(node, access, folder)))
    commands = {
        "containerd": ["containerd", f"--config={folder / 'containerd.toml'}"],
        "kube-proxy": [str(programs / "kube-proxy"), *flags(proxy(access, node.name, node.address))],
        "kubelet": [str(programs / "kubelet"), *flags(kubelet_flags(node, access, folder))],
    }
    for name, command in commands.items():
        register.add(start_program(machine, name, command, folder))
    register.programs[node.name, "containerd"].wait_until(machine.path(SOCKET).exists, START_S)
    _keep_kubelet(node, machine, folder, register)
    # kube-router writes whole tables: what kube-proxy puts there meanwhile is lost for good.
    register.programs[node.name, "kube-proxy"].wait_until(lambda: has_services(machine), START_S)
    router = [str(programs / "kube-router"), *flags(policies(node, access))]
    register.add(start_program(machine, "kube-router", router, folder))


def _keep_kubelet(node: Node, machine: Machine, folder: Path, register: Register) -> None:
    """Start it again until it works, as systemd does: it ends when containerd is not quite ready."""
    deadline = time.monotonic() + START_S
    while not listens(node.address, KUBELET_PORT):
        kubelet = register.programs[node.name, "kubelet"]
        if not kubelet.alive:
            register.add(start_program(machine, "kubelet", kubelet.command, folder))
        if time.monotonic() > deadline:
            raise ProgramEnded(
                f"kubelet of {node.name} was not ready within {START_S:.0f} s:\n{kubelet.tail()}"
            )
        time.sleep(0.2)


def has_services(machine: Machine) -> bool:
    """Whether kube-proxy has written its rules."""
    with suppress(MachineError):
        return f"-A KUBE-SERVICES -d {FIRST_SERVICE}/32" in machine.run(
            "iptables", "--table=nat", "--list-rules"
        )
    return False


def listens(address: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with suppress(OSError), socket.create_connection((address, port), timeout=1.0):
        return True
    return False


def containerd(network: Path) -> str:
    """Its settings on a node: those of the store, and what the kubelet needs."""
    return settings(
        f"""
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  max_concurrent_downloads = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""
    )


def write_network(folder: Path, node: Node) -> None:
    """A veth from each pod to the node; what leaves it is routed, never translated."""
    plugins = [
        {
            "type": "ptp",
            "ipMasq": False,
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/pod-addresses",
                "ranges": [[{"subnet": node.pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    folder.mkdir(exist_ok=True)
    content = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (folder / "10-pods.conflist").write_text(json.dumps(content, indent=1))


def kubelet(node: Node, access: Access, folder: Path) -> dict[str, object]:
    """Its configuration: the pods of this node share what the plan gives them of the machine's memory."""
    reserved = max(0, int(total_memory() - node.memory_gib * GIB))
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(access.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(access.certificate(f"{node.name}-serving")),
        "tlsPrivateKeyFile": str(access.key(f"{node.name}-serving")),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.path(node.name),
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 8,
        "syncFrequency": "10s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "serializeImagePulls": False,
        "systemReserved": {"memory": str(reserved)},
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 60,
        "shutdownGracePeriod": "0s",
        "volumePluginDir": str(folder / "plugins"),
    }


def kubelet_flags(node: Node, access: Access, folder: Path) -> dict[str, object]:
    labels = ",".join(f"{key}={value}" for key, value in node.labels.items())
    chosen = {"node-labels": labels, "register-with-taints": node.taint}
    return {
        "config": folder / "kubelet.yaml",
        "kubeconfig": access.kubeconfig(node.name),
        "hostname-override": node.name,
        "node-ip": node.address,
        "v": 1,
        **{name: value for name, value in chosen.items() if value},
    }


def policies(node: Node, access: Access) -> dict[str, object]:
    return {
        "run-firewall": "true",
        "run-router": "false",
        "run-service-proxy": "false",
        "run-loadbalancer": "false",
        "kubeconfig": access.kubeconfig("policies"),
        "master": URL,
        "hostname-override": node.name,
        "service-cluster-ip-range": SERVICES,
        "iptables-sync-period": POLICY_SYNC,
        "health-port": 0,
    }


def total_memory() -> int:
    """Bytes that this machine has."""
    line = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    return int(line.split()[1]) * 1024
