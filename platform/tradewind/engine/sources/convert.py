"""GGUF file -> model directory that vLLM loads (safetensors, tokenizer, config), in a process of its own.

Run as `python -m tradewind.engine.sources.convert FILE TARGET DTYPE`. A separate process, because the
conversion imports torch and transformers and needs several times the model's size in memory, all of
which the operating system has back when it ends. Writes only into TARGET, which the caller made and
will rename when this ends with exit code 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DTYPES = ("bfloat16", "float16", "float32")


def convert(source: Path, target: Path, dtype: str) -> None:
    """Write `source`, dequantized to `dtype`, into the directory `target`.

    Raises whatever transformers raises for a file or an architecture that it cannot read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    torch_dtype = getattr(torch, dtype)
    where = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), **where)
    loaded = AutoModelForCausalLM.from_pretrained(str(source.parent), dtype=torch_dtype, **where)
    model = _plain_copy(loaded, torch_dtype)
    model.save_pretrained(str(target), safe_serialization=True)
    tokenizer.save_pretrained(str(target))


def _plain_copy(loaded: Any, torch_dtype: Any) -> Any:
    """The same model without the marks of its quantized file, which `save_pretrained` refuses."""
    config = loaded.config
    config.dtype = torch_dtype
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    weights = loaded.state_dict()
    model = type(loaded)(config).to(torch_dtype)
    model.load_state_dict(weights)
    generation = getattr(loaded, "generation_config", None)
    if generation is not None:
        model.generation_config = generation
    return model


def main(argv: list[str]) -> int:
    if len(argv) != 3:
        print("usage: python -m tradewind.engine.sources.convert FILE TARGET DTYPE", file=sys.stderr)
        return 2
    try:
        convert(Path(argv[0]), Path(argv[1]), argv[2])
    except Exception as error:  # the parent turns the last line into one message
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
