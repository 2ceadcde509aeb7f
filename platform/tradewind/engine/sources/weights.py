"""What a model directory may hold: safetensors (or GGUF, to be converted), never pickles. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import PurePosixPath

from tradewind.engine.errors import SourceError

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npz")
"""Endings of files that run code when they are loaded; never downloaded and never loaded."""

_DATA = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".vocab")
_OTHER_FORMATS = ("onnx", "openvino", "coreml", "original", "metal")
"""Folders in which repositories keep the same model for other engines."""


class Kind(StrEnum):
    MODEL = "model"
    ADAPTER = "adapter"


def safe_names(names: Iterable[str], origin: str) -> list[str]:
    """`names` as they are, or SourceError when one would leave the directory it is written to."""
    checked = []
    for name in names:
        parts = name.split("/")
        if not name or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise SourceError(f"{origin}: refused, it names a file outside its own directory: {name!r}")
        checked.append(name)
    return checked


def wanted(names: Iterable[str], *, code: bool, consolidated: bool = False) -> list[str]:
    """The files to fetch out of a repository's list.

    `code` adds Python files (trust_remote_code). Mistral's repositories hold the same weights twice:
    `consolidated` takes `consolidated*.safetensors`, else the others, when there is a choice.
    """
    plain = [name for name in names if _is_data(name, code)]
    weights = [name for name in plain if name.endswith(".safetensors")]
    first = {name for name in weights if PurePosixPath(name).name.startswith("consolidated")}
    if first and len(first) < len(weights):
        drop = {name for name in weights if (name in first) != consolidated}
        return [name for name in plain if name not in drop]
    return plain


def _is_data(name: str, code: bool) -> bool:
    path = PurePosixPath(name)
    if path.parts[0] in _OTHER_FORMATS or any(part.startswith(".") for part in path.parts):
        return False
    return path.suffix in _DATA or (code and path.suffix == ".py")


def require_safetensors(names: Iterable[str], origin: str, kind: Kind = Kind.MODEL) -> None:
    """Raise SourceError that says what was found when `names` is not a model that can be loaded."""
    found = sorted(names)
    if not any(name.endswith(".safetensors") for name in found):
        pickled = [name for name in found if name.endswith(PICKLED)]
        if pickled:
            raise SourceError(
                f"{origin}: holds no safetensors, only pickled weights ({_some(pickled)}). "
                "These can run code when loaded and are refused; convert them to safetensors."
            )
        raise SourceError(f"{origin}: holds no safetensors and no GGUF file; found {_some(found)}.")
    config = ("adapter_config.json",) if kind is Kind.ADAPTER else ("config.json", "params.json")
    if not any(name in found for name in config):
        raise SourceError(f"{origin}: holds no {' or '.join(config)}; found {_some(found)}.")


def only_gguf(names: Iterable[str], origin: str) -> str | None:
    """The GGUF file to convert when there are no safetensors; SourceError when there are several."""
    found = list(names)
    if any(name.endswith(".safetensors") for name in found):
        return None
    files = sorted(name for name in found if name.lower().endswith(".gguf"))
    if len(files) > 1:
        raise SourceError(
            f"{origin}: holds several GGUF files; add the name of one to the address: {_some(files)}."
        )
    return files[0] if files else None


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
