"""YAML text as plain data that knows where each value stands.

Built from parser events, without PyYAML's constructors: no tag can create an object, no alias can
grow beyond the caps, and `no`, `010` or `2024-01-01` are the text that they look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tradewind.api.model import Path
from tradewind.compiler.diagnostics import Diagnostic

MAX_CHARACTERS: Final = 2 * 2**20
MAX_NODES: Final = 50_000
"""Values in one text, each use of an alias counted with all that it stands for."""
MAX_DEPTH: Final = 32

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,18}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,2})?")
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_STRING_TAG: Final = "tag:yaml.org,2002:str"
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlTextError(Exception):
    """The text is not YAML that we take; `diagnostic` says where and why."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


@dataclass(slots=True)
class Node:
    """A value and its place; lines and columns count from 1."""

    line: int
    column: int
    scalar: str | int | float | bool | None = None
    items: list[Node] | None = None
    members: dict[str, Node] | None = None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where each member's key stands."""
    size: int = 1
    depth: int = 1

    def plain(self) -> Any:
        """The value as JSON-able data."""
        if self.members is not None:
            return {key: node.plain() for key, node in self.members.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        return self.scalar

    def place(self, path: Path) -> tuple[int, int]:
        """Line and column of what `path` names, or of the nearest thing around it."""
        node, place = self, (self.line, self.column)
        for part in path:
            if isinstance(part, str) and node.members is not None and part in node.members:
                node, place = node.members[part], node.keys[part]
            elif isinstance(part, int) and node.items is not None and part < len(node.items):
                node = node.items[part]
                place = (node.line, node.column)
            else:
                break
        return place


def read_nodes(text: str, file: str) -> Iterator[Node]:
    """The documents of a YAML text, empty ones left out.

    Raises:
        YamlTextError: not YAML, too large, too deep, or with a duplicate key, a tag or a merge key.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"found {len(text)} characters; allowed: at most {MAX_CHARACTERS}"
        raise YamlTextError(Diagnostic(file, 1, 1, "", message))
    builder = _Builder(file, yaml.parse(text, Loader=_Loader))
    try:
        yield from builder.documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = f"not YAML: {error.problem or error.context}"
        raise YamlTextError(Diagnostic(file, line, column, "", problem)) from None
    except yaml.YAMLError as error:
        problem = f"not YAML: {str(error).splitlines()[0]}"
        raise YamlTextError(Diagnostic(file, 1, 1, "", problem)) from None


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column, from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Builder:
    """Turns the events of one text into nodes."""

    def __init__(self, file: str, events: Iterator[yaml.Event]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                node = self._node(next(self._events), 1)
                if node.scalar is not None or node.members is not None or node.items is not None:
                    yield node

    def _fail(self, event: yaml.Event, message: str) -> YamlTextError:
        return YamlTextError(Diagnostic(self._file, *_place(event), "", message))

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event, depth)
        else:
            node = Node(*_place(event))
            if isinstance(event, yaml.ScalarEvent):
                node.scalar = self._scalar(event)
            elif isinstance(event, yaml.SequenceStartEvent):
                self._sequence(event, node, depth)
            elif isinstance(event, yaml.MappingStartEvent):
                self._mapping(event, node, depth)
            self._spend(event, 1)
            if anchor := getattr(event, "anchor", None):
                self._anchors[anchor] = node
        return node

    def _spend(self, event: yaml.Event, nodes: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise self._fail(event, f"more than {MAX_NODES} values, aliases counted with all they stand for")

    def _alias(self, event: yaml.AliasEvent, depth: int) -> Node:
        if event.anchor not in self._anchors:
            raise self._fail(
                event, f"alias *{str(event.anchor)[:60]} stands for nothing that is complete before it"
            )
        node = self._anchors[event.anchor]
        if depth + node.depth - 1 > MAX_DEPTH:
            raise self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        self._spend(event, node.size)
        return node

    def _sequence(self, event: yaml.SequenceStartEvent, node: Node, depth: int) -> None:
        self._refuse_tag(event)
        node.items = []
        while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
            self._adopt(node, item := self._node(inner, depth + 1))
            node.items.append(item)

    def _mapping(self, event: yaml.MappingStartEvent, node: Node, depth: int) -> None:
        self._refuse_tag(event)
        node.members = {}
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key = self._key(inner)
            if key in node.members:
                line = node.keys[key][0]
                raise self._fail(inner, f"key {key[:60]!r} a second time; it is already in line {line}")
            node.keys[key] = _place(inner)
            self._adopt(node, member := self._node(next(self._events), depth + 1))
            node.members[key] = member

    def _key(self, event: yaml.Event) -> str:
        key = self._scalar(event) if isinstance(event, yaml.ScalarEvent) else None
        if key == "<<":
            raise self._fail(event, "merge keys (<<) are not taken; write the fields out")
        if not isinstance(key, str):
            raise self._fail(event, "a key must be text; put it in quotes")
        return key

    @staticmethod
    def _adopt(parent: Node, child: Node) -> None:
        parent.size += child.size
        parent.depth = max(parent.depth, child.depth + 1)

    def _refuse_tag(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag not in (None, "!"):
            raise self._fail(event, "tags (!) are not taken")

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text: str = event.value
        if event.tag not in (None, "!", _STRING_TAG):
            raise self._fail(event, "tags (!) are not taken")
        if event.tag is not None or not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?[0-9]+", text):
            return float(text)
        return text
