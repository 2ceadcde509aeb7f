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
from tradewind.api.refusals import GRAMMAR
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
    args = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
    running = launch(settings(lora=True, args=args), tmp_path_factory.mktemp("engine"), live)
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


FORGED = '{"level": "critical", "logger": "tradewind.engine", "message": "forged"}'
SCHEMAS: dict[str, Any] = {
    "a schema that is only itself": {"$ref": "#"},
    "two that are each other": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "a reference to nothing, with a line of a log": {"$ref": f"#/\n{FORGED}\n\x1b[2J"},
    "bounds the wrong way": {"type": "string", "minLength": 5, "maxLength": 2},
    "a number out of all bounds": {"type": "integer", "minimum": -(10**30)},
    "a type that is none": {"type": "nonsense"},
    "nothing to choose from": {"enum": []},
    "a pattern that is none": {"type": "string", "pattern": "("},
    "what nobody can be": {"type": "object", "properties": {"a": False}, "required": ["a"]},
}
USER = [{"role": "user", "content": f"Say {CANARY}"}]


def held(path: str, schema: Any) -> dict[str, Any]:
    """A request of each protocol whose answer is to be of a schema."""
    of_chat = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    flat = {"type": "json_schema", "name": "answer", "schema": schema}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": USER, "max_tokens": 8, "response_format": of_chat},
        "/v1/completions": {"prompt": CANARY, "max_tokens": 8, "response_format": of_chat},
        "/v1/responses": {"input": CANARY, "max_output_tokens": 8, "text": {"format": flat}},
        "/v1/messages": {"messages": USER, "max_tokens": 8, "output_config": {"format": {
            "type": "json_schema", "schema": schema}}},
    }  # fmt: skip
    return {"model": "tiny", **bodies[path]}


PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]


def is_refused_grammar(engine: EngineProcess, path: str, body: dict[str, Any]) -> None:
    """A 400 before the first byte, whole and streamed; the engine is well afterwards."""
    with engine.client() as client:
        for stream in (False, True):
            answer = client.post(path, json=body | {"stream": stream})
            assert answer.status_code == 400, answer.text
            assert answer.headers["content-type"] == "application/json"
            message = answer.json()["error"]["message"]
            assert message.startswith(GRAMMAR)
            assert message.isprintable()
            assert len(message) < 400
        assert client.post("/v1/chat/completions", json=chat(max_tokens=1)).status_code == 200
    assert engine.health() == (200, "ok")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", SCHEMAS)
def test_a_schema_that_cannot_be_compiled_is_the_callers_mistake(
    engine: EngineProcess, case: str, path: str
) -> None:
    is_refused_grammar(engine, path, held(path, SCHEMAS[case]))


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "("},
        {"regex": "[a-"},
        {"grammar": "root ::= "},
        {"grammar": "root ::= root"},
        {"grammar": 'a ::= "b"'},
        {"grammar": "root ::= [b-a]"},
    ],
)
def test_so_are_a_regex_and_a_grammar(engine: EngineProcess, constraint: dict[str, str]) -> None:
    body = {"model": "tiny", "prompt": "x", "max_tokens": 4, "structured_outputs": constraint}
    is_refused_grammar(engine, "/v1/completions", body)
    is_refused_grammar(engine, "/v1/chat/completions", chat(structured_outputs=constraint))


@pytest.mark.parametrize("path", PATHS)
def test_a_schema_that_can_be_held_to_is(engine: EngineProcess, path: str) -> None:
    body = held(path, {"enum": ["yes", "no"]})
    with engine.client() as client:
        answer = client.post(path, json=body)
        streamed = client.post(path, json=body | {"stream": True})
    assert answer.status_code == 200, answer.text
    assert '\\"yes\\"' in answer.text or '\\"no\\"' in answer.text
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")


def test_a_forced_tool_that_is_cut_off_is_no_mistake_of_the_caller(engine: EngineProcess) -> None:
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    choice = {"type": "tool", "name": "weather"}
    body = {"model": "tiny", "messages": USER, "max_tokens": 12, "tools": [tool], "tool_choice": choice}
    with engine.client() as client:
        answer = client.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["stop_reason"]) == (200, "max_tokens")


def test_nothing_that_was_asked_made_a_line_of_the_log(engine: EngineProcess) -> None:
    """After all those refusals, one of which quotes a line as ours are."""
    lines = [json.loads(line) for line in engine.output().splitlines() if line.startswith("{")]
    assert lines
    assert not [line for line in lines if line["message"] == "forged"]
    assert "\x1b" not in engine.output()


def test_nothing_that_was_said_is_printed(engine: EngineProcess) -> None:
    assert CANARY not in engine.output()
    assert "7" * 64 not in engine.output()


@pytest.mark.parametrize(
    "path",
    [
        "/sleep",
        "/collective_rpc",
        "/v1/load_lora_adapter",
        "/tokenizer_info",
        "/invocations",
        "//v1/completions",
    ],
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
    """Gateways leave it alone at once; it is replaced only when it stays so."""
    core = engine.engine_core()
    with engine.client() as client:
        core.suspend()
        try:
            until(lambda: not client.get("/tradewind/stats").json()["healthy"], 2)
            assert engine.health() == (200, "ok")
        finally:
            core.resume()
        until(lambda: client.get("/tradewind/stats").json()["healthy"], 2)


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
