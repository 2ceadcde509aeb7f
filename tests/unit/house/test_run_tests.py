"""`make test` leaves nothing out, and says what did not run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools.run_tests import ROOT, STAGES, counts, not_run

TITLE = "on a real Kubernetes API server"
PASSED, FAILED = "<testcase/>", "<testcase><failure message='no'/></testcase>"
SKIPPED = (
    "<testcase><skipped message='dial tcp: no such host&#10;&#10;Could not fetch Go modules.'/></testcase>"
)


def report(path: Path, *cases: str, failures: int = 0, skipped: int = 0) -> Path:
    """A JUnit file as pytest writes it."""
    suite = f'<testsuite tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}">'
    file = path / "report.xml"
    file.write_text(f"<testsuites>{suite}{''.join(cases)}</testsuite></testsuites>")
    return file


def test_a_stage_that_was_skipped_whole_is_told_with_its_reason(tmp_path: Path) -> None:
    whole = report(tmp_path, SKIPPED, SKIPPED, skipped=2)
    assert not_run(TITLE, whole) == f"!!! NOT RUN: the 2 tests {TITLE}. Could not fetch Go modules."
    assert counts(whole) == Counter(skipped=2)


@pytest.mark.parametrize(
    ("cases", "failures", "skipped"),
    [((PASSED, SKIPPED), 0, 1), ((FAILED, SKIPPED), 1, 1), ((PASSED,), 0, 0), ((), 0, 0)],
)
def test_a_stage_of_which_something_ran_is_not(
    tmp_path: Path, cases: tuple[str, ...], failures: int, skipped: int
) -> None:
    assert not_run(TITLE, report(tmp_path, *cases, failures=failures, skipped=skipped)) == ""


def test_a_stage_that_wrote_no_report_is_told_by_its_exit_code(tmp_path: Path) -> None:
    assert not_run(TITLE, tmp_path / "none.xml") == ""


def folders(mark: str) -> set[str]:
    """Where the stages for tests with this mark look, each from the root of the checkout."""
    given = [stage for stage in STAGES.values() if stage[stage.index("-m") + 1].split()[0] == mark]
    assert given
    paths = [
        option.removeprefix("testpaths=") for stage in given for option in stage if "testpaths" in option
    ]
    assert len(paths) == len(given)
    return {folder for each in paths for folder in each.split()}


@pytest.mark.parametrize("mark", ["cluster", "engine"])
def test_every_marked_test_is_where_its_stage_looks(mark: str) -> None:
    marked = [
        file for file in (ROOT / "tests").rglob("test_*.py") if f"pytest.mark.{mark}" in file.read_text()
    ]
    assert len(marked) > 5
    for file in marked:
        assert any(file.is_relative_to(ROOT / folder) for folder in folders(mark)), file
