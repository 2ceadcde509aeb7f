"""One store of unpacked images for all nodes, which none of them pulls, copies or unpacks again.

A containerd of its own imports images into the store between two runs of the cluster. A node's containerd
starts with a copy of the store's two small databases, hard links to its blobs and the unpacked layers mounted
read-only: that is safe because containers write to a layer of their own (overlayfs) and images are never
collected on nodes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.e2e.bed.images import REGISTRY, TAG, Builder, reference, say
from tests.e2e.bed.machines import Machine, MachineError, start_machine
from tests.e2e.bed.programs import start_program

ROOT = "/var/lib/containerd"
STATE = "/run/containerd"
SOCKET = f"{STATE}/containerd.sock"
PAUSE = reference("pause")
SPACE = "k8s.io"
"""containerd's namespace in which Kubernetes looks for images."""
BLOBS = Path("io.containerd.content.v1.content/blobs/sha256")
LAYERS = Path("io.containerd.snapshotter.v1.overlayfs/snapshots")
DATABASES = (
    Path("io.containerd.metadata.v1.bolt/meta.db"),
    Path("io.containerd.snapshotter.v1.overlayfs/metadata.db"),
)
START_S = 30.0
NO_COLLECTION = """
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "24h"
  mutation_threshold = 0
"""
"""An image that comes in must find the layers of the one whose name it takes: they go when it is in."""


def settings(more: str = "") -> str:
    """containerd's configuration: the common part, and what a node adds."""
    return f"""\
version = 2
root = "{ROOT}"
state = "{STATE}"
oom_score = 0
[grpc]
  address = "{SOCKET}"
{more}"""


@dataclass(frozen=True)
class Store:
    """The store in `folder`."""

    folder: Path

    @property
    def root(self) -> Path:
        """containerd's own folder in it."""
        return self.folder / ROOT.strip("/")

    def fill(self, builder: Builder, wanted: dict[str, str]) -> None:
        """Import images whose identifier (by name) has changed. No node may run. Raises MachineError."""
        kept = self._imported()
        changed = [name for name, identifier in wanted.items() if kept.get(name) != identifier]
        if not changed:
            return
        started = time.monotonic()
        say(f"importing {', '.join(changed)}")
        with self._containerd() as machine:
            for name in changed:
                pushed = self.folder / "pushed"
                shutil.rmtree(pushed, ignore_errors=True)
                builder.push(name, pushed)
                self._import(machine, pushed, name)
                shutil.rmtree(pushed)
            self._collect(machine)
        (self.folder / "imported.json").write_text(json.dumps(wanted, indent=1))
        say(f"... in {time.monotonic() - started:.0f} s")

    def attach(self, machine: Machine, folder: Path) -> None:
        """Give the node that writes in `folder` all images; before its containerd starts."""
        root = folder / ROOT.strip("/")
        for file in DATABASES:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            if not (root / file).exists():  # a node that was switched off has its own
                shutil.copy(self.root / file, root / file)
        (root / BLOBS).mkdir(parents=True, exist_ok=True)
        for blob in (self.root / BLOBS).iterdir():
            if not (root / BLOBS / blob.name).exists():
                os.link(blob, root / BLOBS / blob.name)
        commands = []
        for layer in sorted((self.root / LAYERS).iterdir()):
            place = root / LAYERS / layer.name
            place.mkdir(parents=True, exist_ok=True)
            commands.append(f"mount --bind -o ro {layer} {Path(ROOT) / LAYERS / layer.name}")
        machine.run("sh", "-e", given="\n".join(commands))

    def _imported(self) -> dict[str, str]:
        file = self.folder / "imported.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    @contextmanager
    def _containerd(self) -> Iterator[Machine]:
        """containerd alone, on a machine without a network."""
        machine = start_machine("store", self.folder, outlives_us=False)
        try:
            file = self.folder / "containerd.toml"
            file.write_text('disabled_plugins = ["io.containerd.grpc.v1.cri"]\n' + settings(NO_COLLECTION))
            program = start_program(machine, "containerd", ["containerd", f"--config={file}"], self.folder)
            program.wait_until(machine.path(SOCKET).exists, START_S)
            yield machine
        finally:
            machine.kill()

    def _import(self, machine: Machine, pushed: Path, name: str) -> None:
        """The image of that name, without the blobs that are in the store."""
        command = machine.inside(self._ctr("import", "-"))
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            # What is wrong with what it read, it says.
            with suppress(BrokenPipeError):
                self._write(process.stdin, pushed, name)
            _, said = process.communicate()
        if process.returncode:
            raise MachineError(f"containerd did not take {name}: {said.decode(errors='replace')}")

    def _collect(self, machine: Machine) -> None:
        """Remove layers and blobs that no image has any more."""
        # Removing a name `--sync` is the one way in which ctr asks for it.
        spare = f"{REGISTRY}/spare:{TAG}"
        machine.run(*self._ctr("tag", "--force", PAUSE, spare))
        machine.run(*self._ctr("remove", "--sync", spare))

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", f"--address={SOCKET}", f"--namespace={SPACE}", "images", *arguments]

    def _write(self, stream: IO[bytes], pushed: Path, name: str) -> None:
        """An OCI archive with one image. Whoever reads it finds everything else in the store."""
        text = (pushed / "manifest.json").read_bytes()
        manifest = json.loads(text)
        entry = {
            "mediaType": manifest["mediaType"],
            "digest": f"sha256:{hashlib.sha256(text).hexdigest()}",
            "size": len(text),
            "annotations": {"io.containerd.image.name": name},
        }
        files = {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
            f"blobs/sha256/{_hex(entry)}": text,
        }
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for file, data in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            for blob in map(_hex, (manifest["config"], *manifest["layers"])):
                if not (self.root / BLOBS / blob).exists():
                    archive.add(pushed / blob, f"blobs/sha256/{blob}")


def _hex(descriptor: Mapping[str, Any]) -> str:
    return descriptor["digest"].removeprefix("sha256:")
