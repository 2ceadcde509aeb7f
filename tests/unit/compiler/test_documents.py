"""Errors of resources in files: each with file, line, column and path; all of them at once."""

from __future__ import annotations

import pytest

from tradewind.compiler.diagnostics import CompileError, Diagnostic
from tradewind.compiler.documents import Located, read_documents

GOOD = """\
apiVersion: tradewind.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  keys: [{env: ACME_KEY}]
"""
BAD_ROUTE = """\
# a comment
apiVersion: tradewind.dev/v1alpha1
kind: ModelRoute
metadata:
  name: chat
spec:
  model: chat
  variants:
    - name: a
      deployment: llama
      weight: -1
    - {name: b, deployment: llama, wieght: 2}
"""


def errors(*sources: tuple[str, str]) -> list[str]:
    with pytest.raises(CompileError) as caught:
        read_documents(sources)
    assert str(caught.value).splitlines() == [str(item) for item in caught.value.diagnostics]
    return [str(item) for item in caught.value.diagnostics]


def test_an_error_names_file_line_column_path_value_and_what_is_allowed() -> None:
    assert errors(("r.yaml", BAD_ROUTE)) == [
        "r.yaml:11:7: spec.variants[0].weight: found -1; allowed: at least 0",
        "r.yaml:12:36: spec.variants[1].wieght: unknown field 'wieght'; allowed: name, deployment, adapter, "
        "weight, overrides (did you mean weight?)",
    ]


def test_lines_count_from_the_top_of_the_file_in_later_documents() -> None:
    assert errors(("r.yaml", GOOD + "---\n" + BAD_ROUTE))[0].startswith(
        "r.yaml:17:7: spec.variants[0].weight"
    )


def test_all_files_are_reported_even_when_one_is_no_yaml() -> None:
    found = errors(("a.yaml", "a: [\n"), ("b.yaml", BAD_ROUTE), ("c.yaml", GOOD))
    assert [line.split(":")[0] for line in found] == ["a.yaml", "b.yaml", "b.yaml"]


def test_a_missing_field_points_at_what_should_hold_it() -> None:
    text = "apiVersion: tradewind.dev/v1alpha1\nkind: Tenant\nmetadata: {name: a}\nspec:\n  models: [chat]\n"
    assert errors(("t.yaml", text)) == ["t.yaml:4:1: spec.keys: missing; this field is required"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_a_file_without_a_resource_is_an_error(text: str) -> None:
    assert errors(("empty.yaml", text)) == ["empty.yaml:1:1: no resource in it"]


def test_no_file_at_all_is_an_error() -> None:
    assert errors() == ["input:1:1: no resource in it"]


@pytest.mark.parametrize("text", ["- a\n", "just text\n", "5\n"])
def test_a_document_must_be_a_mapping(text: str) -> None:
    assert "must be a mapping with apiVersion, kind" in errors(("f.yaml", text))[0]


def test_resources_come_in_the_order_of_the_files() -> None:
    second = GOOD.replace("acme", "beta")
    found = read_documents([("a.yaml", GOOD), ("b.yaml", second)])
    assert [(item.file, item.name) for item in found] == [("a.yaml", "acme"), ("b.yaml", "beta")]


def test_a_resource_without_text_is_named_by_kind_and_name() -> None:
    bare = Located.bare(read_documents([("a.yaml", GOOD)])[0].resource)
    assert str(bare.at(("spec", "keys", 0), "wrong")) == "Tenant/acme: spec.keys[0]: wrong"


def test_diagnostics_are_sorted_and_told_once() -> None:
    late, early = Diagnostic("f", 9, 1, "", "late"), Diagnostic("f", 2, 1, "", "early")
    assert CompileError([late, early, late]).diagnostics == (early, late)
