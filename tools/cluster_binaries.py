"""Have the programs of the tests' Kubernetes, and print the directory they are in.

    python tools/cluster_binaries.py              for an API server: etcd too, controller manager, kubectl
    python tools/cluster_binaries.py --cluster    for a cluster: nodes, DNS, network policies, KubeRay too

They are built once from Go modules, without root, into a cache outside the checkout, and made again when
the pins in `cluster_go/` change. With `KUBEBUILDER_ASSETS` set (envtest's variable) that directory it is, as
far as it goes. Standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# The tests import this as tools.cluster_binaries, where this folder is not on the path.
sys.path.append(str(Path(__file__).resolve().parent))
from cluster_programs import (
    API,
    DEFINITIONS,
    NODES,
    ROLE,
    BinariesError,
    Build,
    NotServedError,
    Source,
    fingerprint,
    kubernetes_version,
    names,
    say,
)

__all__ = ["API", "DEFINITIONS", "NODES", "ROLE", "BinariesError", "NotServedError", "Source", "cache_dir",
           "cluster_key", "key", "kubernetes_version", "names", "obtain", "obtain_cluster"]  # fmt: skip
REQUIRED = ("etcd", "kube-apiserver")
Make = Callable[[Path, Path, Sequence[Source]], None]
"""(scratch, result, sources): two directories that are there; other programs may be in the second already."""


def cache_dir() -> Path:
    """`TRADEWIND_TEST_CACHE`, or `tradewind-tests` in the user's cache directory."""
    if own := os.environ.get("TRADEWIND_TEST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tradewind-tests"


def key() -> str:
    """The name of the API server's directory in the cache."""
    return f"api-{kubernetes_version()}-{fingerprint(API)}"


def cluster_key() -> str:
    """The name of the whole cluster's directory in the cache."""
    return f"cluster-{kubernetes_version()}-{fingerprint([*API, *NODES])}"


def build(scratch: Path, result: Path, sources: Sequence[Source]) -> None:
    """Make every program of `sources` in `result`. Raises BinariesError."""
    say("building, once: about 10 minutes on 2 cores for a whole cluster, 6 for an API server")
    Build(scratch, result).run(sources)


def obtain(make: Make = build) -> Path:
    """The directory with etcd and kube-apiserver; made first when missing, by one process at a time.

    A directory of our own holds kube-controller-manager and kubectl too. Raises BinariesError.
    """
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return _given(Path(given))
    return _made(key(), lambda scratch, result: make(scratch, result, API))


def obtain_cluster(make: Make = build) -> Path:
    """The directory with everything of a cluster, KubeRay's definitions (`kuberay-crds/`) and its role.

    KUBEBUILDER_ASSETS is taken where it holds all of that. Raises BinariesError.
    """
    wanted = [*names([*API, *NODES]), DEFINITIONS, ROLE]
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given and all((Path(given) / name).exists() for name in wanted):
        return Path(given)
    api = _made(key(), lambda scratch, result: make(scratch, result, API))

    def whole(scratch: Path, result: Path) -> None:
        for name in names(API):
            (result / name).hardlink_to(api / name)
        make(scratch, result, NODES)

    return _made(cluster_key(), whole)


def _given(directory: Path) -> Path:
    missing = [name for name in REQUIRED if not os.access(directory / name, os.X_OK)]
    if missing:
        raise BinariesError(
            f"KUBEBUILDER_ASSETS is {directory}, which has no program {' and no '.join(missing)}."
        )
    return directory


def _made(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The directory `name` of the cache, made first when missing."""
    home = cache_dir() / "kubernetes"
    ready = home / name
    if ready.exists():
        return ready
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f"{name}.lock"):
        if not ready.exists():
            _make_at(ready, make)
    return ready


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


def _make_at(ready: Path, make: Callable[[Path, Path], None]) -> None:
    """Work in a directory beside `ready` and rename: `ready` exists whole or not at all."""
    started = time.monotonic()
    for left_behind in ready.parent.glob(f".{ready.name}-*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{ready.name}-", dir=ready.parent, ignore_cleanup_errors=True
    ) as name:
        scratch, result = Path(name, "scratch"), Path(name, "result")
        scratch.mkdir()
        result.mkdir()
        make(scratch, result)
        result.rename(ready)
    say(f"ready in {time.monotonic() - started:.0f} s: {ready}")


def main() -> int:
    """0 with the directory on stdout; 1 with a reason; 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description="Have the programs of the tests' Kubernetes.")
    parser.add_argument("--cluster", action="store_true", help="everything that a cluster with nodes needs")
    arguments = parser.parse_args()
    try:
        print(obtain_cluster() if arguments.cluster else obtain())
    except BinariesError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What Go has compiled so far is kept in its own cache.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
