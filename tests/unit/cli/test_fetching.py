from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from rich.console import Console

from tradewind.api.wire import EngineSettings, SourceSettings
from tradewind.cli.errors import CommandFailed
from tradewind.cli.fetching import fetch_weights
from tradewind.engine.sources.report import ProgressFile, progress_file


def settings(name: str, uri: str) -> EngineSettings:
    return EngineSettings(name=name, source=SourceSettings(uri=uri))


def a_model(folder: Path) -> Path:
    """The least that passes for weights: a configuration, a tokenizer and one empty safetensors file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return folder


def screen() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=200, _environ={}), written


def test_each_model_is_told_and_an_old_progress_is_taken_away(tmp_path: Path, home: Path) -> None:
    console, written = screen()
    ProgressFile(progress_file(home, "llama"))("load")
    fetch_weights({"llama": settings("llama", f"file://{a_model(tmp_path / 'model')}")}, {}, console)
    assert "  llama: weights ready\n" in written.getvalue()
    assert not progress_file(home, "llama").exists()


def test_a_source_that_cannot_be_had_is_told_with_its_model(tmp_path: Path) -> None:
    console, _ = screen()
    with pytest.raises(CommandFailed, match=r"^llama: ") as failure:
        fetch_weights({"llama": settings("llama", f"file://{tmp_path}/nowhere")}, {}, console)
    assert failure.value.exit_code == 1
    assert "nowhere" in str(failure.value)
