"""Forced tools: what a deployment must have for them, and arguments that are an object.

A model that must call a tool is held to the call's frame by a grammar, and to the schema of the
arguments only where the tool says `strict`. Without it vLLM lets them be any JSON, a bare string too,
which Anthropic's protocol has no place for and OpenAI's clients do not expect. So a forced tool is held to
its schema, and to some object where the caller said `strict: false`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tradewind.api.refusals import TOOLS

NOT_PARSED = (
    TOOLS + "the model's deployment does not read tool calls. "
    "Its spec.engine.args need toolCallParser and enableAutoToolChoice."
)
_ANY_OBJECT = {"type": "object"}


def forced(choice: Any) -> bool:
    """Whether a `tool_choice` (a word, one of vLLM's objects, or None) demands a call."""
    if choice is None or isinstance(choice, str):
        return choice == "required"
    return getattr(choice, "mode", None) != "auto"


def wants_tools(request: Any) -> bool:
    """Whether a request offers tools that the model may call."""
    choice = getattr(request, "tool_choice", None)
    return choice != "none" and any(
        getattr(tool, "type", "function") in ("function", "custom")
        for tool in getattr(request, "tools", None) or ()
    )


def held_to_schema(tools: list[Any]) -> list[Any]:
    """vLLM's tools with arguments that a grammar holds to an object: their schema's where it is one."""
    return [_held(tool) for tool in tools]


def _held(tool: Any) -> Any:
    inner = getattr(tool, "function", None)
    function = tool if inner is None else inner
    if not hasattr(function, "parameters"):
        return tool
    parameters = function.parameters
    if function.strict is False or not _is_object(parameters):
        parameters = _ANY_OBJECT
    changed = function.model_copy(update={"strict": True, "parameters": parameters})
    return changed if inner is None else tool.model_copy(update={"function": changed})


def _is_object(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type", "object") == "object"


def object_parser(parser: type[Any]) -> type[Any]:
    """`parser`, one of vLLM's classes of tool parsers, with forced calls held to an object."""

    class ObjectParser(parser):  # type: ignore[misc]
        def get_structural_tag(self, request: Any, **options: Any) -> Any:
            if forced(request.tool_choice) and request.tools:
                request = request.model_copy(update={"tools": held_to_schema(request.tools)})
            return super().get_structural_tag(request, **options)

    ObjectParser.__name__ = parser.__name__
    ObjectParser.__qualname__ = parser.__qualname__
    return ObjectParser


def complete_calls(
    convert: Callable[[Any], Any], failure: Callable[[str], Exception]
) -> Callable[[Any], Any]:
    """`convert`, which makes Anthropic's answer of a chat's, for calls that are whole.

    A call that the bound on tokens cut off is left out: the answer's `max_tokens` says why it is not there.
    Any other whose arguments are no object is the model's failure, not the caller's.
    """

    def converted(answer: Any) -> Any:
        choice = answer.choices[0]
        calls = choice.message.tool_calls or []
        whole = [call for call in calls if _is_whole(call.function.arguments)]
        if len(whole) < len(calls):
            if choice.finish_reason != "length":
                raise failure("the model's tool call has arguments that are no object")
            choice.message.tool_calls = whole
        return convert(answer)

    return converted


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
