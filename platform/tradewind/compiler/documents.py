"""Multi-document YAML text → resources that know their place in the text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tradewind.api.explain import dotted
from tradewind.api.model import Path
from tradewind.api.resources import InvalidResourceError, Resource, parse_resource
from tradewind.compiler.diagnostics import CompileError, Diagnostic
from tradewind.compiler.yaml_nodes import Node, YamlTextError, read_nodes

MAX_RESOURCES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Located:
    """A resource and where it was written."""

    resource: Resource
    file: str
    node: Node | None = None

    @classmethod
    def bare(cls, resource: Resource) -> Located:
        """A resource that did not come from text, such as one read from a cluster."""
        return cls(resource, f"{resource.kind}/{resource.metadata.name}")

    @property
    def name(self) -> str:
        return self.resource.metadata.name

    def at(self, path: Path, message: str, hint: str = "") -> Diagnostic:
        """A diagnostic about `path` in this resource."""
        line, column = self.node.place(path) if self.node else (0, 0)
        return Diagnostic(self.file, line, column, dotted(path), message, hint)


def read_documents(sources: Iterable[tuple[str, str]]) -> tuple[Located, ...]:
    """Resources of the given (file name, YAML text) pairs, in order.

    Raises:
        CompileError: with everything that is wrong in any of them, or when they hold no resource.
    """
    found: list[Located] = []
    wrong: list[Diagnostic] = []
    names: list[str] = []
    for file, text in sources:
        names.append(file)
        try:
            for node in read_nodes(text, file):
                _read_one(node, file, found, wrong)
        except YamlTextError as fault:
            wrong.append(fault.diagnostic)
    if not found and not wrong:
        wrong.append(Diagnostic(", ".join(names) or "input", 1, 1, "", "no resource in it"))
    if len(found) > MAX_RESOURCES:
        message = f"found {len(found)} resources; allowed: at most {MAX_RESOURCES}"
        wrong.append(found[MAX_RESOURCES].at((), message))
    if wrong:
        raise CompileError(wrong)
    return tuple(found)


def _read_one(node: Node, file: str, found: list[Located], wrong: list[Diagnostic]) -> None:
    if node.members is None:
        message = "a document must be a mapping with apiVersion, kind, metadata and spec"
        wrong.append(Diagnostic(file, node.line, node.column, "", message))
        return
    try:
        found.append(Located(parse_resource(node.plain()), file, node))
    except InvalidResourceError as error:
        for fault in error.faults:
            line, column = node.place(fault.path)
            wrong.append(Diagnostic(file, line, column, dotted(fault.path), fault.message, fault.hint))
