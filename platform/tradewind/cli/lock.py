"""Keeps two commands from changing one platform at the same time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradewind import home
from tradewind.cli.errors import CommandFailed


@contextmanager
def sole(state: Path, name: str, refusal: str) -> Iterator[None]:
    """Hold the lock `name` of the state directory. The kernel lets go of it however the process ends.

    Raises:
        CommandFailed: another process holds it; `refusal` says so in words.
    """
    path = home.private_dir(state) / f"{name}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed(refusal) from None
        yield
    finally:
        os.close(handle)
