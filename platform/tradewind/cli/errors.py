"""How a command ends badly: one place turns what went wrong into a line and an exit code.

Exit codes: 1 it was tried and failed, 2 the user's input is wrong (nothing was changed), 130 the
user pressed Ctrl-C.
"""

from __future__ import annotations

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class CommandFailed(Exception):
    """Ends the command with `message` on standard error.

    `hint` is what the user can do about it.
    """

    def __init__(self, message: str, *, exit_code: int = FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
