"""LoRA adapters come, change and go while the real vLLM answers; one that is broken harms nobody."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from tests.fixtures import models
from tests.integration.engine.process import EngineProcess, launch, wait_ready
from tradewind.api.wire import AdapterSettings, EngineLive, EngineSettings, SourceSettings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.xdist_group("engine")]


def adapter(name: str, directory: Path) -> AdapterSettings:
    return AdapterSettings(name=name, source=SourceSettings(uri=f"file://{directory}"))


def live(*adapters: AdapterSettings) -> EngineLive:
    return EngineLive(adapters=adapters)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Takes adapters, and starts without any."""
    source = SourceSettings(uri=f"file://{models.llama()}")
    running = launch(EngineSettings(name="tiny", source=source, lora=True), tmp_path_factory.mktemp("engine"))
    try:
        yield wait_ready(running)
    finally:
        running.stop()


@pytest.fixture
def nothing_loaded(engine: EngineProcess) -> Iterator[None]:
    yield
    engine.reconfigure(live())
    wait_for(lambda: reports(engine) == {}, 30)


def wait_for(condition: Callable[[], object], within_s: float = 20.0) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


def reports(engine: EngineProcess) -> dict[str, dict[str, str]]:
    with engine.client() as client:
        found: dict[str, dict[str, str]] = client.get("/tradewind/stats").json()["adapters"]
        return found


def state(engine: EngineProcess, name: str) -> str:
    return reports(engine).get(name, {}).get("state", "")


def ask(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "a bird in", "max_tokens": 4, "temperature": 0, "logprobs": 1, **fields}
    return client.post("/v1/completions", json=body)


def logprobs(engine: EngineProcess, model: str) -> list[float]:
    """What the model makes of a fixed prompt, in numbers that tell weights apart."""
    with engine.client() as client:
        answer = ask(client, model)
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    return found


def close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < 0.01 for a, b in zip(one, other, strict=True))


class Traffic:
    """Requests to one model, without a pause and without a second try, until the block ends."""

    def __init__(self, engine: EngineProcess, model: str, **fields: Any) -> None:
        self.statuses: Counter[int] = Counter()
        self._engine = engine
        self._model = model
        self._fields = fields
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Traffic:
        self._thread.start()
        wait_for(lambda: self.statuses)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        with self._engine.client() as client:
            while not self._over.is_set():
                self.statuses[ask(client, self._model, **self._fields).status_code] += 1


@pytest.mark.usefixtures("nothing_loaded")
def test_an_adapter_comes_and_goes_under_load_in_the_same_engine(engine: EngineProcess) -> None:
    core = engine.engine_core()
    began = core.create_time()
    base = logprobs(engine, "tiny")
    with Traffic(engine, "tiny") as traffic:
        engine.reconfigure(live(adapter("tone", models.adapter())))
        wait_for(lambda: state(engine, "tone") == "ready")
        toned = logprobs(engine, "tiny:tone")
        with Traffic(engine, "tiny:tone") as adapted:
            wait_for(lambda: sum(adapted.statuses.values()) > 20, 60)
        engine.reconfigure(live())
        wait_for(lambda: reports(engine) == {}, 30)
        with engine.client() as client:
            gone = ask(client, "tiny:tone")
    assert not close(base, toned)
    assert close(base, logprobs(engine, "tiny"))
    assert (gone.status_code, "does not exist" in gone.text) == (404, True)
    assert (set(traffic.statuses), set(adapted.statuses)) == ({200}, {200})
    now = engine.engine_core()
    assert (now.pid, now.create_time()) == (core.pid, began)


@pytest.mark.usefixtures("nothing_loaded")
def test_another_source_answers_under_the_same_name_and_with_its_own_prefixes(engine: EngineProcess) -> None:
    engine.reconfigure(live(adapter("tone", models.adapter()), adapter("other", models.adapter(seed=8))))
    wait_for(lambda: {state(engine, name) for name in ("tone", "other")} == {"ready"})
    first, second = logprobs(engine, "tiny:tone"), logprobs(engine, "tiny:other")
    assert not close(first, second)
    with Traffic(engine, "tiny:tone") as traffic:
        engine.reconfigure(
            live(adapter("tone", models.adapter(seed=8)), adapter("other", models.adapter(seed=8)))
        )
        wait_for(lambda: close(second, logprobs(engine, "tiny:tone")))
    assert set(traffic.statuses) == {200}
    with engine.client() as client:
        assert ask(client, "tiny:tone").json()["model"] == "tiny:tone"
    engine.reconfigure(live(adapter("tone", models.adapter()), adapter("other", models.adapter(seed=8))))
    wait_for(lambda: close(first, logprobs(engine, "tiny:tone")))


@pytest.mark.usefixtures("nothing_loaded")
def test_a_stream_that_has_begun_ends_with_the_adapter_that_left(engine: EngineProcess) -> None:
    engine.reconfigure(live(adapter("tone", models.adapter())))
    wait_for(lambda: state(engine, "tone") == "ready")
    long = {"model": "tiny:tone", "prompt": "a", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with engine.client() as client, client.stream("POST", "/v1/completions", json=long) as answer:
        lines = answer.iter_lines()
        next(lines)
        core = engine.engine_core()
        core.suspend()  # a fast machine ends the stream while the adapter still lingers
        try:
            engine.reconfigure(live())
            wait_for(lambda: reports(engine) == {}, 30)
        finally:
            core.resume()
        assert len(engine.loras()) == 1
        logprobs(engine, "tiny")
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert not any("error" in event for event in events)
    wait_for(lambda: engine.loras() == [], 30)


def broken(directory: Path) -> dict[str, tuple[Path, str]]:
    """Adapters that cannot be loaded, by name, each with what must be told of it."""
    wrong = {}
    for name in ("garbage", "shape", "base"):
        wrong[name] = directory / name
        shutil.copytree(models.adapter(), wrong[name])
    (wrong["garbage"] / "adapter_model.safetensors").write_bytes(b"no tensors at all")
    file = wrong["shape"] / "adapter_model.safetensors"
    save_file({name: tensor[:, :3].contiguous() for name, tensor in load_file(file).items()}, file)
    config = wrong["base"] / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    return {
        "missing": (directory / "nowhere", "no such file or directory"),
        "rank": (models.adapter(rank=64), "maxLoraRank: 64"),
        "garbage": (wrong["garbage"], "no safetensors file"),
        "shape": (wrong["shape"], "made for another model"),
        "base": (wrong["base"], "DoRA"),
    }


@pytest.mark.usefixtures("nothing_loaded")
def test_a_broken_adapter_says_why_and_harms_nobody(engine: EngineProcess, tmp_path: Path) -> None:
    wrong = broken(tmp_path)
    core = engine.engine_core().pid
    good = adapter("tone", models.adapter())
    with Traffic(engine, "tiny") as traffic:
        engine.reconfigure(live(good, *(adapter(name, at) for name, (at, _) in wrong.items())))
        wait_for(lambda: all(state(engine, name) == "failed" for name in wrong), 40)
        wait_for(lambda: state(engine, "tone") == "ready")
        with Traffic(engine, "tiny:tone") as toned:
            wait_for(lambda: sum(toned.statuses.values()) > 5, 60)
    told = reports(engine)
    for name, (_, expected) in wrong.items():
        assert told[name]["message"], name
        assert expected in told[name]["message"], told[name]
        assert "Traceback" not in told[name]["message"]
        with engine.client() as client:
            assert ask(client, f"tiny:{name}").status_code == 404
    assert (set(traffic.statuses), set(toned.statuses)) == ({200}, {200})
    assert engine.engine_core().pid == core
    engine.reconfigure(live(good, adapter("missing", models.adapter(seed=8))))
    wait_for(lambda: state(engine, "missing") == "ready")


@pytest.mark.usefixtures("nothing_loaded")
def test_a_new_source_that_fails_leaves_the_version_of_before(engine: EngineProcess, tmp_path: Path) -> None:
    engine.reconfigure(live(adapter("tone", models.adapter())))
    wait_for(lambda: state(engine, "tone") == "ready")
    before = logprobs(engine, "tiny:tone")
    engine.reconfigure(live(adapter("tone", tmp_path / "nowhere")))
    wait_for(lambda: "no such file" in reports(engine)["tone"]["message"])
    assert state(engine, "tone") == "ready"
    assert close(before, logprobs(engine, "tiny:tone"))
    engine.reconfigure(live(adapter("tone", models.adapter())))
    wait_for(lambda: reports(engine)["tone"] == {"state": "ready", "message": ""})


@pytest.mark.usefixtures("nothing_loaded")
def test_more_adapters_than_a_batch_may_mix_take_turns(engine: EngineProcess) -> None:
    names = [f"a{number}" for number in range(6)]
    engine.reconfigure(live(*(adapter(name, models.adapter(seed=20 + at)) for at, name in enumerate(names))))
    wait_for(lambda: {state(engine, name) for name in names} == {"ready"}, 40)
    alone = {name: logprobs(engine, f"tiny:{name}") for name in names}
    assert len({round(values[0], 4) for values in alone.values()}) == len(names)
    answers: dict[str, list[float]] = {}

    def keep(name: str) -> None:
        answers[name] = logprobs(engine, f"tiny:{name}")

    threads = [threading.Thread(target=keep, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(close(alone[name], answers[name]) for name in names)


def test_a_killed_replica_leaves_no_engine_behind(engine: EngineProcess) -> None:
    """The last test: it takes the engine that the others had, for a start takes most of a minute."""
    core = engine.engine_core()
    engine.process.kill()
    engine.process.wait()
    wait_for(lambda: not core.is_running(), 5)
