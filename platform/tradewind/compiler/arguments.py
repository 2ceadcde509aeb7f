"""Checks a ModelDeployment's engine arguments against the table of the supported vLLM."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from tradewind.api.explain import show
from tradewind.api.model import Fault
from tradewind.api.values import camel
from tradewind.compiler.owned_arguments import ONLY, ONLY_KEYS, OWNED, SPECULATIVE_METHODS

TABLE_FILE: Final = "vllm_arguments.json"
MAX_ARGUMENT_CHARACTERS: Final = 16_384
_KIND_WORDS: Final = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "list": "a list",
    "map": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as vLLM takes it. `items` and `choices` are empty where anything goes."""

    name: str
    kinds: tuple[str, ...]
    items: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.name in ONLY:
            return ", ".join(ONLY[self.name])
        if self.choices:
            return ", ".join(map(str, self.choices))
        words = " or ".join(_KIND_WORDS[kind] for kind in self.kinds)
        items = " or ".join(_KIND_WORDS[kind] for kind in self.items)
        return f"{words}, each entry {items}" if items else words

    def takes(self, value: Any) -> bool:
        """Whether the value has one of the kinds and is one of the choices."""
        if self.name in ONLY:
            return value in ONLY[self.name]
        if self.choices:
            return not isinstance(value, bool) and value in self.choices
        if isinstance(value, list) and "list" in self.kinds:
            return not self.items or all(_has_kind(item, self.items) for item in value)
        return _has_kind(value, self.kinds)


@functools.cache
def argument_table() -> Mapping[str, Argument]:
    """The supported vLLM's arguments by snake_case name."""
    document = json.loads(resources.files("tradewind.compiler").joinpath(TABLE_FILE).read_text("utf-8"))
    return {
        name: Argument(
            name, tuple(entry["kinds"]), tuple(entry.get("items", ())), tuple(entry.get("choices", ()))
        )
        for name, entry in document["arguments"].items()
    }


def supported_vllm() -> str:
    """The vLLM version that the table describes."""
    document = json.loads(resources.files("tradewind.compiler").joinpath(TABLE_FILE).read_text("utf-8"))
    return str(document["vllm"])


def check_arguments(args: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Arguments by snake_case name, sorted, and what is wrong with them; paths relative to `args`.

    Values of refused arguments are not repeated: a token may have been written there.
    """
    checked: dict[str, Any] = {}
    faults: list[Fault] = []
    for written, value in args.items():
        name = _canonical(written)
        if name is None:
            faults.append(_unknown(written))
        elif name in OWNED:
            faults.append(Fault((written,), f"found {written!r}, which a resource may not set", OWNED[name]))
        elif name in checked:
            faults.append(Fault((written,), f"found {name!r} in two spellings; allowed: {camel(name)} once"))
        else:
            faults += _value_faults(written, argument_table()[name], value)
            checked[name] = value
    return {name: checked[name] for name in sorted(checked)}, faults


def _canonical(written: str) -> str | None:
    """The argument's own name for its camelCase or snake_case spelling."""
    table = argument_table()
    return written if written in table else _camel_names().get(written)


@functools.cache
def _camel_names() -> Mapping[str, str]:
    return {camel(name): name for name in argument_table()}


def _unknown(written: str) -> Fault:
    message = f"unknown argument {written[:60]!r}; vLLM {supported_vllm()} does not have it"
    squashed = written.replace("-", "").replace("_", "").lower()
    by_squashed = {name.replace("_", ""): name for name in argument_table() if name not in OWNED}
    near = difflib.get_close_matches(squashed, by_squashed, n=1, cutoff=0.75)
    return Fault((written,), message, f"did you mean {camel(by_squashed[near[0]])}?" if near else "")


def _value_faults(written: str, argument: Argument, value: Any) -> Iterable[Fault]:
    if not argument.takes(value):
        yield Fault((written,), f"found {show(value)}; allowed: {argument.allowed}")
    elif len(json.dumps(value)) > MAX_ARGUMENT_CHARACTERS:
        yield Fault(
            (written,), f"found a value of over {MAX_ARGUMENT_CHARACTERS} characters; allowed: at most that"
        )
    elif argument.name in ONLY_KEYS and isinstance(value, dict):
        yield from _key_faults(written, argument.name, value)


def _key_faults(written: str, name: str, value: Mapping[str, Any]) -> Iterable[Fault]:
    for key in value:
        if key not in ONLY_KEYS[name]:
            allowed = ", ".join(ONLY_KEYS[name])
            yield Fault(
                (written, key), f"found {key[:60]!r}, which a resource may not set; allowed: {allowed}"
            )
    if name == "speculative_config" and value.get("method") not in SPECULATIVE_METHODS:
        allowed = ", ".join(SPECULATIVE_METHODS)
        yield Fault((written, "method"), f"found {show(value.get('method'))}; allowed: {allowed}")


def _has_kind(value: Any, kinds: Iterable[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int):
        return "integer" in kinds or "number" in kinds
    if isinstance(value, float):
        return "number" in kinds
    if isinstance(value, str):
        return "string" in kinds
    if isinstance(value, list):
        return "list" in kinds
    return isinstance(value, dict) and "map" in kinds
