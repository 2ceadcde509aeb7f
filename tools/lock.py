"""Write and check requirements/*.lock, the exact set of packages that `make up` and `make test` install.

    python tools/lock.py write [--upgrade] [--upgrade-package NAME]   needs the network and uv
    python tools/lock.py check                                        needs neither

Each lock begins with a digest of what it was made from: the part of pyproject.toml that it resolves, the
overrides, and the locks that it is constrained by. `check` compares that digest, so that a dependency added
without `make lock` is caught without asking an index; it also refuses a line without a hash and a lock that
names a host. `write` without an option resolves only the locks that `check` finds older than their inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
INPUTS_LINE = "# inputs: sha256:"
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")


@dataclass(frozen=True)
class Lock:
    """One lock: what it resolves from pyproject.toml, and the locks whose versions it must agree with."""

    name: str
    source: tuple[str, ...]
    """Arguments to uv: an extra, a dependency group or a file of requirements."""
    constrained_by: tuple[str, ...] = ()
    cuda: bool = False
    """For GPUs: torch and its companions as PyPI has them."""
    torch_from_pypi: bool = False
    """For CPUs where torch +cpu cannot be had: the build of PyPI, whose version is not the constraints'."""

    @property
    def overrides(self) -> Path:
        return ROOT / "requirements" / ("overrides-cuda.txt" if self.cuda else "overrides.txt")

    @property
    def path(self) -> Path:
        return REQUIREMENTS / f"{self.name}.lock"


LOCKS = (
    Lock("bootstrap", ("--group", "bootstrap")),
    Lock("engine-cpu", ("pyproject.toml", "--extra", "engine-cpu"), ("bootstrap",)),
    Lock("torch-pypi", ("requirements/torch-pypi.in",), ("bootstrap", "engine-cpu"), torch_from_pypi=True),
    Lock("operator", ("pyproject.toml", "--extra", "operator"), ("bootstrap", "engine-cpu")),
    Lock("gateway", ("pyproject.toml", "--extra", "serve"), ("bootstrap", "engine-cpu")),
    Lock("engine-cuda", ("pyproject.toml", "--extra", "engine"), ("bootstrap",), cuda=True),
    Lock("dev", ("--group", "dev"), ("bootstrap", "engine-cpu", "operator")),
)


def extras(project: dict[str, Any], name: str) -> dict[str, list[str]]:
    """The optional dependencies `name` of `project`, and those that it draws in through `tradewind[…]`."""
    found: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        extra = waiting.pop()
        found[extra] = project["optional-dependencies"][extra]
        named = [match for line in found[extra] if (match := re.match(r"tradewind\[(.*)\]", line))]
        waiting += [other for match in named for other in match[1].split(",") if other not in found]
    return found


def wanted(lock: Lock) -> object:
    """What `lock` resolves, as its file of requirements or pyproject.toml names it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if "--group" in lock.source:
        return project["dependency-groups"][lock.source[-1]]
    if "--extra" in lock.source:
        project = project["project"]
        return [project["requires-python"], project["dependencies"], extras(project, lock.source[-1])]
    return (ROOT / lock.source[0]).read_text()


def inputs_digest(lock: Lock) -> str:
    """Hex SHA-256 over what decides `lock`'s contents, apart from what an index offers that day."""
    parts = [lock.name, json.dumps([lock.source, wanted(lock)], sort_keys=True), lock.overrides.read_text()]
    parts += [(REQUIREMENTS / f"{name}.lock").read_text() for name in lock.constrained_by]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def pip_find_links() -> list[str]:
    """Places that pip's own configuration names for wheels. uv does not read that configuration."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (os.environ.get("PIP_FIND_LINKS", "") + " " + asked.stdout).split()


def torch_source() -> list[str]:
    """Where uv finds torch +cpu: pip's configured folders if one holds it, else PyTorch's own CPU index."""
    folders = [
        place for place in dict.fromkeys(pip_find_links()) if any(Path(place).glob("torch-*+cpu-*.whl"))
    ]
    if folders:
        return [argument for folder in folders for argument in ("--find-links", folder)]
    return ["--torch-backend", "cpu"]


def write(lock: Lock, extra: list[str]) -> None:
    """Resolve `lock` with uv and write it with its digest. Versions in the file stay where they can."""
    command = [sys.executable, "-m", "uv", "pip", "compile", *lock.source]
    command += ["--output-file", str(lock.path.relative_to(ROOT))]
    command += ["--override", str(lock.overrides.relative_to(ROOT)), "--generate-hashes"]
    command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    command += [
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--custom-compile-command",
        "make lock",
        "--quiet",
    ]
    command += [] if lock.cuda or lock.torch_from_pypi else torch_source()
    with tempfile.TemporaryDirectory() as folder:
        for name in lock.constrained_by:
            constraint = Path(folder) / f"{name}.txt"
            constraint.write_text(constraints(name, lock))
            command += ["--constraint", str(constraint)]
        subprocess.run([*command, *extra], cwd=ROOT, check=True)
    text = re.sub(r"\S*/(\w[\w-]*)\.txt$", r"requirements/\1.lock", lock.path.read_text(), flags=re.MULTILINE)
    lock.path.write_text(f"{INPUTS_LINE}{inputs_digest(lock)}\n{without_digest(text)}")
    print(f"{lock.path.relative_to(ROOT)}: {len(pins(lock.path))} packages")


def constraints(name: str, lock: Lock) -> str:
    """The versions of the lock `name` that `lock` must agree with, one a line."""
    agreed = pins(REQUIREMENTS / f"{name}.lock")
    return "".join(f"{n}=={v}\n" for n, v in agreed.items() if not (lock.torch_from_pypi and n == "torch"))


def without_digest(text: str) -> str:
    """`text` of a lock less its digest line."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(INPUTS_LINE))


def pins(path: Path) -> dict[str, str]:
    """Package name, normalised, to version, of the lock at `path`."""
    found = (PINNED.match(line) for line in path.read_text().splitlines())
    return {re.sub(r"[-_.]+", "-", m["name"]).lower(): m["version"] for m in found if m}


def faults(lock: Lock) -> list[str]:
    """What is wrong with `lock`, one sentence each; empty when it may be installed from."""
    if not lock.path.exists():
        return [f"{lock.path.name} is missing"]
    text = lock.path.read_text()
    wrong = []
    if not text.startswith(INPUTS_LINE + inputs_digest(lock) + "\n"):
        wrong.append(f"{lock.path.name} is older than what it is made from")
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    wrong += [f"{lock.path.name}: no hash for {b.split()[0]}" for b in blocks if "--hash=sha256:" not in b]
    if re.search(r"://|--(find-links|index-url|extra-index-url)", text):
        wrong.append(f"{lock.path.name} names a host or a folder")
    mine = pins(lock.path)
    for name in lock.constrained_by:
        other = pins(REQUIREMENTS / f"{name}.lock")
        if lock.torch_from_pypi and "torch" in other:
            other["torch"] = other["torch"].removesuffix("+cpu")
        clashes = sorted(n for n in mine.keys() & other.keys() if mine[n] != other[n])
        wrong += [f"{lock.path.name} has {n} {mine[n]}, {name}.lock has {other[n]}" for n in clashes]
    return wrong


def main() -> int:
    """Exit code 0 when the locks are written or right, 1 when a check fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("write", "check"))
    arguments, extra = parser.parse_known_args()
    if arguments.command == "write":
        for lock in LOCKS:
            if extra or faults(lock):
                write(lock, extra)
        return 0
    wrong = [fault for lock in LOCKS for fault in faults(lock)]
    for fault in wrong:
        print(f"{fault}. Run `make lock`.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
