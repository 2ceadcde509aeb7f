"""GGUF file -> safetensors directory, converted once per content and dtype."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

from tradewind.engine.errors import SourceError
from tradewind.engine.sources.cache import ready_directory
from tradewind.engine.sources.report import Progress
from tradewind.home import write_private

_FORMAT = "1"
"""Part of the cache's key: raised when the converter writes something else than before."""

_PERCENT = re.compile(r"GGUF tensors[^%|]*?(\d{1,3})%")


def converted(file: Path, dtype: str, cache_dir: Path, progress: Progress, origin: str) -> Path:
    """Directory with the model of `file` in `dtype`. SourceError when it cannot be converted."""
    content = content_digest(file, cache_dir, origin)
    target = cache_dir / "converted" / f"{file.stem}-{dtype}-{content[:16]}-{_FORMAT}"
    size = file.stat().st_size

    def build(part: Path) -> None:
        progress("convert", 0, size)
        _run(file, part, dtype, size, progress, origin)

    return ready_directory(target, build, origin=origin)


def content_digest(file: Path, cache_dir: Path, origin: str) -> str:
    """BLAKE2b of the file's bytes, in hex.

    Remembered by path, size and modification time, so that a start does not read a large file again.
    """
    try:
        stat = file.stat()
        identity = f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        note = cache_dir / "digests" / hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads(note.read_text())["blake2b"])
        with file.open("rb") as stream:
            value = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        write_private(note, json.dumps({"blake2b": value}))
    except OSError as error:
        raise SourceError(f"{origin}: {error.strerror or error}") from error
    return value


def _run(file: Path, part: Path, dtype: str, size: int, progress: Progress, origin: str) -> None:
    """The converter in a process of its own (its memory goes with it), its bar read as progress."""
    command = [
        sys.executable,
        "-m",
        "tradewind.engine.sources.convert",
        str(file.resolve()),
        str(part),
        dtype,
    ]
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    ) as process:
        assert process.stderr is not None
        try:
            tail = _follow(process.stderr, size, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise SourceError(
            f"{origin}: cannot be converted to safetensors: {_last_line(tail, process.returncode)}"
        )
    progress("convert", size, size)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _follow(stream: IO[bytes], size: int, progress: Progress) -> str:
    tail = ""
    while block := os.read(stream.fileno(), 4096):
        tail = (tail + block.decode(errors="replace"))[-8192:]
        if found := _PERCENT.findall(tail):
            progress("convert", size * int(found[-1]) // 100, size)
    return tail


def _last_line(text: str, code: int) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if code < 0:
        return f"the converter was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    return lines[-1] if lines else f"the converter ended with code {code}"
