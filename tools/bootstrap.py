"""Make the virtual environment that the Makefile works in, from the locks. Standard library only.

    python3.11 tools/bootstrap.py run    what serving needs: requirements/engine-cpu.lock and the project
    python3.11 tools/bootstrap.py dev    the same, and requirements/dev.lock on top: tests, linters, types

Nothing is installed but what a lock names by version and SHA-256. A file in the environment holds the
digest of what was installed, so a second call that finds nothing changed returns at once. Errors are one
sentence and a way out; exit 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from pip_progress import run_pip

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LOCKS_FOR = {
    "run": ("bootstrap", "engine-cpu"),
    "dev": ("bootstrap", "engine-cpu", "operator", "dev"),
}
HEADINGS = {
    "bootstrap": "pip and build tools",
    "engine-cpu": "Ray Serve, vLLM, torch",
    "operator": "Kubernetes clients",
    "dev": "test tools",
}
NUMA_LIBRARY = "libnuma.so.1"


class BootstrapError(Exception):
    """Why the environment cannot be made, in words for the person who typed `make`."""


def digest(*paths: Path) -> str:
    """Hex SHA-256 over the contents of `paths`."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def packages(lock: Path) -> dict[str, str]:
    """Normalised package name to its block in `lock` (requirement and hashes)."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    return {normalised(block.split("==")[0]): block for block in blocks}


def normalised(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Environment:
    """The virtual environment at `home`, and what has been put into it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = home / "bin" / "python"
        self._stamps_file = home / "tradewind-installed.json"

    def stamps(self) -> dict[str, str]:
        """Part name to the digest of what was installed for it; empty when there is no usable environment."""
        if not self.python.exists() or not self._stamps_file.exists():
            return {}
        try:
            return dict(json.loads(self._stamps_file.read_text()))
        except ValueError:
            return {}

    def stamp(self, part: str, value: str) -> None:
        """Note that `part` is installed as `value` says."""
        self._stamps_file.write_text(json.dumps(self.stamps() | {part: value}, indent=1) + "\n")

    def create(self) -> None:
        """Make the environment if it is missing or its Python is gone."""
        if self.python.exists() and self._runs("-c", "import pip"):
            return
        print(f"  {self.home.name}: a new environment for Python {sys.version.split()[0]}", flush=True)
        try:
            venv.create(self.home, clear=True, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise BootstrapError(
                f"Python's venv module could not make {self.home} ({error}).\n"
                "On Debian or Ubuntu it is a package of its own: sudo apt-get install python3.11-venv"
            ) from error

    def _runs(self, *arguments: str) -> bool:
        """Whether the environment's Python accepts `arguments`."""
        done = subprocess.run([self.python, *arguments], capture_output=True, check=False)
        return done.returncode == 0

    def install(self, requirements: Path, heading: str, *options: str) -> tuple[int, list[str]]:
        """Install exactly what `requirements` names, hashes checked; exit code and pip's last lines."""
        command = [str(self.python), "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "raw" if self.raw_progress() else "off"]
        # To compile every file of every package takes 45 s of CPU; what is imported, on import, 10 s.
        command += ["--no-compile", *options, "--requirement", str(requirements)]
        # The lock has decided every version: a cap in pip's own configuration has nothing to add.
        env = os.environ | {"PIP_CONSTRAINT": os.devnull}
        return run_pip(command, heading, len(packages(requirements)), env)

    def raw_progress(self) -> bool:
        """Whether this pip can report progress in lines (24.1 and later): true once bootstrap.lock is in."""
        return "bootstrap" in self.stamps()

    def installed(self) -> set[str]:
        """Normalised names of what is in the environment."""
        listing = "import importlib.metadata as m; print(*[d.name for d in m.distributions()], sep='\\n')"
        done = subprocess.run([self.python, "-I", "-c", listing], capture_output=True, text=True, check=True)
        return {normalised(name) for name in done.stdout.split()}

    def remove(self, names: set[str]) -> None:
        """Uninstall `names`."""
        print(f"  no longer in a lock: {', '.join(sorted(names))}", flush=True)
        subprocess.run(
            [self.python, "-m", "pip", "uninstall", "--yes", "--quiet", *sorted(names)], check=True
        )


def without(name: str, lock: Path) -> str:
    """The text of `lock` less the block of the package `name`."""
    return "".join(block for package, block in packages(lock).items() if package != name)


def pypi_torch() -> Path:
    """The lock of torch as PyPI has it, with the libraries of NVIDIA that it needs to start."""
    return REQUIREMENTS / "torch-pypi.lock"


def install_torch_cpu(environment: Environment, block: str) -> bool:
    """Put in torch +cpu, which PyPI does not carry; whether that could be done.

    First with pip's configuration as it is: a machine may have a mirror or a folder of wheels. Then from
    PyTorch's own CPU index, asked for this one package alone, so that no other name is ever looked up there.
    """
    with tempfile.TemporaryDirectory() as folder:
        only_torch = Path(folder) / "torch.lock"
        only_torch.write_text(block)
        failed, _ = environment.install(only_torch, "torch for CPU", "--retries", "2")
        if not failed:
            return True
        print(f"  not where pip looks: asking {PYTORCH_CPU_INDEX}", flush=True)
        options = ("--index-url", PYTORCH_CPU_INDEX, "--retries", "1", "--timeout", "15")
        failed, _ = environment.install(only_torch, "torch for CPU", *options)
        return not failed


def install_torch(environment: Environment, lock: Path) -> str:
    """Put in torch before the rest of `lock`; "cpu" or "pypi", the build that could be had.

    Raises BootstrapError when neither could.
    """
    block = packages(lock)["torch"]
    if install_torch_cpu(environment, block):
        return "cpu"
    print("  torch's CPU build cannot be had: PyPI's for CUDA, 4 GB larger, runs on a CPU too", flush=True)
    failed, said = environment.install(pypi_torch(), "torch and NVIDIA's libraries")
    if failed:
        raise BootstrapError(
            "\n".join(said)
            + f"\n\n{block.split()[0]} is neither where pip looks nor at {PYTORCH_CPU_INDEX},\n"
            "and PyPI's build could not be installed either (above: why).\n"
            "With the wheel in a folder: PIP_FIND_LINKS=/that/folder make up"
        )
    return "pypi"


def versions_of(lock: Path) -> dict[str, str]:
    """What the stamp of `lock` is once it is installed, by the build of torch ("": it has none)."""
    if "torch" not in packages(lock):
        return {"": digest(lock)}
    return {"cpu": digest(lock), "pypi": f"{digest(lock, pypi_torch())} pypi"}


def install_lock(environment: Environment, name: str) -> bool:
    """Bring the environment to what the lock `name` says; whether there was anything to do."""
    lock = REQUIREMENTS / f"{name}.lock"
    wanted = versions_of(lock)
    if environment.stamps().get(name) in wanted.values():
        return False
    build = install_torch(environment, lock) if "torch" in packages(lock) else ""
    with tempfile.TemporaryDirectory() as folder:
        rest = Path(folder) / lock.name
        rest.write_text(without("torch", lock))
        failed, said = environment.install(rest, HEADINGS[name])
    if failed:
        raise BootstrapError(
            "\n".join(said) + f"\n\npip could not install requirements/{name}.lock (above: why)."
        )
    environment.stamp(name, wanted[build])
    return True


def install_project(environment: Environment) -> None:
    """Install the checkout itself, editable, when pyproject.toml changed or it was never done."""
    wanted = digest(ROOT / "pyproject.toml") + f" {ROOT}"
    if environment.stamps().get("project") == wanted:
        return
    command = [
        str(environment.python),
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
    ]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--editable", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BootstrapError(
            f"{done.stdout}{done.stderr}\nThe project itself could not be installed (above: why)."
        )
    environment.stamp("project", wanted)


def remove_strays(environment: Environment) -> None:
    """Uninstall what no lock names, so that an environment that grew over time equals a new one."""
    stamps = environment.stamps()
    locked = {
        name
        for lock in LOCKS_FOR["dev"]
        if lock in stamps
        for name in packages(REQUIREMENTS / f"{lock}.lock")
    }
    if any(stamp.endswith(" pypi") for stamp in stamps.values()):
        locked |= packages(pypi_torch()).keys()
    if strays := environment.installed() - locked - {"tradewind"}:
        environment.remove(strays)


def check_machine() -> None:
    """Refuse, with the reason, a Python or a machine that the lock was not made for."""
    if sys.version_info[:2] != (3, 11):
        raise BootstrapError(
            f"The locks are made for Python 3.11; this is {sys.version.split()[0]}.\n"
            "Say where one is: make up PYTHON=/path/to/python3.11"
        )
    machine = f"{os.uname().sysname} {os.uname().machine}"
    if machine != "Linux x86_64":
        raise BootstrapError(f"The locks are made for Linux x86_64; this is {machine}.")


def find_numa_library() -> None:
    """See that libnuma is there, which vLLM's CPU build links to; as root on Debian or Ubuntu, install it.

    Without it vLLM starts and fails much later, with an error that does not name the library.
    """
    if loads(NUMA_LIBRARY):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"  {NUMA_LIBRARY} is missing: apt-get install libnuma1", flush=True)
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "libnuma1"]):
            subprocess.run(["apt-get", *arguments], stdout=subprocess.DEVNULL, check=False)
        if loads(NUMA_LIBRARY):
            return
    raise BootstrapError(
        f"vLLM's CPU build needs {NUMA_LIBRARY}, which this machine does not have.\n"
        "Debian, Ubuntu: sudo apt-get install libnuma1     Fedora: sudo dnf install numactl-libs"
    )


def loads(library: str) -> bool:
    """Whether the dynamic linker finds `library`, asked in a new process since a linker remembers."""
    probe = f"import ctypes; ctypes.CDLL({library!r})"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


def bootstrap(environment: Environment, wanted: str) -> None:
    """Make `environment` what `wanted` ("run" or "dev") asks for. Raises BootstrapError."""
    started = time.monotonic()
    check_machine()
    find_numa_library()
    environment.create()
    changed = [install_lock(environment, name) for name in LOCKS_FOR[wanted]]
    if any(changed):
        remove_strays(environment)
    install_project(environment)
    if any(changed):
        print(f"  environment ready in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    """Exit code 0 when the environment is ready, 1 with a reason when it cannot be, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wanted", choices=sorted(LOCKS_FOR))
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="where (default: .venv in the checkout)"
    )
    arguments = parser.parse_args()
    try:
        bootstrap(Environment(arguments.venv.absolute()), arguments.wanted)
    except BootstrapError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next call goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
