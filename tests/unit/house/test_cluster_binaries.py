"""Where the tests' API server comes from: taken as given, made once, whole or not at all."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools import cluster_binaries
from tools.cluster_binaries import KEY, BinariesError, obtain


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing given."""
    monkeypatch.setenv("TRADEWIND_TEST_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "kubernetes"


def small(home: Path) -> Path:
    """A build that takes no time."""
    (home / "result").mkdir()
    (home / "result" / "etcd").touch()
    (home / "left").touch()
    return home / "result"


def never(home: Path) -> Path:
    raise AssertionError(f"built again in {home}")


def test_is_made_once_and_only_the_result_is_kept(cache: Path) -> None:
    assert obtain(small) == obtain(never) == cache / KEY
    assert sorted(path.name for path in cache.iterdir()) == [KEY, f"{KEY}.lock"]
    assert [path.name for path in (cache / KEY).iterdir()] == ["etcd"]


def test_a_failed_build_leaves_nothing_and_the_next_one_starts_anew(cache: Path) -> None:
    def fails(home: Path) -> Path:
        small(home)
        raise BinariesError("no network")

    with pytest.raises(BinariesError, match="no network"):
        obtain(fails)
    assert [path.name for path in cache.iterdir()] == [f"{KEY}.lock"]
    assert obtain(small).exists()


def test_what_a_killed_build_left_is_taken_away(cache: Path) -> None:
    (cache / f".{KEY}-old" / "gocache").mkdir(parents=True)
    obtain(small)
    assert not (cache / f".{KEY}-old").exists()


def test_a_second_process_waits_for_the_first_and_uses_its_result(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    waiter = threading.Thread(target=obtain, args=(never,))
    with (cache / f"{KEY}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiter.start()
        said = ""
        while "waiting" not in said:
            said += capsys.readouterr().err
        (cache / KEY).mkdir()
    waiter.join(5)
    assert not waiter.is_alive()


def test_given_assets_are_used_and_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(BinariesError, match="which has no program etcd and no kube-apiserver"):
        obtain(never)
    for name in cluster_binaries.REQUIRED:
        (tmp_path / name).touch(mode=0o755)
    assert obtain(never) == tmp_path


def test_a_machine_without_apt_is_told_what_else_there_is(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cache))
    done = subprocess.run(
        [sys.executable, cluster_binaries.__file__], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "with apt-get: not found. Otherwise: KUBEBUILDER_ASSETS" in done.stderr
    assert "Traceback" not in done.stderr
