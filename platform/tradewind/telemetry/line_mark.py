"""How the process that writes a pod's log knows lines of Tradewind's own processes: by a random mark.

Everything that Ray's workers print arrives in two streams, where a line that quotes a request can look
like any other. Process 1 draws the mark when it starts, its children have it in their environment,
their loggers put it before each line, and process 1 takes it off. It is never written out, so that
nobody who can only make a process print something can know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

MARK: Final = "TRADEWIND_LOG_MARK"


def new_mark() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def mark_of(environ: Mapping[str, str]) -> str:
    """The mark that this process's lines begin with; empty where nobody takes it off."""
    return environ.get(MARK, "")
