"""`python -m tradewind.schema write|check`: generated files, from the project's root."""

from __future__ import annotations

import sys
from pathlib import Path

from tradewind.schema.registry import check_all, write_all


def main(arguments: list[str], root: Path) -> int:
    """0 when all is well, 1 when a file is not what the code says, 2 when called wrongly."""
    if arguments == ["write"]:
        for name in write_all(root):
            print(f"wrote {name}")
        return 0
    if arguments == ["check"]:
        wrong = check_all(root)
        for report in wrong:
            print(report, file=sys.stderr)
        if wrong:
            print("run: python -m tradewind.schema write", file=sys.stderr)
        return 1 if wrong else 0
    print("usage: python -m tradewind.schema write|check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
