from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tradewind.compiler.ray_environment import ray_environment
from tradewind.serve import local_gcs, runfile
from tradewind.serve.local import (
    LocalOptions,
    LocalPlatform,
    PortInUse,
    _prune_sessions,
    check_port,
    free_port,
    run_dir,
)


def run(pid: int, started: float) -> runfile.RunFile:
    urls = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    return runfile.RunFile(pid, started, urls[0], "127.0.0.1", 2, urls[1], urls[2], True, ["a"], {})


def test_a_running_platform_is_found_and_a_second_one_refused(tmp_path: Path) -> None:
    runfile.write(tmp_path, run(*runfile.this_process()))
    assert runfile.read(tmp_path).pid == os.getpid()
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(runfile.AlreadyRunning, match="already running at"):
        runfile.refuse_second(tmp_path)


def test_a_file_left_by_a_dead_process_is_not_believed(tmp_path: Path) -> None:
    pid, started = runfile.this_process()
    runfile.write(tmp_path, run(pid, started - 1000))
    with pytest.raises(runfile.NotRunning):
        runfile.read(tmp_path)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}'])
def test_a_torn_file_means_not_running(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(runfile.NotRunning):
        runfile.read(tmp_path)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            check_port("127.0.0.1", port)


def test_threat_19_ray_asks_for_its_token(tmp_path: Path) -> None:
    environment = ray_environment(token_file=tmp_path / "ray-token")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"].startswith(str(tmp_path))


def test_the_socket_directory_is_short_however_deep_the_state_lies(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 20)
    assert len(str(run_dir(deep) / "metrics.sock")) < 107
    assert run_dir(deep) == run_dir(deep)
    assert run_dir(deep) != run_dir(tmp_path)


def test_a_free_port_is_looked_for_from_the_wanted_one_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert free_port(port) > port
    with pytest.raises(PortInUse):
        free_port(port, taken=range(port, port + 100))


def test_only_the_last_sessions_of_ray_are_kept(tmp_path: Path) -> None:
    names = [f"session_2026-11-{day:02}_10-00-00_000000_1" for day in range(1, 6)]
    for name in names:
        (tmp_path / name / "logs").mkdir(parents=True)
    (tmp_path / "session_latest").symlink_to(tmp_path / names[-1])
    _prune_sessions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names[-2:], "session_latest"]


def test_a_gcs_that_has_died_is_started_again_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(local_gcs, "start_again", lambda: started.append(True))
    platform = LocalPlatform(LocalOptions(home=tmp_path, cpus=1))
    assert not platform.heal()
    with subprocess.Popen(["sleep", "60"]) as process:
        platform._daemons = {psutil.Process(process.pid): "gcs_server"}
        assert not platform.heal()
        process.kill()
    dead = dict(platform._daemons)
    assert platform.dead() == ["gcs_server"]
    assert platform.heal()
    platform._daemons = dead
    assert not platform.heal()
    assert started == [True]


def test_without_a_raylet_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gcs, "start_again", lambda: pytest.fail("it was started"))
    platform = LocalPlatform(LocalOptions(home=tmp_path, cpus=1))
    with subprocess.Popen(["true"]) as process:
        one = psutil.Process(process.pid)
    platform._daemons = {one: "raylet"}
    assert not platform.heal()
    assert platform.dead() == ["raylet"]
