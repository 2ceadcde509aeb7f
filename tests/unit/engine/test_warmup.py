"""First requests, liveness of processes, and what an engine says before it is started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tradewind.api.wire import EngineSettings, SourceSettings, Task
from tradewind.engine.app import Receive, Scope, Send
from tradewind.engine.errors import EngineError, EngineStartError, EngineUnhealthyError
from tradewind.engine.liveness import Reaper, end_processes
from tradewind.engine.runtime import VLLMEngine
from tradewind.engine.sources.report import progress_file
from tradewind.engine.vllm_adapter import FORCED_ENVIRONMENT, apply_environment
from tradewind.engine.warmup import warm_up


class Application:
    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []
        self._status = status
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope["path"], json.loads((await receive())["body"])))
        await send({"type": "http.response.start", "status": self._status, "headers": []})
        await send({"type": "http.response.body", "body": self._body})


async def test_a_chat_model_is_warmed_with_and_without_streaming() -> None:
    app = Application()
    await warm_up(app, "llama", Task.GENERATE)
    assert [path for path, _ in app.calls] == [
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/completions",
    ]
    assert [body.get("stream", False) for _, body in app.calls] == [False, False, True, False]
    assert "structured_outputs" in app.calls[-1][1]
    assert {body["model"] for _, body in app.calls} == {"llama"}


@pytest.mark.parametrize(("task", "path"), [(Task.EMBED, "/v1/embeddings"), (Task.SCORE, "/v1/score")])
async def test_pooling_models_are_warmed_at_their_endpoint(task: Task, path: str) -> None:
    app = Application()
    await warm_up(app, "m", task)
    assert [call[0] for call in app.calls] == [path]


async def test_a_model_without_a_chat_template_still_starts() -> None:
    await warm_up(Application(400, b'{"error": {"message": "no chat template"}}'), "m", Task.GENERATE)


async def test_a_server_error_is_the_engines_failure() -> None:
    app = Application(500, b'{"error": {"message": "shape mismatch"}}')
    with pytest.raises(EngineStartError, match=r"failed its first request .*: shape mismatch"):
        await warm_up(app, "m", Task.GENERATE)


async def test_no_answer_is_a_failure() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    with pytest.raises(EngineStartError, match=r"did not answer its first request within 0\.01 s"):
        await warm_up(silent, "m", Task.GENERATE, timeout_s=0.01)


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def test_processes_that_do_not_go_are_killed(child: psutil.Process) -> None:
    child.send_signal(signal.SIGSTOP)
    end_processes([child.pid, 2**22 + 1], within_s=0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_children_do_not_outlive_a_killed_parent() -> None:
    script = (
        "import subprocess, sys, time; from tradewind.engine.liveness import Reaper;"
        "child = subprocess.Popen(['sleep', '61']); other = subprocess.Popen(['sleep', '62']);"
        "Reaper([child.pid, other.pid], 'sleep 61');"
        "print(child.pid, other.pid, flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    child, other = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    try:
        parent.kill()
        child.wait(timeout=5)
        assert other.is_running()
    finally:
        parent.wait()
        parent.stdout.close()
        other.kill()


def test_a_reaper_can_be_called_off(child: psutil.Process) -> None:
    reaper = Reaper([child.pid], "input()")
    reaper.cancel()
    assert child.is_running()
    assert child.status() != psutil.STATUS_ZOMBIE


async def test_before_the_start_there_is_nothing_to_serve(tmp_path: Path) -> None:
    engine = VLLMEngine(token="t", home=tmp_path)
    with pytest.raises(EngineError, match="not been started"):
        _ = engine.asgi
    with pytest.raises(EngineUnhealthyError, match="not running"):
        await engine.check_health()
    await engine.stop()


async def test_a_source_that_is_missing_ends_the_start_and_is_published(tmp_path: Path) -> None:
    engine = VLLMEngine(token="t", home=tmp_path)
    settings = EngineSettings(name="llama", source=SourceSettings(uri="file:///nowhere/model"))
    with pytest.raises(EngineStartError, match="file:///nowhere/model: no such file or directory"):
        await engine.start(settings)
    published = json.loads(progress_file(tmp_path, "llama").read_text())
    assert published["stage"] == "failed"
    assert "no such file or directory" in published["message"]


@pytest.mark.parametrize("name", sorted(FORCED_ENVIRONMENT))
def test_a_resource_cannot_switch_protections_off(name: str) -> None:
    with pytest.raises(EngineStartError, match=f"{name} cannot be set"):
        apply_environment({name: "1"}, Path("/unused"))


def test_importing_the_engine_imports_no_vllm() -> None:
    code = (
        "import sys, tradewind.engine.runtime as r; print([m for m in ('vllm', 'torch') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr
