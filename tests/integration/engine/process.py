"""Starts serve_engine.py and waits for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tradewind.api.wire import EngineLive, EngineSettings

SCRIPT = Path(__file__).with_name("serve_engine.py")
PREFIX = "/engines/tiny"
TOKEN = "7" * 64
START_S = 240.0


@dataclass
class EngineProcess:
    """A running engine; its files are in `directory`."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str = TOKEN) -> httpx.Client:
        headers = {"x-tradewind-token": token} if token else {}
        return httpx.Client(base_url=self.url + PREFIX, headers=headers, timeout=60)

    def health(self) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}/test/health", timeout=10)
        return answer.status_code, answer.text

    def loras(self) -> list[int]:
        """Numbers of the adapters that vLLM holds in memory."""
        held: list[int] = httpx.get(f"{self.url}/test/loras", timeout=10).json()
        return held

    def reconfigure(self, live: EngineLive) -> None:
        """What Serve does with a changed `user_config`."""
        answer = httpx.post(f"{self.url}/test/live", content=live.model_dump_json(), timeout=5)
        assert answer.status_code == 200, answer.text

    def spans(self) -> str:
        return (self.directory / "spans.jsonl").read_text()

    def output(self) -> str:
        return (self.directory / "output.txt").read_text(errors="replace")

    def engine_core(self) -> psutil.Process:
        """The process in which vLLM's scheduler and model run."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        (core,) = [process for process in family if "EngineCore" in process.name()]
        return core

    def stop(self) -> int:
        family = (
            psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        )
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(timeout=40)
        finally:
            left = [process for process in family if process.is_running()]
            for process in left:
                process.kill()
        return code


def launch(settings: EngineSettings, directory: Path, live: EngineLive | None = None) -> EngineProcess:
    """Start the process; does not wait."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "settings.json").write_text(settings.model_dump_json())
    (directory / "live.json").write_text((live or EngineLive()).model_dump_json())
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "TRADEWIND_HOME": str(directory / "home"),
        "TRADEWIND_INTERNAL_TOKEN": TOKEN,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
    }
    command = [
        sys.executable,
        str(SCRIPT),
        str(directory / "settings.json"),
        str(directory / "live.json"),
        str(port),
        str(directory / "spans.jsonl"),
    ]
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    return EngineProcess(directory, process, port)


def wait_ready(engine: EngineProcess) -> EngineProcess:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if engine.process.poll() is not None:
            raise AssertionError(f"the engine did not start:\n{engine.output()[-3000:]}")
        try:
            engine.health()
            return engine
        except httpx.TransportError:
            time.sleep(0.2)
    engine.stop()
    raise AssertionError("the engine did not start in time")


def start_failure(settings: EngineSettings, directory: Path) -> str:
    """What an engine that does not start says last."""
    engine = launch(settings, directory)
    try:
        code = engine.process.wait(timeout=START_S)
    finally:
        engine.process.kill()
    assert code == 3, engine.output()[-3000:]
    return engine.output().strip().splitlines()[-1]
