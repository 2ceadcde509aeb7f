"""What LoRA adapters ask of the engine that takes them: room for their number and their ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tradewind.engine.errors import AdapterError

_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's argument `max_lora_rank` takes."""
_LEAST_RANK: Final = 16
"""Room that is made although no adapter asks for it yet: one that comes later may need it."""
_LEAST_SLOTS: Final = 4
"""As many adapters as one batch may mix, at the least; where there are more, they take turns."""
_IN_MEMORY: Final = 64
"""Adapters kept in main memory, where only those that are there take any: as many as a resource may list."""

_PREFIX: Final = "base_model.model."
_PLAIN: Final = ("F", "BF")
"""How the names of types begin whose tensors are as wide as they look."""
_MOST_HEADER: Final = 100 << 20


def rank_of(directory: Path) -> int:
    """The largest rank in the adapter of `directory`. AdapterError when its configuration gives none."""
    try:
        config = json.loads((directory / "adapter_config.json").read_text())
        ranks = [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError("its adapter_config.json gives no rank r") from error
    return max(ranks)


def room(ranks: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM's arguments for an engine that starts with adapters of these ranks and may be given others.

    Slots and rank are memory of the accelerator, taken at the start. An adapter of a rank that no vLLM takes
    is not counted: it will be refused by itself. What is `given`, the resource's own arguments, stands, and
    the rest follows it.
    """
    possible = [rank for rank in ranks if rank <= _RANKS[-1]]
    needed = max([_LEAST_RANK, *possible])
    slots = given.get("max_loras") or max(_LEAST_SLOTS, len(possible))
    kept = given.get("max_cpu_loras") or max(_IN_MEMORY, slots)
    made = {
        "max_lora_rank": next(rank for rank in _RANKS if rank >= needed),
        "max_loras": slots if given.get("max_loras") else min(slots, kept),
        "max_cpu_loras": kept,
    }
    return made | {name: value for name, value in given.items() if name in made and value is not None}


def check_rank(rank: int, most: int) -> None:
    """Raise AdapterError when an engine that was started for ranks up to `most` cannot take `rank`."""
    if rank > _RANKS[-1]:
        raise AdapterError(f"its rank is {rank}; vLLM takes at most {_RANKS[-1]}")
    if rank > most:
        fitting = next(each for each in _RANKS if each >= rank)
        raise AdapterError(
            f"its rank is {rank}, and the running engine was started for at most {most}: "
            f"a new engine is needed; spec.engine.args.maxLoraRank: {fitting} starts one"
        )


def check_shapes(adapter: Path, model: Path) -> None:
    """Raise AdapterError when the adapter was made for a model of another size.

    vLLM fills up tensors that are too small, and answers with the result. Compared is where both have plain
    tensors under the names that PEFT gives them; the rest (quantized, packed) is left to vLLM.

    Args:
        adapter: its directory.
        model: directory of the model's safetensors.
    """
    widths = _widths(model)
    for file in adapter.glob("*.safetensors"):
        for name, tensor in _header(file).items():
            layer, _, half = name.removeprefix(_PREFIX).partition(".lora_")
            known, shape = widths.get(f"{layer}.weight"), tensor.get("shape")
            if known is None or half not in ("A.weight", "B.weight") or not shape:
                continue
            side, wanted = (shape[-1], known[1]) if half == "A.weight" else (shape[0], known[0])
            if side != wanted:
                raise AdapterError(
                    f"it was made for another model: {name} is {side} wide, and the model's {layer} {wanted}"
                )


def _widths(model: Path) -> dict[str, tuple[int, int]]:
    """Rows and columns of every plain matrix of a model, by name."""
    found: dict[str, tuple[int, int]] = {}
    for file in model.glob("*.safetensors"):
        for name, tensor in _header(file).items():
            shape: list[int] = list(tensor.get("shape") or ())
            if len(shape) == 2 and str(tensor.get("dtype")).startswith(_PLAIN):
                found[name] = (shape[0], shape[1])
    return found


def _header(file: Path) -> dict[str, Any]:
    """What a safetensors file says about its tensors; AdapterError when it is none."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError(size)
            content = dict(json.loads(opened.read(size)))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(f"{file.name} is no safetensors file") from error
    return {name: at for name, at in content.items() if isinstance(at, dict) and name != "__metadata__"}
