"""The Pod Security Standard *restricted*, which includes *baseline*, as a table.

Written from https://kubernetes.io/docs/concepts/security/pod-security-standards/, not from the builders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Data = dict[str, Any]

_VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS: set[str] = set()


def _context(of: Data) -> Data:
    return of.get("securityContext") or {}


def _effective(pod: Data, container: Data, key: str) -> Any:
    own = _context(container).get(key)
    return own if own is not None else _context(pod).get(key)


POD_RULES: dict[str, Callable[[Data], bool]] = {
    "host namespaces": lambda pod: not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "volume types": lambda pod: all(
        set(volume) - {"name"} <= _VOLUME_TYPES for volume in pod.get("volumes", ())
    ),
    "host users and processes": lambda pod: not _context(pod).get("windowsOptions"),
    "sysctls": lambda pod: {entry["name"] for entry in _context(pod).get("sysctls", ())} <= _SYSCTLS,
    "supplemental SELinux options": lambda pod: not _context(pod).get("seLinuxOptions"),
}
CONTAINER_RULES: dict[str, Callable[[Data, Data], bool]] = {
    "privileged": lambda _, container: not _context(container).get("privileged"),
    "privilege escalation": lambda _, container: _context(container).get("allowPrivilegeEscalation") is False,
    "capabilities dropped": lambda _, container: (
        "ALL" in (_context(container).get("capabilities") or {}).get("drop", ())
    ),
    "capabilities added": lambda _, container: (
        set((_context(container).get("capabilities") or {}).get("add", ())) <= {"NET_BIND_SERVICE"}
    ),
    "host ports": lambda _, container: not any(port.get("hostPort") for port in container.get("ports", ())),
    "proc mount": lambda _, container: _context(container).get("procMount", "Default") == "Default",
    "running as non-root": lambda pod, container: _effective(pod, container, "runAsNonRoot") is True,
    "user other than 0": lambda pod, container: _effective(pod, container, "runAsUser") != 0,
    "seccomp": lambda pod, container: (
        (_effective(pod, container, "seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
    ),
    "host probes": lambda _, container: (
        not any(
            "host" in ((container.get(probe) or {}).get("httpGet") or {})
            for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        )
    ),
}


def violations(pod: Data) -> list[str]:
    """What a pod's spec has against the standard."""
    return list(_violations(pod))


def _violations(pod: Data) -> Iterator[str]:
    for rule, holds in POD_RULES.items():
        if not holds(pod):
            yield rule
    kinds = ("initContainers", "containers", "ephemeralContainers")
    for container in (one for kind in kinds for one in pod.get(kind, ())):
        for name, fits in CONTAINER_RULES.items():
            if not fits(pod, container):
                yield f"{container['name']}: {name}"
