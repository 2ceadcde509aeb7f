"""Every YAML that is generated or documented means the same to readers of YAML 1.1 and of YAML 1.2.

Kubernetes reads 1.1, in which `n`, `yes` and `010` are neither text nor ten; editors and checkers read 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.golden.chart.rendering import CASES, render, values_of
from tests.unit.house.test_docs_examples import blocks

ROOT: Final = Path(__file__).resolve().parents[3]
SIGNS: Final = "+-.0123456789"
FILES: Final = (
    "examples/**/*.yaml",
    "deploy/helm/tradewind/*.yaml",
    "deploy/helm/tradewind/files/**/*.yaml",
    "tests/golden/operator/**/*.yaml",
    "tests/golden/chart/values/*.yaml",
)


class Reader11(yaml.SafeLoader):
    """YAML 1.1 with the one-letter booleans of its specification, which PyYAML alone leaves out."""


class Reader12(yaml.SafeLoader):
    """YAML 1.2 with its core schema: true and false, decimal and 0o numbers, no dates and no merge key."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it on instances


Reader11.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))
Reader11.bool_values = yaml.SafeLoader.bool_values | {"y": True, "n": False}
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list(SIGNS)),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list(SIGNS),
    ),
):
    Reader12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


Reader12.add_constructor("tag:yaml.org,2002:int", _int)


def documents(text: str, reader: type[yaml.SafeLoader]) -> list[Any]:
    """What a reader finds in `text`, document by document."""
    return list(yaml.load_all(text, Loader=reader))


def difference(one: Any, other: Any, path: str = "") -> str:
    """Where two values differ in value, type or key, and how; empty when they are the same."""
    if type(one) is not type(other):
        return f"{path or 'it'} is {one!r} in YAML 1.1 and {other!r} in YAML 1.2"
    if isinstance(one, dict):
        # 1 == True == 1.0 as keys, too.
        keys, others = ({(type(key), key) for key in value} for value in (one, other))
        if keys != others:
            return (
                f"{path or 'it'} has {only(keys - others)} in YAML 1.1 and {only(others - keys)} in YAML 1.2"
            )
        found = (difference(one[key], other[key], f"{path}.{key}") for key in one)
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{path or 'it'} has {len(one)} items in YAML 1.1 and {len(other)} in YAML 1.2"
        found = (difference(*pair, f"{path}[{n}]") for n, pair in enumerate(zip(one, other, strict=True)))
    else:
        return "" if one == other else f"{path or 'it'} is {one!r} in YAML 1.1 and {other!r} in YAML 1.2"
    return next((said for said in found if said), "")


def only(keys: set[tuple[type, Any]]) -> str:
    return ", ".join(repr(key) for _, key in keys)


def ambiguity(text: str) -> str:
    """What a text means to one reader and not to the other; empty when nothing."""
    return difference(documents(text, Reader11), documents(text, Reader12))


def texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every YAML of the project that Kubernetes or a person's tool is to read."""
    for pattern in FILES:
        found = sorted(ROOT.glob(pattern))
        assert found or "files" in pattern, f"nothing is {pattern}"
        for path in found:
            yield str(path.relative_to(ROOT)), path.read_text()
    for case in CASES:
        for name, text in render(values_of(case)).items():
            if name.endswith(".yaml"):
                yield f"{case}: {name}", text
    yield from blocks("yaml")


def test_every_text_means_the_same_to_both_readers() -> None:
    read = dict(texts())
    definitions = {place for place in read if "/crds/" in place}
    assert len(definitions) >= 4
    wrong = {place: said for place, text in read.items() if (said := ambiguity(text))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limits: {n: 4}", r"limits has False in YAML 1.1 and 'n' in YAML 1.2"),
        ("a: yes", r"a is True in YAML 1.1 and 'yes' in YAML 1.2"),
        ("a: [Y]", r"a\[0\] is True in YAML 1.1 and 'Y' in"),
        ("mode: 0640", r"mode is 416 in YAML 1.1 and 640 in YAML 1.2"),
        ("mode: 0o640", r"mode is '0o640' in YAML 1.1 and 416 in YAML 1.2"),
        ("at: 1:30", r"at is 90 in YAML 1.1 and '1:30' in YAML 1.2"),
        ("cpus: 1e3", r"cpus is '1e3' in YAML 1.1 and 1000.0 in YAML 1.2"),
        ("size: 1_000", r"size is 1000 in YAML 1.1 and '1_000' in YAML 1.2"),
        ("day: 2026-01-02", r"day is datetime.date\(2026, 1, 2\) in YAML 1.1 and '2026-01-02' in"),
        ("a: 1\n---\nb: off", r"\[1\].b is False in YAML 1.1"),
    ],
)
def test_a_text_with_two_meanings_is_found(text: str, says: str) -> None:
    assert re.search(says, ambiguity(text))


@pytest.mark.parametrize(
    "text", ["a: 'n'\nb: 1.5\nc: true\nd: null\ne: 0x1f\nf: -3\ng: ~\nh:\n", "- 10m\n- 1Gi"]
)
def test_a_text_with_one_meaning_is_left_alone(text: str) -> None:
    assert ambiguity(text) == ""
