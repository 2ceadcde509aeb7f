"""Images of the project and of the test bed, built from their Dockerfiles by buildah.

Nothing outside package registries is asked: the Dockerfiles' base is made by debootstrap and bears the base's
name. What a lock decides is built once per lock and kept under a name with the lock's digest; a change of the
project alone takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.bed.machines import MachineError, run
from tests.golden.chart.rendering import ROOT
from tests.unit.images.dockerfile import DOCKERFILE, arguments, ingredients

OURS = ("operator", "gateway", "engine-cpu")
OTHERS = ("pause", "coredns", "kuberay-operator", "python", "redis")
OTHERS_FILE = ROOT / "tests" / "e2e" / "images" / "Dockerfile"
TAG = "e2e"
REGISTRY = "localhost"
SUITE = "bookworm"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
ROOM_GB = 25
KEPT_GB = 19
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
"""buildah asks for one; nothing is pulled."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_CONFIGURATION = Path("/etc/pip.conf")


def say(text: str) -> None:
    """One line of progress."""
    print(f"  test bed     {text}", flush=True)


def reference(name: str) -> str:
    """The whole name of an image: `operator` is localhost/tradewind-operator:e2e."""
    return f"{REGISTRY}/{f'tradewind-{name}' if name in OURS else name}:{TAG}"


@dataclass(frozen=True)
class Builder:
    """buildah with a storage of its own in `folder`."""

    folder: Path

    def build_bases(self) -> None:
        """What of the project's images the locks alone decide. Raises MachineError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "policy.json").write_text(json.dumps(POLICY))
        self._make_base()
        wanted = {name: self._base(name) for name in OURS}
        if missing := {name: base for name, base in wanted.items() if not self.identifier(base)}:
            self._check_room()
            for name, base in missing.items():
                self._build_base(name, base)
            self._forget_all_but(set(wanted.values()))

    def build_all(self, programs: Path) -> dict[str, str]:
        """Build what has changed on the bases; the identifier of each image, by its whole name.

        Raises MachineError.
        """
        names = [reference(name) for name in (*OURS, *OTHERS)]
        stamp, wanted = self.folder / "built.json", sources(programs)
        if stamp.exists() and (known := json.loads(stamp.read_text()))["sources"] == wanted:
            return dict(known["images"])
        self._build_everything(programs)
        built = {name: self.identifier(name) for name in names}
        stamp.write_text(json.dumps({"sources": wanted, "images": built}, indent=1))
        return built

    def _build_everything(self, programs: Path) -> None:
        for name in OURS:
            over = f"{name}-base=container-image://{self._base(name)}"
            self._build(DOCKERFILE, name, reference(name), ROOT, "--build-context", over)
        context = self._context(programs)
        for name in OTHERS:
            self._build(OTHERS_FILE, name, reference(name), context)

    def identifier(self, name: str) -> str:
        """The image's own digest; empty where there is none of that name."""
        try:
            return self._buildah("images", "--quiet", "--no-trunc", name).strip()
        except MachineError:
            return ""

    def push(self, name: str, folder: Path) -> None:
        """Write the image into a new `folder`: manifest.json and its blobs. Raises MachineError."""
        # Uncompressed, a layer has the same digest every time; and it stays on this machine anyway.
        # (An OCI layout is compressed whatever one says.)
        self._buildah("push", *self._policy, "--disable-compression", name, f"dir:{folder}")

    def _base(self, name: str) -> str:
        """What the image without the project is called: another name for another lock."""
        return f"{REGISTRY}/tradewind-{name}-base:{self._lock_digest(name)}"

    def _check_room(self) -> None:
        """A disk that fills up while an image is built says so in a place where nobody looks."""
        free_gb = shutil.disk_usage(self.folder).free / 1e9
        if free_gb < ROOM_GB:
            raise MachineError(
                f"The test bed's images need {ROOM_GB} GB of disk to be built, and {KEPT_GB} GB after; "
                f"{self.folder} has {free_gb:.0f} GB free. TRADEWIND_TEST_CACHE names another place."
            )

    def _build_base(self, name: str, base: str) -> None:
        say(f"building what requirements/{name}.lock names")
        started = time.monotonic()
        # A stage that buildah 1.28 has in its cache is an empty folder where it is mounted.
        self._build(DOCKERFILE, f"{name}-base", base, ROOT, "--no-cache")
        say(f"... in {time.monotonic() - started:.0f} s")

    def _forget_all_but(self, bases: set[str]) -> None:
        """Remove bases that earlier locks named, and stages that led to these."""
        listed = self._buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
        if old := [each for each in listed if "-base:" in each and each not in bases]:
            self._buildah("rmi", *old)
        self._buildah("rmi", "--prune", "--force")

    def _lock_digest(self, name: str) -> str:
        locks = [ROOT / "requirements" / f"{each}.lock" for each in ("bootstrap", name, "torch-pypi")]
        text = DOCKERFILE.read_text()
        base = self.identifier(arguments(text)["BASE"])
        content = [repr(ingredients(text, f"{name}-base")).encode(), *(path.read_bytes() for path in locks)]
        return hashlib.sha256(b"\0".join([*content, base.encode()])).hexdigest()[:16]

    def _build(self, file: Path, target: str, name: str, context: Path, *options: str) -> None:
        mounted = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
        secret = PIP_CONFIGURATION if PIP_CONFIGURATION.exists() else Path(os.devnull)
        self._buildah(
            "build",
            *self._policy,
            "--isolation=chroot",
            "--network=host",
            "--layers",
            "--pull-never",
            *mounted,
            f"--secret=id=pip.conf,src={secret}",
            *options,
            f"--file={file}",
            f"--target={target}",
            f"--tag={name}",
            str(context),
        )

    def _make_base(self) -> None:
        """Debian with its Python, under the name that the Dockerfile begins with."""
        name = arguments(DOCKERFILE.read_text())["BASE"]
        if self.identifier(name):
            return
        say(f"making the images' base: Debian {SUITE}")
        root = self.folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(root)])
        shutil.rmtree(root / "var" / "cache" / "apt")
        file = self.folder / "Base"
        file.write_text('FROM scratch\nCOPY base /\nCMD ["/bin/bash"]\n')
        options = ("--layers=false", f"--file={file}", f"--tag={name}")
        self._buildah("build", *self._policy, *options, str(self.folder))
        shutil.rmtree(root)

    def _context(self, programs: Path) -> Path:
        """A folder with the programs that images are made of."""
        folder = self.folder / "programs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for program in (programs / "coredns", programs / "kuberay-operator", _catatonit()):
            shutil.copy(program, folder)
        return folder

    @property
    def _policy(self) -> Sequence[str]:
        return ("--signature-policy", str(self.folder / "policy.json"))

    def _buildah(self, *arguments: str) -> str:
        where = (f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}")
        return run(["nice", "-n", "3", "buildah", *where, "--storage-driver=overlay", *arguments])


def sources(programs: Path) -> str:
    """A digest of everything in the checkout and among programs that images are made of."""
    digest = hashlib.sha256()
    folders = (ROOT / name for name in ("platform", "operators", "requirements"))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts and not path.name.endswith(".key")]
    files += [DOCKERFILE, OTHERS_FILE, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]
    files += [programs / "coredns", programs / "kuberay-operator"]
    for path in sorted(files):
        digest.update(f"{path.relative_to(path.anchor)}\0{path.stat().st_mode:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _catatonit() -> Path:
    found = shutil.which("catatonit")
    if found is None:
        raise MachineError("catatonit is not installed: apt-get install catatonit")
    return Path(found)
