"""YAML text as data with places: what it means, where it stands, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.compiler.yaml_nodes import MAX_CHARACTERS, Node, YamlTextError, read_nodes


def one(text: str) -> Node:
    (node,) = read_nodes(text, "f.yaml")
    return node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("9" * 40, "9" * 40),
        ('"1"', "1"),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("null", None),
        ("~", None),
    ],
)
def test_a_scalar_is_what_it_looks_like(text: str, value: object) -> None:
    assert one(f"a: {text}").plain() == {"a": value}


def test_places_are_those_of_keys_and_list_items() -> None:
    node = one("spec:\n  variants:\n    - name: a\n      weight: 1\n    - {name: b, weight: 2}\n")
    assert node.place(("spec", "variants", 0, "weight")) == (4, 7)
    assert node.place(("spec", "variants", 1, "weight")) == (5, 17)
    assert node.place(("spec", "variants", 1)) == (5, 7)
    assert node.place(("spec", "missing", "deep")) == (1, 1)
    assert node.place(("spec", "variants", 9)) == (2, 3)


def test_documents_without_content_are_left_out() -> None:
    nodes = list(read_nodes("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n", "f"))
    assert [node.plain() for node in nodes] == [{"a": 1}, {"b": 2}]


def test_an_alias_stands_for_its_value() -> None:
    assert one("a: &x {b: [1, 2]}\nc: *x\n").plain() == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "key 'a' a second time; it is already in line 1"),
        ("a:\n  - {b: 1, b: 2}\n", (2, 12), "key 'b' a second time"),
        (BOMB, None, "more than 50000 values"),
        ("a: " + "[" * 40 + "]" * 40, None, "nested deeper than 32 levels"),
        ("a: " + "[" * 100_000, None, "nested deeper than 32 levels"),
        ("a: &x [*x]\n", (1, 8), "stands for nothing that is complete"),
        ("a: *nowhere\n", (1, 4), "stands for nothing"),
        ("a: !!python/object/apply:os.system [ls]\n", (1, 4), "tags"),
        ("a: !!python/name:os.system x\n", (1, 4), "tags"),
        ("a: !!int 5\n", (1, 4), "tags"),
        ("b: &b {c: 1}\na:\n  <<: *b\n", (3, 3), "merge keys"),
        ("1: a\n", (1, 1), "a key must be text"),
        ("[a]: b\n", (1, 1), "a key must be text"),
        ("a: [1\nb: 2\n", None, "not YAML"),
        ("a: b: c\n", (1, 5), "not YAML"),
        ("a: 'x\n", None, "not YAML"),
        ("a: \x00\n", None, "not YAML"),
        ("a: " + "x" * MAX_CHARACTERS, (1, 1), "characters; allowed: at most"),
        ("\n".join(f"a{i}: 1" for i in range(60_000)), None, "more than 50000 values"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_refused(text: str, place: tuple[int, int] | None, says: str) -> None:
    with pytest.raises(YamlTextError) as caught:
        list(read_nodes(text, "f.yaml"))
    found = caught.value.diagnostic
    assert says in found.message
    assert found.line >= 1
    if place is not None:
        assert (found.line, found.column) == place


def test_an_alias_cannot_nest_deeper_than_the_text_may() -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))
    with pytest.raises(YamlTextError, match="nested deeper"):
        list(read_nodes(chain, "f"))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    lines = [1]
    try:
        lines += [node.line for node in read_nodes(text, "f")]
    except YamlTextError as error:
        lines.append(error.diagnostic.line)
    assert min(lines) == 1
