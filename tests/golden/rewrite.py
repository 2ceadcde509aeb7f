"""`python -m tests.golden.rewrite`, from the project's root: write what every example compiles to.

Look at the difference before it is committed: it is what a running platform will be changed to.
"""

from __future__ import annotations

import json
from pathlib import Path

from tradewind.compiler.compile import compile_resources
from tradewind.compiler.documents import read_documents

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GOLDENS = ROOT / "tests" / "golden" / "examples"


def rendered(example: Path) -> str:
    """The example's compilation as JSON text."""
    sources = [(f"examples/{example.name}", example.read_text(encoding="utf-8"))]
    return json.dumps(compile_resources(read_documents(sources)).dump(), indent=1) + "\n"


def golden_of(example: Path) -> Path:
    return GOLDENS / f"{example.stem}.json"


def main() -> None:
    GOLDENS.mkdir(parents=True, exist_ok=True)
    examples = sorted(EXAMPLES.glob("*.yaml"))
    for stale in set(GOLDENS.glob("*.json")) - {golden_of(example) for example in examples}:
        stale.unlink()
    for example in examples:
        golden_of(example).write_text(rendered(example), encoding="utf-8")


if __name__ == "__main__":
    main()
