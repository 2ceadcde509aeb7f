"""The documents that are written by hand: links lead somewhere, and no file is out of reach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def prose(document: Path) -> str:
    """`document` without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    missing = [link for link in LINK.findall(prose(document)) if not (document.parent / link).exists()]
    assert missing == []


def test_every_document_is_linked_from_another() -> None:
    linked = {
        (document.parent / link).resolve() for document in DOCUMENTS for link in LINK.findall(prose(document))
    }
    folders = {path for path in linked if path.is_dir()}
    unreachable = [
        str(document.relative_to(ROOT))
        for document in DOCUMENTS
        if document.resolve() not in linked
        and document.name != "README.md"
        and document.parent not in folders
    ]
    assert unreachable == []
