"""Generated files are what the code says, and the schemas hold what a CRD will need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.api.test_resources import VALID
from tradewind.api.problems import Code
from tradewind.api.resources import KINDS
from tradewind.schema.__main__ import main
from tradewind.schema.json_schemas import json_schema
from tradewind.schema.pages import arguments_page, errors_page, resources_page
from tradewind.schema.registry import GENERATED, Generated, check_all, write_all
from tradewind.schema.vllm_arguments import _from_hint

ROOT = Path(__file__).resolve().parents[3]
HERE = {name: entry for name, entry in GENERATED.items() if entry.needs is None}


def test_committed_files_are_what_the_code_says() -> None:
    assert check_all(ROOT, HERE) == [], "run: python -m tradewind.schema write"


def test_every_generated_file_is_committed() -> None:
    assert [name for name in GENERATED if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("data", [case[1] for case in VALID], ids=[case[0] for case in VALID])
def test_valid_resources_fit_the_published_schema(data: dict[str, Any]) -> None:
    jsonschema.validate(data, json_schema(data["kind"]))


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_length_and_number_is_bounded(kind: str) -> None:
    loose = []
    for node in nodes(json_schema(kind)):
        kind_of = node.get("type")
        if kind_of == "string" and not {"maxLength", "const", "enum"} & set(node):
            loose.append(node)
        if kind_of == "array" and "maxItems" not in node:
            loose.append(node)
        if kind_of in ("integer", "number") and not ({"maximum", "exclusiveMaximum"} & set(node)):
            loose.append(node)
        if (
            kind_of == "object"
            and node.get("additionalProperties") is not False
            and "maxProperties" not in node
        ):
            loose.append(node)
    assert loose == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_union_is_only_ever_with_null(kind: str) -> None:
    for node in nodes(json_schema(kind)):
        options = node.get("anyOf", [])
        assert len([option for option in options if option.get("type") != "null"]) <= 1
        assert "oneOf" not in node


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_refers_to_itself(kind: str) -> None:
    schema = json_schema(kind)

    def inside(node: Any, seen: tuple[str, ...]) -> None:
        for inner in nodes({key: value for key, value in node.items() if key != "$defs"}):
            if "$ref" in inner:
                name = inner["$ref"].rsplit("/", 1)[1]
                assert name not in seen
                inside(schema["$defs"][name], (*seen, name))

    inside(schema, ())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_says_what_it_means(kind: str) -> None:
    rows = [line for line in resources_page().splitlines() if line.startswith("| `")]
    assert rows
    assert [line for line in rows if line.endswith("|  |")] == []
    for model in KINDS.values():
        assert model.__doc__


def test_every_error_code_is_documented() -> None:
    page = errors_page()
    assert all(f"| `{code.wire}` | {code.value.status} |" in page for code in Code)


def test_offered_and_refused_arguments_are_documented() -> None:
    page = arguments_page()
    assert "| `maxModelLen` | a whole number |" in page
    assert "| `workerCls` | it loads code into the engine |" in page


def test_write_then_check_is_clean_and_a_change_is_shown(tmp_path: Path) -> None:
    generated = {
        "docs/a.md": Generated(lambda: "one\ntwo\n"),
        "b": Generated(lambda: "x", needs="no_such_module_"),
    }
    assert check_all(tmp_path, generated) == ["docs/a.md: missing"]
    assert write_all(tmp_path, generated) == ["docs/a.md"]
    assert write_all(tmp_path, generated) == []
    assert check_all(tmp_path, generated) == []
    (tmp_path / "docs/a.md").write_text("one\n2\n")
    (report,) = check_all(tmp_path, generated)
    assert report.startswith("docs/a.md: not what the code says")
    assert "+two" in report
    assert "-2" in report


def test_called_wrongly_it_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wirte"], tmp_path) == 2
    assert "write|check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hint", "entry"),
    [
        (int, {"kinds": ["integer"]}),
        (bool | None, {"kinds": ["boolean"]}),
        (list[str] | None, {"kinds": ["list"], "items": ["string"]}),
        (dict[str, int], {"kinds": ["map"]}),
        ("dict[str, Any] | Unknown | None", {"kinds": ["map"]}),
        (str | dict[str, str], {"kinds": ["map", "string"]}),
    ],
)
def test_types_become_kinds(hint: Any, entry: dict[str, Any]) -> None:
    assert _from_hint(hint) == entry
