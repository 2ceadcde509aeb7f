"""How a command ends: the one place that turns what happened into lines on standard error and an exit code.

A user's mistake never shows a traceback. A bug of ours shows one line and keeps the traceback in a
file, without the texts of the exceptions: these may quote a prompt or a key.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer
from rich.text import Text
from typer.core import TyperGroup

from tradewind import home
from tradewind.cli.console import failures, plain, printable
from tradewind.cli.errors import BROKEN_PIPE, FAILED, INTERRUPTED, TERMINATED, CommandFailed
from tradewind.cli.signals import Terminated, interruptible

LOG_LEVEL: Final = "TRADEWIND_LOG_LEVEL"
BUG_FILE: Final = "logs/command-error.txt"
"""Under the state directory: where the last bug happened."""


class Commands(TyperGroup):
    """The commands, each ended here. What is no foreseen end is left to `report_bug`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the user chose. Raises typer.Exit."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except CommandFailed as failure:
            report(failure)
            code = failure.exit_code
        except Terminated:
            code = TERMINATED
        except KeyboardInterrupt:
            _say(plain("Interrupted.", "dim"))
            code = INTERRUPTED
        except BrokenPipeError:
            _close_output()
            code = BROKEN_PIPE
        except OSError as error:
            report(CommandFailed(describe(error)))
            code = FAILED
        raise typer.Exit(code)


def report(failure: CommandFailed) -> None:
    """Print a failure: the mistakes as they are, then what it comes to, then what to do."""
    for mistake in failure.mistakes:
        _say(plain(mistake.replace("\n", " ")))
    _say(Text.assemble(("error:", "red"), " ", printable(str(failure))))
    if failure.hint:
        _say(plain(failure.hint, "dim"))


def describe(error: OSError) -> str:
    """An error of the operating system in a line: what it is about, and what is wrong with it."""
    about = f"{error.filename}: " if error.filename is not None else ""
    return f"{about}{error.strerror or type(error).__name__}"


def report_bug(error: Exception) -> None:
    """Print one line for an exception that nobody foresaw; keep where it happened in a file."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}tradewind{os.sep}" in frame.filename]
    last = (ours or list(frames))[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    kept = _keep(error)
    hint = f"where it happened is in {kept}; " if kept else ""
    report(
        CommandFailed(
            f"{type(error).__name__} in {place}: this is a bug in Tradewind",
            hint=f"{hint}{LOG_LEVEL}=debug prints all of it",
        )
    )
    if os.environ.get(LOG_LEVEL, "").lower() == "debug":
        traceback.print_exception(error)


def _keep(error: Exception) -> Path | None:
    path = home.home_dir() / BUG_FILE
    try:
        home.write_private(path, "\n".join(_frames(error)) + "\n")
    except OSError:
        return None
    return path


def _frames(error: BaseException) -> Iterator[str]:
    """The chain of exceptions, oldest first, by type and place only."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _frames(earlier)
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"


def _say(text: Text) -> None:
    """One line, however narrow the terminal is: these lines are searched and parsed."""
    try:
        failures.print(text, soft_wrap=True)
    except BrokenPipeError:
        _close_output()


def _close_output() -> None:
    """Point both outputs at nothing, or the interpreter would complain about the pipe once more."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nothing, stream.fileno())
    os.close(nothing)
