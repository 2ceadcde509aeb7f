"""How a command says that it cannot do what it was asked. `ending` turns it into lines and an exit code."""

from __future__ import annotations

from collections.abc import Sequence

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141

EXIT_CODES = {
    0: "done",
    FAILED: "it was tried and failed, or it is not ready",
    BAD_INPUT: "the input is wrong: a resource, an option, a name; nothing was changed",
    INTERRUPTED: "Ctrl-C",
    BROKEN_PIPE: "whoever read the output went away",
    TERMINATED: "SIGTERM or SIGHUP",
}


class CommandFailed(Exception):
    """Ends the command with `message` on standard error.

    `hint` is what the user can do about it. `mistakes` are printed first, each a line of its own that
    other programs can read: `file:line:column: path: what is wrong`.
    """

    def __init__(
        self, message: str, *, exit_code: int = FAILED, hint: str = "", mistakes: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
        self.mistakes = tuple(mistakes)
