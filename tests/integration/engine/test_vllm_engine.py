"""A real vLLM on CPU in the process it has in a replica: requests, aborts, traces, health, failures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import models
from tests.integration.engine.process import EngineProcess, launch, start_failure, wait_ready
from tradewind.api.wire import AdapterSettings, EngineLive, EngineSettings, SourceSettings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.xdist_group("engine")]

CANARY = "canary-5f1d"


def settings(uri: str | None = None, **changes: Any) -> EngineSettings:
    source = SourceSettings(uri=uri or f"file://{models.llama()}")
    return EngineSettings(name="tiny", source=source, **changes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    tone = AdapterSettings(name="tone", source=SourceSettings(uri=f"file://{models.adapter()}"))
    live = EngineLive(adapters=(tone,))
    running = launch(settings(lora=True), tmp_path_factory.mktemp("engine"), live)
    try:
        yield wait_ready(running)
    finally:
        running.stop()


def chat(model: str = "tiny", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Say {CANARY}"}]
    return {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0, **changes}


def until(condition: Callable[[], bool], within_s: float) -> float:
    """Seconds until the condition held; fails when it does not in time."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < within_s
        time.sleep(0.02)
    return time.monotonic() - begin


def test_a_chat_is_answered_whole_and_as_a_stream(engine: EngineProcess) -> None:
    with engine.client() as client:
        whole = client.post("/v1/chat/completions", json=chat()).json()
        with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            lines = [line for line in answer.iter_lines() if line]
    text = whole["choices"][0]["message"]["content"]
    assert whole["model"] == "tiny"
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines[:-1]]
    assert len(chunks) > 1
    assert "".join(chunk.get("content") or "" for chunk in chunks) == text


def test_the_first_logprobs_stop_nobody(engine: EngineProcess) -> None:
    begin = time.monotonic()
    with engine.client() as client:
        client.post("/v1/chat/completions", json=chat(logprobs=True, top_logprobs=3)).raise_for_status()
    assert time.monotonic() - begin < 10  # it compiled for 15 s on a machine that did nothing else


def test_an_adapter_is_a_model_of_its_own(engine: EngineProcess) -> None:
    with engine.client() as client:
        plain = client.post("/v1/chat/completions", json=chat(logprobs=True)).json()
        toned = client.post("/v1/chat/completions", json=chat("tiny:tone", logprobs=True)).json()
        listed = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert listed == ["tiny", "tiny:tone"]
    assert toned["model"] == "tiny:tone"
    assert toned["choices"][0]["logprobs"] != plain["choices"][0]["logprobs"]


def test_stats_tell_the_load_and_the_facts(engine: EngineProcess) -> None:
    with engine.client() as client:
        before = client.get("/tradewind/stats").json()
        client.post("/v1/chat/completions", json=chat(ignore_eos=True))
        after = client.get("/tradewind/stats").json()
    assert after["tokens_generated"] - before["tokens_generated"] == 16
    assert {name: after[name] for name in ("model", "family", "task", "context_length", "adapters")} == {
        "model": "tiny",
        "family": "llama",
        "task": "generate",
        "context_length": 2048,
        "adapters": {"tone": {"state": "ready", "message": ""}},
    }
    assert (after["running"], after["waiting"], after["healthy"]) == (0, 0, True)
    assert 0 <= after["kv_cache_use"] <= 1


def test_a_client_that_leaves_is_aborted(engine: EngineProcess) -> None:
    """Counted in tokens: seconds would tell how busy the machine is."""
    long = chat(max_tokens=1900, ignore_eos=True, stream=True)
    with engine.client() as client, engine.client() as observer:

        def stats() -> dict[str, Any]:
            answer: dict[str, Any] = observer.get("/tradewind/stats").json()
            return answer

        def on_gauge() -> float:
            text = observer.get("/metrics").text
            (value,) = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
            return float(value.rpartition(" ")[2])

        before = stats()["tokens_generated"]
        with client.stream("POST", "/v1/chat/completions", json=long) as answer:
            chunks = answer.iter_bytes()  # kept: when it is collected, httpx closes the response
            next(chunks)
        until(lambda: stats()["running"] == 0, 60)
        until(lambda: on_gauge() == 0, 60)
        tokens = stats()["tokens_generated"]
        assert tokens - before < long["max_tokens"]
        client.post("/v1/chat/completions", json=chat(max_tokens=1))
        assert stats()["tokens_generated"] == tokens + 1


def test_the_request_span_of_vllm_is_a_child_of_ours_and_holds_no_content(engine: EngineProcess) -> None:
    trace_id, parent = "ab" * 16, "cd" * 8
    with engine.client() as client:
        headers = {"traceparent": f"00-{trace_id}-{parent}-01"}
        client.post("/v1/chat/completions", json=chat(), headers=headers).raise_for_status()

    def of_this_trace() -> dict[str, dict[str, Any]]:
        spans = [json.loads(line) for line in engine.spans().splitlines()]
        return {span["name"]: span for span in spans if span["context"]["trace_id"] == f"0x{trace_id}"}

    until(lambda: len(of_this_trace()) == 2, 60)
    spans = of_this_trace()
    assert spans["engine"]["parent_id"] == f"0x{parent}"
    assert spans["llm_request"]["parent_id"] == spans["engine"]["context"]["span_id"]
    assert spans["llm_request"]["attributes"]["gen_ai.usage.completion_tokens"] > 0
    assert CANARY not in engine.spans()


def test_every_recorded_span_belongs_to_a_request(engine: EngineProcess) -> None:
    assert {json.loads(line)["name"] for line in engine.spans().splitlines()} == {"engine", "llm_request"}


def test_nothing_that_was_said_is_printed(engine: EngineProcess) -> None:
    assert CANARY not in engine.output()
    assert "7" * 64 not in engine.output()


@pytest.mark.parametrize(
    "path",
    ["/sleep", "/collective_rpc", "/v1/load_lora_adapter", "/tokenize", "/invocations", "//v1/completions"],
)
def test_control_endpoints_are_not_there(engine: EngineProcess, path: str) -> None:
    with engine.client() as client:
        assert client.request("POST", engine.url + "/engines/tiny" + path, json={}).status_code == 404


def test_without_the_token_nothing_is(engine: EngineProcess) -> None:
    with engine.client(token="") as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/metrics").status_code == 401


def test_remote_media_is_not_fetched(engine: EngineProcess) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    with engine.client() as client:
        answer = client.post(
            "/v1/chat/completions", json=chat(messages=[{"role": "user", "content": [image]}])
        )
    assert answer.status_code == 400


def test_a_stopped_engine_is_noticed_and_a_continued_one_is_well_again(engine: EngineProcess) -> None:
    core = engine.engine_core()
    core.suspend()
    try:
        until(lambda: engine.health() == (500, f"engine process {core.pid} is stopped"), 2)
    finally:
        core.resume()
    until(lambda: engine.health() == (200, "ok"), 2)


def test_a_killed_engine_is_unhealthy(engine: EngineProcess) -> None:
    core = engine.engine_core()
    core.kill()
    until(lambda: engine.health()[0] == 500, 5)
    with engine.client() as client:
        assert client.get("/tradewind/stats").status_code == 200


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        pytest.param(
            {"args": {"max_modle_len": 1}},
            'engine argument "max_modle_len" is not known to this vLLM. Did you mean "max_model_len"?',
            id="unknown argument",
        ),
        pytest.param(
            {"uri": "file:///nowhere/model"}, "file:///nowhere/model: no such file", id="no directory"
        ),
    ],
)
def test_a_failed_start_says_the_engines_own_last_error(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    """Of a start that fails late, when the model is loaded, `node/test_output.py` tells."""
    said = start_failure(settings(changes.get("uri"), args=changes.get("args", {})), tmp_path)
    assert said.startswith(cause)
    published = json.loads((tmp_path / "home" / "progress" / "tiny.json").read_text())
    assert (published["stage"], published["message"]) == ("failed", said)
