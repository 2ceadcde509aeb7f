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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_decision_is_called_by_its_number(document: Path) -> None:
    named = re.findall(r"\[(?:[Dd]ecision )?(\d{4})\]\(([^)]+)\)", prose(document))
    assert [link for number, link in named if not Path(link).name.startswith(f"{number}-")] == []


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


def test_alerts_that_documents_name_are_in_the_chart() -> None:
    rules = (ROOT / "deploy/helm/tradewind/templates/monitoring/rules.yaml").read_text()
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    named = {name for document in DOCUMENTS for name in re.findall(r"`(Tradewind[A-Z]\w+)`", prose(document))}
    assert named
    assert named - alerts == set()


def test_decisions_have_a_number_each_and_are_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [name[:4] for name in names]
    assert numbers == [f"{number:04}" for number in range(1, len(names) + 1)]
    index = re.findall(r"^- \[(\d{4})\]\(([^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert index == list(zip(numbers, names, strict=True))
