"""Volumes that a platform team mounts into pods. Those that the restricted Pod Security Standard allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from tradewind.api.model import ApiModel, Fault, repeated
from tradewind.api.values import (
    MOUNT_PATTERN,
    PATH_PATTERN,
    VOLUME_NAME_PATTERN,
    Between,
    Quantity,
    SecretKey,
    SecretName,
)

_RESTRICTED: Final = "the restricted Pod Security Standard forbids it"
OWN_PATHS: Final = (
    "/bin",
    "/dev",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/tradewind",
    "/lib",
    "/lib64",
    "/opt/tradewind",
    "/proc",
    "/run/secrets",
    "/run/tradewind",
    "/sbin",
    "/sys",
    "/tmp",  # noqa: S108 - a volume
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/var/cache/tradewind",
    "/var/lib/tradewind",
    "/var/lib/tradewind-gcs",
    "/var/run",
)
"""What the platform mounts, and what programs are loaded from: the images' allow-list must hold for code."""
ABOVE_OWN: Final = tuple(
    sorted({path[:at] or "/" for path in OWN_PATHS for at in range(len(path)) if path[at] == "/"})
)
"""Directories that hold some of them; a volume there would hide it."""
ODD_PATH: Final = r"//|/$|(^|/)\.\.?(/|$)"
"""What a path must not have: an empty step, a slash at the end, `.` and `..`."""


def path_fault(path: str) -> str:
    """Why nothing can be mounted at a path; empty where it can."""
    if path == "/" or re.search(ODD_PATH, path):
        return f"found {path!r}; allowed: an absolute path without '.', '..', '//' and a slash at the end"
    own = [mine for mine in OWN_PATHS if path == mine or path.startswith(f"{mine}/")]
    if own:
        return (
            f"found {path!r}, but {own[0]} is the platform's own; allowed: another place, such as /mnt/data"
        )
    if path in ABOVE_OWN:
        return f"found {path!r}, which would hide what is in it; allowed: a directory of its own in it"
    return ""


class VolumeItem(ApiModel):
    """One key as a file."""

    key: SecretKey
    """Key."""
    path: Annotated[str, Field(pattern=PATH_PATTERN, max_length=256)]
    """Name of the file in the volume."""

    def faults(self) -> Iterable[Fault]:
        if re.search(ODD_PATH, self.path):
            yield Fault(("path",), f"found {self.path!r}; allowed: a relative path without '.' and '..'")


_Items = Annotated[tuple[VolumeItem, ...], Field(max_length=16)]


class ConfigMapVolume(ApiModel):
    """A ConfigMap's keys as files, read-only."""

    name: SecretName
    """Its name, in the same namespace."""
    items: _Items = ()
    """Which keys, and as which files. Empty: all."""


class SecretVolume(ApiModel):
    """A Secret's keys as files, read-only."""

    secret_name: SecretName
    """Its name, in the same namespace."""
    items: _Items = ()
    """Which keys, and as which files. Empty: all."""


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim that is there."""

    claim_name: SecretName
    """Its name. Pods on several nodes need ReadWriteMany or ReadOnlyMany."""


class EmptyDirVolume(ApiModel):
    """Room that is gone with the pod."""

    size_limit: Annotated[Quantity, Between("1Mi", "64Ti")]
    """Size; on disk it is set aside on the node, in memory it counts towards the pod's."""
    medium: Literal["Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi"] | None = None
    """What it is in. Absent: the node's disk."""


SOURCES: Final = ("config_map", "secret", "persistent_volume_claim", "empty_dir")


class PodVolume(ApiModel):
    """A volume and where it is mounted: one of configMap, secret, persistentVolumeClaim, emptyDir."""

    planned: ClassVar[Mapping[str, str]] = {
        "hostPath": f"{_RESTRICTED}: use persistentVolumeClaim with a local volume",
        "nfs": f"{_RESTRICTED}: use persistentVolumeClaim with an NFS volume",
        "csi": "this version mounts claims only: use persistentVolumeClaim",
        "projected": "this version has one source per volume: use several volumes",
    }

    name: Annotated[str, Field(pattern=VOLUME_NAME_PATTERN, max_length=50)]
    """Its name; a pool's hides that of the same name of `spec.pod`."""
    mount_path: Annotated[str, Field(pattern=MOUNT_PATTERN, max_length=256)]
    """Where: an absolute path that is not the platform's own."""
    sub_path: Annotated[str, Field(pattern=PATH_PATTERN, max_length=256)] | None = None
    """File or directory of the volume that is mounted instead of all of it."""
    read_only: bool = False
    """Whether it cannot be written to. ConfigMaps and Secrets never can."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""
    secret: SecretVolume | None = None
    """A Secret."""
    persistent_volume_claim: ClaimVolume | None = None
    """A PersistentVolumeClaim."""
    empty_dir: EmptyDirVolume | None = None
    """Room that is gone with the pod."""

    def faults(self) -> Iterable[Fault]:
        if fault := path_fault(self.mount_path):
            yield Fault(("mountPath",), fault)
        if self.sub_path is not None and re.search(ODD_PATH, self.sub_path):
            yield Fault(
                ("subPath",), f"found {self.sub_path!r}; allowed: a relative path without '.' and '..'"
            )
        given = sum(getattr(self, source) is not None for source in SOURCES)
        if given != 1:
            yield Fault(
                (),
                f"found {given} sources; allowed: one of configMap, secret, persistentVolumeClaim, emptyDir",
            )


PodVolumes = Annotated[tuple[PodVolume, ...], Field(max_length=16)]


def volume_faults(volumes: Iterable[PodVolume]) -> Iterable[Fault]:
    """Names and places that are there twice."""
    found = tuple(volumes)
    yield from repeated((one.name for one in found), ("volumes",), "volume", "name")
    yield from repeated((one.mount_path for one in found), ("volumes",), "path", "mountPath")
