"""Control groups of the nodes, one tree each, in every controller of cgroup v1."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
TREE = "tradewind-e2e"
UNIFIED = "unified"
"""Version 2 beside version 1, where runc makes groups of its own accord."""
COPIED = ("cpuset.cpus", "cpuset.mems")
"""A new cpuset is empty, and nothing may run in it."""
SHARES = 16 * 1024
"""Of all nodes together, in `cpu.shares`: a process outside has 1024, and pods are many processes."""
REMOVED_S = 10.0


def path(node: str) -> str:
    """The node's group below each controller's root."""
    return f"/{TREE}/{node}"


def missing() -> list[str]:
    """Controllers that this machine does not offer where the bed looks for them."""
    return [name for name in CONTROLLERS if not (MOUNTED / name / "tasks").exists()]


def make(node: str) -> None:
    """The node's groups, empty."""
    for controller in CONTROLLERS:
        group = MOUNTED / controller
        for part in path(node).strip("/").split("/"):
            above, group = group, group / part
            group.mkdir(exist_ok=True)
            if controller == "cpuset":
                for file in COPIED:
                    (group / file).write_text((above / file).read_text())
    (MOUNTED / "cpu" / TREE / "cpu.shares").write_text(str(SHARES))


def remove() -> None:
    """Every group of every node, whose processes have ended; what the kernel still holds after 10 s stays."""
    deadline = time.monotonic() + REMOVED_S
    while (left := _groups()) and time.monotonic() < deadline:
        for group in left:
            with suppress(OSError):
                group.rmdir()
        time.sleep(0.05)


def _groups() -> list[Path]:
    """The deepest first."""
    trees = (MOUNTED / name / TREE for name in (*CONTROLLERS, UNIFIED))
    found = [
        group for tree in trees if tree.exists() for group in (*tree.rglob("*/"), tree) if group.is_dir()
    ]
    return sorted(found, key=lambda group: -len(group.parts))
