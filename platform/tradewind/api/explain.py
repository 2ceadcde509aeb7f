"""Pydantic's validation errors in a person's words: what was found, and what is allowed.

Values under fields that lead to secrets are never repeated: someone may have written a key there.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tradewind.api.model import RULES_ERROR, ApiModel, Fault, Path
from tradewind.api.values import PATTERN_MEANING

_SECRET_PLACES: Final = frozenset({"keys", "tokenSecret", "secret", "env"})
_SECRET_FIELDS: Final = frozenset({"uri", "endpoint", "otlpEndpoint"})
_TYPES: Final = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
    "too_short": ("min_length", "at least {} entries"),
    "too_long": ("max_length", "at most {} entries"),
}


def explain(error: ValidationError, model: type[ApiModel], data: Mapping[str, Any]) -> list[Fault]:
    """Every error of a validation as a fault at its path in `data`."""
    faults: list[Fault] = []
    for item in error.errors(include_url=False):
        path = _path(item["loc"])
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            # pydantic counts only the entries that are right; the wrong ones have faults of their own.
            continue
        if item["type"] == RULES_ERROR:
            faults += [
                Fault((*path, *fault.path), fault.message, fault.hint) for fault in item["ctx"]["faults"]
            ]
        else:
            faults.append(_fault(item, path, model))
    return list(dict.fromkeys(faults))


def _path(loc: Sequence[str | int]) -> Path:
    """The location without pydantic's own marks, such as `[key]` after a mapping's key."""
    return tuple(part for part in loc if part != "[key]")


def _fault(item: ErrorDetails, path: Path, model: type[ApiModel]) -> Fault:
    kind, context = item["type"], item.get("ctx", {})
    last = str(path[-1]) if path else ""
    secret = last in _SECRET_FIELDS or any(part in _SECRET_PLACES for part in path)
    if kind == "extra_forbidden":
        return _unknown_field(path, model, secret=secret)
    if kind == "json_invalid":
        return Fault(path, "found text that is not Unicode")
    if kind == "missing":
        return Fault(path, "missing; this field is required")
    found = "a value that is not shown here" if secret else show(item.get("input"))
    if kind == "bounded":
        return Fault(path, "found a value that is not allowed" if secret else item["msg"])
    owner = _model_at(model, path[:-1])
    hint = owner.planned.get(last, "") if owner is not None and kind in _BOUNDS else ""
    return Fault(path, f"found {found}; allowed: {_allowed(kind, context, item['msg'])}", hint)


def _allowed(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        key, phrase = _BOUNDS[kind]
        return phrase.format(context.get(key))
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        return PATTERN_MEANING.get(pattern, f"text that matches {pattern}")
    if kind in ("literal_error", "enum"):
        return str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
    return message


def _unknown_field(path: Path, model: type[ApiModel], *, secret: bool) -> Fault:
    owner = _model_at(model, path[:-1])
    name = str(path[-1])
    if owner is None:
        return Fault(path, "unknown field")
    allowed = [field.alias or key for key, field in owner.model_fields.items()]
    listed = ", ".join(allowed)
    if secret and name not in owner.planned:
        return Fault(path[:-1], f"found a field that does not exist here; allowed: {listed}")
    if name in owner.planned:
        return Fault(path, f"found {name!r}; {owner.planned[name]}; allowed: {listed}")
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else ""
    return Fault(path, f"unknown field {name[:60]!r}; allowed: {listed}", hint)


def _model_at(model: type[ApiModel], path: Path) -> type[ApiModel] | None:
    """The model that describes `path`, or None where there is none (a free mapping)."""
    current: Any = model
    for part in path:
        current = _inner(current)
        if isinstance(part, int):
            continue
        if get_origin(current) is dict:
            current = get_args(current)[1]
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return None
        by_alias = {field.alias: field.annotation for field in current.model_fields.values()}
        if part not in by_alias:
            return None
        current = by_alias[part]
    current = _inner(current)
    return current if isinstance(current, type) and issubclass(current, ApiModel) else None


def _inner(annotation: Any) -> Any:
    """The model inside Optional, Annotated and sequences."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner(get_args(annotation)[0])
    if origin in (Union, types.UnionType, tuple, list):
        inner = [arg for arg in get_args(annotation) if arg not in (type(None), Ellipsis)]
        return _inner(inner[0])
    return annotation


def show(value: object) -> str:
    """A short form of a value for a message; at most about 60 characters of it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return str(value)[:60]


def dotted(path: Path) -> str:
    """`spec.variants[1].weight`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and all(c.isalnum() or c in "_-" for c in part):
            text += f".{part}" if text else part
        else:
            text += f"[{part[:60]!r}]"
    return text
