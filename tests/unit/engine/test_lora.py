"""Whether an adapter fits the model and the engine that it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tradewind.engine.errors import AdapterError
from tradewind.engine.lora import check_rank, check_shapes, rank_of

Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 8}, 8),
        ({"r": "8"}, 8),
        ({"r": 8, "rank_pattern": {"q_proj": 32}}, 32),
        ({"r": 8, "rank_pattern": None}, 8),
    ],
)
def test_the_rank_is_the_largest(tmp_path: Path, config: object, rank: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert rank_of(tmp_path) == rank


@pytest.mark.parametrize("config", ["{}", "no json", "[]", '{"r": null}'])
def test_without_a_rank_it_is_no_adapter(tmp_path: Path, config: str) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(AdapterError, match="gives no rank"):
        rank_of(tmp_path)


def test_a_rank_that_the_running_engine_has_no_room_for() -> None:
    check_rank(16, 16)
    with pytest.raises(AdapterError, match=r"a new engine is needed; spec.engine.args.maxLoraRank: 32"):
        check_rank(17, 16)
    with pytest.raises(AdapterError, match="at most 512"):
        check_rank(600, 512)


def model(directory: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    directory.mkdir()
    save_file({f"{Q_PROJ}.weight": torch.zeros((6, 4), dtype=dtype)}, directory / "model.safetensors")
    return directory


def adapter(directory: Path, width: int = 4, height: int = 6, layer: str = Q_PROJ) -> Path:
    directory.mkdir()
    tensors = {
        f"base_model.model.{layer}.lora_A.weight": torch.zeros((2, width)),
        f"base_model.model.{layer}.lora_B.weight": torch.zeros((height, 2)),
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def test_an_adapter_of_the_models_size_fits(tmp_path: Path) -> None:
    check_shapes(adapter(tmp_path / "adapter"), model(tmp_path / "model"))


@pytest.mark.parametrize(("width", "height"), [(3, 6), (8, 6), (4, 5), (4, 12)])
def test_an_adapter_of_another_size_is_told(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(AdapterError, match=f"made for another model: .*{Q_PROJ}.* wide"):
        check_shapes(adapter(tmp_path / "adapter", width, height), model(tmp_path / "model"))


def test_what_cannot_be_compared_is_left_to_the_engine(tmp_path: Path) -> None:
    packed = model(tmp_path / "packed", torch.uint8)
    check_shapes(adapter(tmp_path / "adapter", 3), packed)
    check_shapes(adapter(tmp_path / "elsewhere", 3, layer="model.other"), model(tmp_path / "plain"))


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\xff" * 16, b"\x01" + b"\0" * 7 + b"1"])
def test_a_file_that_is_no_safetensors(tmp_path: Path, content: bytes) -> None:
    broken = adapter(tmp_path / "adapter")
    (broken / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match=r"adapter_model.safetensors is no safetensors file"):
        check_shapes(broken, model(tmp_path / "model"))
