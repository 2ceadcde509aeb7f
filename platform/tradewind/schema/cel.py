"""What a cross-field rule is in a custom resource definition, and the pieces of CEL that rules are made of.

Only what Kubernetes' CEL has had since 1.25: the standard library and its macros, strings
(`lowerAscii`) and regular expressions (`find`). `self` is the model; optional fields are asked for
with `has(self.field)`; fields with a default are always there, because defaulting comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tradewind.api.values import PATTERN_MEANING


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must hold, and what a person is told when it does not."""

    cel: str
    message: str


@dataclass(frozen=True, slots=True)
class Unique:
    """The items of a list (or the field `by` of each) are all different.

    Where the order of items has no meaning this is a Kubernetes list type, `set` or `map`, which also
    lets several writers own items of one list. An `ordered` list stays whole and has a CEL rule.
    """

    field: str
    by: str | None = None
    ordered: bool = False

    def rule(self) -> Rule:
        """The CEL rule of an ordered list; it takes a list that may be absent."""
        here, key = f"self.{self.field}", "" if self.by is None else f".{self.by}"
        cel = f"!has({here}) || {here}.all(a, {here}.exists_one(b, b{key} == a{key}))"
        return Rule(cel, f"{self.field}: allowed: each {self.by or 'value'} once")


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A rule that CEL cannot say, and why. The operator refuses what breaks it, with a condition."""

    reason: str


Constraint = Rule | Unique | Unsaid

_SUFFIXES: Final = (
    "{'': 1.0, 'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12, "
    "'Ki': 1024.0, 'Mi': 1048576.0, 'Gi': 1073741824.0, 'Ti': 1099511627776.0}"
)


def text(value: str) -> str:
    """A CEL string literal."""
    return json.dumps(value)


def texts(values: Iterable[str]) -> str:
    """A CEL list of string literals."""
    return f"[{', '.join(text(value) for value in values)}]"


def matches(operand: str, pattern: str) -> str:
    """Whether a string has a match of `pattern` (RE2) anywhere."""
    return f"{operand}.matches({text(pattern)})"


def bytes_of(operand: str) -> str:
    """The number of bytes, a double, that a quantity such as "16Gi" stands for."""
    return f"double({operand}.find('^[0-9.]+')) * {_SUFFIXES}[{operand}.find('[A-Za-z]*$')]"


def duration_between(least: str, most: str) -> Rule:
    """For a field: a duration within bounds, both included."""
    cel = f"duration(self) >= duration({text(least)}) && duration(self) <= duration({text(most)})"
    return Rule(cel, f"allowed: {least} to {most}")


def quantity_between(least: str, most: str, least_bytes: int, most_bytes: int) -> Rule:
    """For a field: a quantity within bounds, both included. A fraction of a byte is not counted."""
    cel = f"[{bytes_of('self')}].all(bytes, bytes >= {least_bytes}.0 && bytes < {most_bytes + 1}.0)"
    return Rule(cel, f"allowed: {least} to {most}")


def keys_like(pattern: str | None, least: int, most: int | None) -> Rule | None:
    """For a map: every key matches and has a length within bounds. None where nothing is asked of keys."""
    if most is None and pattern is None and not least:
        return None
    wanted = [matches("key", pattern)] if pattern else []
    wanted += [f"size(key) >= {least}"] if least else []
    wanted += [] if most is None else [f"size(key) <= {most}"]
    meaning = PATTERN_MEANING.get(pattern or "", f"at most {most} characters")
    return Rule(f"self.all(key, {' && '.join(wanted)})", f"allowed for each key: {meaning}")
