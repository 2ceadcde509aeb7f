"""Where a command writes: answers to standard output, everything about the work to standard error."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console, ConsoleDimensions
from rich.text import Text

PIPED_COLUMNS: Final = 240
"""Width of what is no terminal: a table in a file or a pipe is not squeezed into a window."""
_CONTROLS: Final = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Terminal(Console):
    """A rich console that is wide where nobody looks, and leaves a closed pipe to `ending`."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        if self.is_terminal or "COLUMNS" in self._environ:
            return super().size
        return ConsoleDimensions(self._width or PIPED_COLUMNS, self._height or 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """Called by rich within the handling of a BrokenPipeError."""
        raise BrokenPipeError


out = Terminal(highlight=False, emoji=False)
err = Terminal(stderr=True, highlight=False, emoji=False)
"""Progress and remarks; `--quiet` silences it."""
failures = Terminal(stderr=True, highlight=False, emoji=False)
"""What went wrong; nothing silences it."""


def printable(text: str) -> str:
    """`text` without the control characters with which a model or a file could drive the terminal."""
    return text.translate(_CONTROLS)


def plain(text: str, style: str = "") -> Text:
    """Text from elsewhere as it is: no markup is read in it, no control character passes."""
    return Text(printable(text), style=style)


def write_whole(text: str) -> None:
    """Write a document to standard output: UTF-8 whatever the locale, and all of it before returning."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
