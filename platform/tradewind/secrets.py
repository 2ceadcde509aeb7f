"""Reads a secret where a resource says it is, in the process that needs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tradewind import home
from tradewind.api.wire import SecretRef


class SecretMissing(Exception):
    """A secret that a resource names is not there. The message never holds the secret."""


def secret_path(file: str) -> Path:
    """A secret's file; a relative path is taken from the state directory."""
    return home.home_dir() / Path(file).expanduser()


def await_secret(
    reference: SecretRef,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """`read_secret`, patient for as long as the reference says. Blocks the thread."""
    deadline = clock() + reference.wait_s
    while True:
        try:
            return read_secret(reference)
        except SecretMissing:
            if clock() >= deadline:
                raise
        sleep(1.0)


def read_secret(reference: SecretRef) -> str:
    """The secret's text without surrounding white space.

    Raises:
        SecretMissing: the variable or file is absent, empty or unreadable.
    """
    if reference.env is not None:
        value, where = os.environ.get(reference.env, ""), f"environment variable {reference.env}"
    else:
        path = secret_path(reference.file or "")
        where = f"file {path}"
        try:
            value = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretMissing(f"{where} cannot be read: {type(error).__name__}") from error
    if not value.strip():
        raise SecretMissing(f"{where} is not set")
    return value.strip()
