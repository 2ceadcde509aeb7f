"""What tools need, with objects in the shape of vLLM's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tradewind.api.refusals import TOOLS
from tradewind.engine.tool_calls import NOT_PARSED, complete_calls, forced, object_parser, wants_tools

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
ANY = {"type": "object"}


class Function(BaseModel):
    name: str = "weather"
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(BaseModel):
    type: str = "function"
    function: Function


class ResponsesTool(Function):
    type: str = "function"


class Request(BaseModel):
    tool_choice: Any = None
    tools: list[Any] | None = None


NAMED = SimpleNamespace(type="function", function=SimpleNamespace(name="weather"))
ALLOWED_AUTO = SimpleNamespace(type="allowed_tools", mode="auto")
ALLOWED_REQUIRED = SimpleNamespace(type="allowed_tools", mode="required")


@pytest.mark.parametrize(
    ("choice", "is_forced"),
    [
        (None, False),
        ("auto", False),
        ("none", False),
        ("required", True),
        (NAMED, True),
        (ALLOWED_AUTO, False),
        (ALLOWED_REQUIRED, True),
    ],
)
def test_which_choices_force_a_call(choice: Any, is_forced: bool) -> None:
    assert forced(choice) is is_forced


@pytest.mark.parametrize(
    ("request_", "wants"),
    [
        (Request(), False),
        (Request(tools=[]), False),
        (Request(tools=[ChatTool(function=Function())]), True),
        (Request(tools=[ChatTool(function=Function())], tool_choice="none"), False),
        (Request(tools=[ResponsesTool()], tool_choice="auto"), True),
        (Request(tools=[SimpleNamespace(type="web_search_preview")]), False),
        (SimpleNamespace(prompt="a completion has none"), False),
    ],
)
def test_which_requests_want_tools(request_: Any, wants: bool) -> None:
    assert wants_tools(request_) is wants


def test_the_refusal_names_what_the_deployment_lacks() -> None:
    assert NOT_PARSED.startswith(TOOLS)
    assert "toolCallParser" in NOT_PARSED
    assert "enableAutoToolChoice" in NOT_PARSED


class Parser:
    """vLLM's, as far as it matters: what it was asked to make a grammar of."""

    seen: Request

    def get_structural_tag(self, request: Request, *, reasoning: bool = False) -> str:
        self.seen = request
        return f"tag {reasoning}"


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("make", [lambda **f: ChatTool(function=Function(**f)), ResponsesTool])
@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"parameters": CITY}, CITY),
        ({"parameters": CITY, "strict": True}, CITY),
        ({"parameters": CITY, "strict": False}, ANY),
        ({"parameters": {"properties": {}}}, {"properties": {}}),
        ({}, ANY),
        ({"parameters": {"type": "string"}}, ANY),
    ],
)
def test_a_forced_tools_arguments_are_held_to_an_object(
    choice: Any, make: Any, given: Any, held: Any
) -> None:
    request = Request(tool_choice=choice, tools=[make(**given)])
    before = request.model_copy(deep=True)
    parser = object_parser(Parser)()
    assert parser.get_structural_tag(request, reasoning=True) == "tag True"
    (tool,) = parser.seen.tools
    function = getattr(tool, "function", tool)
    assert (function.name, function.strict, function.parameters) == ("weather", True, held)
    assert request == before, "what the prompt is made of stays"


@pytest.mark.parametrize("choice", [None, "auto", "none", ALLOWED_AUTO])
def test_a_model_that_may_choose_is_held_to_what_the_caller_said(choice: Any) -> None:
    request = Request(tool_choice=choice, tools=[ChatTool(function=Function(parameters=CITY))])
    parser = object_parser(Parser)()
    parser.get_structural_tag(request)
    assert parser.seen is request


def answer(finish_reason: str, *arguments: str) -> Any:
    calls = [SimpleNamespace(function=SimpleNamespace(name="weather", arguments=each)) for each in arguments]
    message = SimpleNamespace(tool_calls=calls, content="")
    return SimpleNamespace(choices=[SimpleNamespace(finish_reason=finish_reason, message=message)])


def arguments_of(answer: Any) -> list[str]:
    return [call.function.arguments for call in answer.choices[0].message.tool_calls]


def test_whole_calls_pass() -> None:
    convert = complete_calls(arguments_of, RuntimeError)
    assert convert(answer("stop", '{"a": 1}', "{}")) == ['{"a": 1}', "{}"]
    assert convert(answer("stop")) == []


def test_a_call_that_the_bound_cut_off_is_left_out() -> None:
    assert complete_calls(arguments_of, RuntimeError)(answer("length", "{}", '{"a": ')) == ["{}"]


@pytest.mark.parametrize("arguments", ['"canary"', "[{}]", "canary", "", "[" * 100_000])
def test_what_is_no_object_is_the_models_failure_and_is_not_quoted(arguments: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        complete_calls(arguments_of, RuntimeError)(answer("stop", arguments))
    assert str(raised.value) == "the model's tool call has arguments that are no object"
    assert raised.value.__cause__ is None
