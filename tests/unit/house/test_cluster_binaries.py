"""Where the tests' Kubernetes comes from: taken as given, made once, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import cluster_binaries
from tools.cluster_binaries import (
    API,
    DEFINITIONS,
    NODES,
    ROLE,
    BinariesError,
    NotServedError,
    Source,
    cluster_key,
    key,
    names,
    obtain,
    obtain_cluster,
)

KEY = key()
PINS = Path(cluster_binaries.__file__).parent / "cluster_go"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and nothing given."""
    monkeypatch.setenv("TRADEWIND_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache" / "kubernetes"


def small(scratch: Path, result: Path, sources: Sequence[Source]) -> None:
    """A build that takes no time."""
    (scratch / "left").touch()
    for name in names(sources):
        (result / name).touch(exist_ok=False)


def never(scratch: Path, result: Path, sources: Sequence[Source]) -> None:
    raise AssertionError(f"{names(sources)} built again in {result}")


def within(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_is_made_once_and_only_the_result_is_kept(cache: Path) -> None:
    assert obtain(small) == obtain(never) == cache / KEY
    assert within(cache) == {KEY, f"{KEY}.lock"}
    assert within(cache / KEY) == {"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}


def test_a_cluster_has_the_server_of_the_tests_and_more(cache: Path) -> None:
    server = obtain(small)
    whole = obtain_cluster(small)
    assert whole == obtain_cluster(never) == cache / cluster_key()
    assert within(whole) == {*names(API), *names(NODES)} > within(server)
    assert (whole / "etcd").samefile(server / "etcd"), "one file on the disk"


def test_a_failed_build_leaves_nothing_and_the_next_one_starts_anew(cache: Path) -> None:
    def fails(scratch: Path, result: Path, sources: Sequence[Source]) -> None:
        small(scratch, result, sources)
        raise BinariesError("no network")

    with pytest.raises(BinariesError, match="no network"):
        obtain(fails)
    assert within(cache) == {f"{KEY}.lock"}
    assert obtain(small).exists()


def test_what_a_killed_build_left_is_taken_away(cache: Path) -> None:
    (cache / f".{KEY}-old" / "scratch").mkdir(parents=True)
    obtain(small)
    assert not (cache / f".{KEY}-old").exists()


def test_a_second_process_waits_for_the_first_and_uses_its_result(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
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


def test_given_assets_are_used_and_must_be_whole(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(BinariesError, match="which has no program etcd and no kube-apiserver"):
        obtain(never)
    for name in cluster_binaries.REQUIRED:
        (tmp_path / name).touch(mode=0o755)
    assert obtain(never) == tmp_path
    assert obtain_cluster(small).parent == cache, "what was given has no nodes"
    for name in [*names([*API, *NODES]), DEFINITIONS, ROLE]:
        (tmp_path / name).touch(mode=0o755)
    assert obtain_cluster(never) == tmp_path


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, cluster_binaries.__file__],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def go_that_fails(directory: Path, saying: str) -> str:
    """A PATH with a new Go before all else that says its version and cannot do anything."""
    directory.mkdir()
    program = directory / "go"
    program.write_text(
        f"#!/bin/sh\n[ $1 = version ] && echo go version go9.9 && exit\necho '{saying}' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("saying", "error"),
    [
        ("go: a.b/c@v1.0.0: Get \"https://proxy/\": dial tcp: lookup proxy: no such host", NotServedError),
        ("go: a.b/c@v1.0.0: reading https://proxy/a.zip: 403 Forbidden", NotServedError),
        ("go: a.b/c: module lookup disabled by GOPROXY=off", NotServedError),
        ("verifying a.b/c@v1.0.0: checksum mismatch\nSECURITY ERROR", BinariesError),
        ("main.go:3:1: syntax error", BinariesError),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_told_from_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saying: str, error: type[BinariesError]
) -> None:
    monkeypatch.setenv("PATH", go_that_fails(tmp_path / "go", saying))
    with pytest.raises(BinariesError, match="Could not fetch Go modules for the tests' Kubernetes") as caught:
        obtain()
    assert type(caught.value) is error
    assert saying.splitlines()[0] in str(caught.value)


def test_where_nothing_can_be_had_one_is_told_what_else_there_is(cache: Path, tmp_path: Path) -> None:
    done = run(PATH=go_that_fails(tmp_path / "go", "go: x@v1: 404 Not Found"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "404 Not Found" in done.stderr
    assert "Otherwise: KUBEBUILDER_ASSETS" in done.stderr
    assert "Traceback" not in done.stderr
    assert within(cache) == {f"{KEY}.lock"}


def test_the_programs_are_those_of_one_release_of_kubernetes() -> None:
    text = (PINS / "kubernetes" / "go.mod").read_text()
    version = cluster_binaries.kubernetes_version()
    staged = re.findall(r"^\t(k8s\.io/[a-z-]+) => (\S+) (\S+)$", text, re.MULTILINE)
    assert len(staged) > 20
    assert {(name == by, got) for name, by, got in staged} == {(True, f"v0.{version.split('.', 1)[1]}")}
    assert version.startswith("1.36.")


@pytest.mark.parametrize("source", [*API, *NODES], ids=lambda source: "+".join(source.programs))
def test_every_package_is_pinned_with_its_checksum(source: Source) -> None:
    assert (source.home / "go.sum").stat().st_size > 1000
    told = "".join(path.read_text() for path in source.home.glob("*.go"))
    for package in source.programs.values():
        assert package in (".", "./etcd") or f'"{package}"' in told
