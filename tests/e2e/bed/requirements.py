"""What the test bed needs of the machine it runs on, and where its programs come from."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from tests.e2e.bed import cgroups
from tests.e2e.bed.images import say
from tests.e2e.bed.machines import MachineError, run
from tools import cluster_binaries

DEBIAN = {
    "buildah": "buildah",
    "catatonit": "catatonit",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "ipset": "ipset",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "runc": "runc",
    "sysctl": "procps",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
}
"""Program to the Debian package that it is in."""
OTHERWISE = "Otherwise: KUBECONFIG, of any cluster that tests may change (kind, minikube)."


def check_machine() -> None:
    """Install Debian packages that are missing. Raises MachineError where the bed cannot run."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise MachineError(f"The test bed needs Linux and root, for namespaces and mounts. {OTHERWISE}")
    if absent := cgroups.missing():
        raise MachineError(
            f"The test bed needs control groups of version 1: no {', '.join(absent)} below "
            f"{cgroups.MOUNTED}. {OTHERWISE}"
        )
    missing = sorted({package for program, package in DEBIAN.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise MachineError(f"The test bed needs {', '.join(missing)}. {OTHERWISE}")
    say(f"apt-get install {' '.join(missing)}")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*environment, "apt-get", "update", "-qq"])
    run([*environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])


def programs() -> Path:
    """The directory with kube-apiserver, kubelet and the rest, built when missing. Raises MachineError."""
    try:
        return cluster_binaries.obtain_cluster()
    except cluster_binaries.BinariesError as error:
        raise MachineError(str(error)) from error
