"""Text of others made safe to look at: what a terminal would obey is written out instead.

JSON escapes what is below a space, but whoever reads a log with `jq -r` has the characters themselves
again, and neither the second half of the control characters nor those that turn the direction of
writing are escaped at all.
"""

from __future__ import annotations

import re
from typing import Final

_OBEYED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters but for tab and line end, line separators, marks of direction, halves of pairs."""


def printable(text: str) -> str:
    r"""`text` with what a terminal would obey as `\x1b` or `\u202e`. Tabs and line ends stay."""
    return _OBEYED.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
