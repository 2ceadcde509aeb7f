"""The gateway's own listener on a real Serve, before engines that do no work."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes import served_engine
from tests.integration.callers import calling
from tests.integration.platform import ROOT, free_port, wait_for
from tests.unit.api.builders import cluster, model, route
from tests.unit.compiler.worlds import compiled
from tradewind.api.headers import ENGINE_STATS_PATH
from tradewind.compiler.ray_environment import LEAVING_FILE
from tradewind.rayapi.client import ControlError, ServeControl

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

START_S = 300.0
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}


class Words:
    """The platform, its endpoint and its processes."""

    def __init__(self, home: Path) -> None:
        self.port, metrics = free_port(), free_port()
        gateway = {"endpoint": {"port": self.port}, "metricsPort": metrics}
        self.config = compiled(
            model("llama"), model("mistral"), route(), cluster(gateway=gateway)
        ).serve_config
        for app in self.config["applications"]:
            if app["name"] != "gateway":
                app["import_path"] = served_engine.PATH
        self.base = f"http://127.0.0.1:{self.port}"
        self.metrics = f"http://127.0.0.1:{metrics}/metrics"
        self.leaving = home / "leaving"
        """Tells its gateways that their pod ends, once it is there."""
        self._home = home
        (home / "config.json").write_text(json.dumps(self.config))
        path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
        command = [sys.executable, "-m", "tests.integration.words", str(home), str(home / "config.json")]
        with (home / "words.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path, LEAVING_FILE: str(self.leaving)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.dashboard = self.process.stdout.readline().strip()
        assert self.dashboard, (home / "words.log").read_text()

    @property
    def gateway(self) -> dict[str, Any]:
        """The gateway's deployment in the configuration, to be changed before `apply`."""
        found: dict[str, Any] = self.config["applications"][0]["deployments"][0]
        return found

    def control(self) -> ServeControl:
        return ServeControl(self.dashboard, (self._home / "ray-token").read_text().strip())

    def apply(self) -> None:
        control = self.control()
        try:
            control.apply(self.config)
        finally:
            control.close()

    def replicas(self, app: str) -> dict[int, str]:
        """Process id → state. Empty while Serve does not answer."""
        control = self.control()
        try:
            found = control._request("GET").json()["applications"][app]["deployments"].values()
        except (ControlError, KeyError):
            return {}
        finally:
            control.close()
        return {
            each["pid"]: each["state"] for entry in found for each in entry["replicas"] if each.get("pid")
        }

    def settled(self) -> int:
        """Process id of the one gateway, when there is one and it is well."""
        found: dict[int, str] = {}

        def one() -> bool:
            found.clear()
            found.update(self.replicas("gateway"))
            return list(found.values()) == ["RUNNING"] and self.ready()

        wait_for(one, "one gateway that runs", 120)
        (pid,) = found
        return pid

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.base}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float | None:
        """Its value; None while nobody tells."""
        try:
            lines = httpx.get(self.metrics).text.splitlines()
        except httpx.TransportError:
            return None
        return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), None)

    def processes(self, titled: str) -> list[psutil.Process]:
        below = psutil.Process(self.process.pid).children(recursive=True)
        found = []
        for each in below:
            with contextlib.suppress(psutil.Error):
                found += [each] if titled in " ".join(each.cmdline()) else []
        return found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Words]:
    platform = Words(tmp_path_factory.mktemp("words"))
    try:
        wait_for(platform.ready, "the endpoint", START_S)
        yield platform
    finally:
        platform.process.send_signal(signal.SIGTERM)
        platform.process.wait(120)
        assert platform.process.stdout is not None
        platform.process.stdout.close()


def test_a_stream_comes_by_the_listener(words: Words) -> None:
    with httpx.stream("POST", f"{words.base}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.status_code == 200
    assert lines[-1] == "data: [DONE]"


def test_no_port_leads_around_the_gateway(words: Words) -> None:
    paths = ["/-/routes", "/%2d/routes", "/engines/llama/v1/models"]
    paths += [f"/engines/{name}{ENGINE_STATS_PATH}" for name in ("llama", "mistral")]
    replicas = words.processes("ServeReplica") + words.processes("ProxyActor")
    there = [at for each in replicas for at in each.net_connections("tcp") if at.status == "LISTEN"]
    assert all(at.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for at in there)
    answers = {}
    for port in {at.laddr.port for at in there}:
        for path in paths:
            try:
                answers[port, path] = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5.0).status_code
            except httpx.TransportError:  # another protocol's
                continue
    engines = {port for (port, _), status in answers.items() if status == 401}
    assert len(engines) == 2, "the guard of each engine answers"
    metrics = int(httpx.URL(words.metrics).port or 0)
    rest = {at: status for at, status in answers.items() if at[0] not in engines | {metrics}}
    assert set(rest.values()) == {404}
    assert len({port for port, _ in rest}) == 3, (
        "the endpoint, the gateway's own port at Serve, Serve's proxy"
    )
    for port in {port for port, _ in rest if port != words.port}:
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as caller:
            caller.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n")
            assert caller.recv(4096).startswith(b"HTTP/1.1 404 "), "a body is not waited for"


def test_a_gateway_is_replaced_without_a_loss(words: Words) -> None:
    before = words.settled()
    long = {**CHAT, "max_tokens": 400, "stream": True}
    with httpx.stream("POST", f"{words.base}/v1/chat/completions", json=long, timeout=60.0) as answer:
        with calling(words.port) as callers:
            words.gateway["ray_actor_options"]["num_cpus"] += 0.01
            words.apply()
            wait_for(lambda: before not in words.replicas("gateway"), "the old one leaves or is gone", 120)
            wait_for(lambda: callers.answers["whole"] >= 200, "answers of the new one", 120)
        lines = [line for line in answer.iter_lines() if line]
    print(f"replaced: {dict(callers.answers)}")
    assert callers.lost == {}
    assert lines[-1] == "data: [DONE]", "the stream that was open went on"
    assert words.settled() != before
    wait_for(lambda: words.metric("tradewind_discovery_age_seconds") is not None, "its metrics", 60)


def test_a_killed_controller_costs_nothing_and_the_next_one_is_heard(words: Words) -> None:
    before = words.settled()
    (controller,) = words.processes("ServeController")
    with calling(words.port) as callers:
        controller.kill()
        wait_for(
            lambda: words.processes("ServeController") not in ([], [controller]), "another controller", 240
        )
        config = copy.deepcopy(words.gateway["user_config"])
        config["revision"], config["routes"][0]["variants"][0]["weight"] = "second", 1
        words.gateway["user_config"] = config
        wait_for(lambda: _applied(words), "it takes a configuration", 180)
        wait_for(lambda: httpx.get(f"{words.base}/readyz").json()["revision"] == "second", "in force", 120)
    print(f"controller: {dict(callers.answers)}")
    assert callers.lost == {}
    assert words.settled() == before
    # An engine's one replica dies: only the controller that lives can tell where the next one is.
    (engine,) = words.replicas("llama")
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: list(words.replicas("llama").values()) == ["RUNNING"], "another replica", 180)
    wait_for(lambda: words.metric("tradewind_discovery_age_seconds") or 99 < 5, "heard", 90)
    wait_for(lambda: _all_answer(words), "answers by both engines", 120)


def test_a_killed_gateway_loses_what_it_had_and_no_more(words: Words) -> None:
    words.gateway["num_replicas"] = 2
    words.apply()
    wait_for(lambda: list(words.replicas("gateway").values()) == ["RUNNING"] * 2, "two gateways", 120)
    with calling(words.port) as callers:
        wait_for(lambda: callers.answers["whole"] >= 30, "answers", 30)
        os.kill(next(iter(words.replicas("gateway"))), signal.SIGKILL)
        lost = callers.answers["whole"]
        wait_for(lambda: callers.answers["whole"] >= lost + 100, "the other one answers", 30)
    print(f"killed: {dict(callers.answers)}")
    # Whatever the kernel had given it. Nobody is refused: the other one has the port.
    assert not [what for what in callers.lost if what.startswith("no connection")]
    assert sum(callers.lost.values()) <= 25


def test_a_gateway_whose_pod_ends_says_so_and_ends_what_it_has(words: Words) -> None:
    """The last test: no gateway of this platform listens afterwards."""
    long = {**CHAT, "max_tokens": 200, "stream": True}
    with httpx.stream("POST", f"{words.base}/v1/chat/completions", json=long, timeout=60.0) as answer:
        words.leaving.touch()
        # Within the second for which it can still be asked.
        wait_for(lambda: _status(words) in (503, None), "it says that it leaves", 5)
        wait_for(lambda: _status(words) is None, "it listens no more", 10)
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert sum('"content":" word"' in line for line in lines) == 200


def _status(words: Words) -> int | None:
    """What a probe is told; None where nobody listens."""
    try:
        return httpx.get(f"{words.base}/healthz", timeout=5.0).status_code
    except httpx.ConnectError:
        return None


def _applied(words: Words) -> bool:
    try:
        words.apply()
    except ControlError:
        return False
    return True


def _all_answer(words: Words) -> bool:
    """Twenty in a row, which nobody holds for long: the route has both engines."""
    try:
        answers = [
            httpx.post(f"{words.base}/v1/chat/completions", json=CHAT, timeout=5.0).status_code
            for _ in range(20)
        ]
    except httpx.TransportError:
        return False
    return set(answers) == {200}
