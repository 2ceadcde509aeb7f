"""Directories that are either whole or not there, made once however many processes ask.

A directory is built beside its final place under a lock, marked ready and renamed. Two replicas that
start together convert once; a process that is killed leaves a `.part` that nobody reads (and that a
resumable builder continues).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tradewind.engine.errors import SourceError

READY = ".tradewind-ready"
"""File that marks a directory as whole; holds JSON that says what it was made from."""


def ready_directory(
    target: Path, build: Callable[[Path], None], *, origin: str, resumable: bool = False
) -> Path:
    """`target`, built by `build(part)` when it is not there yet.

    `part` is an empty directory, or what an interrupted build left when `resumable`. Waits for another
    process that builds the same. Raises what `build` raises, SourceError when the disk refuses.
    """
    if (target / READY).is_file():
        return target
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(target.parent / f"{target.name}.lock")):
            if (target / READY).is_file():
                return target
            _build_locked(target, build, origin, resumable)
    except OSError as error:
        raise SourceError(f"{origin}: {disk_problem(error, target.parent)}") from error
    return target


def _build_locked(target: Path, build: Callable[[Path], None], origin: str, resumable: bool) -> None:
    part = target.parent / f"{target.name}.part"
    if target.exists():  # without its mark: not made by us, or by a version before marks
        shutil.rmtree(target)
    if part.exists() and not resumable:
        shutil.rmtree(part)
    part.mkdir(exist_ok=True)
    try:
        build(part)
    except BaseException:
        if not resumable:
            with contextlib.suppress(OSError):
                shutil.rmtree(part)
        raise
    (part / READY).write_text(json.dumps({"origin": origin}))
    part.rename(target)


def disk_problem(error: OSError, where: Path) -> str:
    """One line for a file system that refuses."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"cannot write to {where}: {reason}"
