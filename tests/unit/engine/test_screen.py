"""What is refused where vLLM renders a request, before it begins an answer."""

from __future__ import annotations

from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest

from tradewind.engine import screen
from tradewind.engine.grammars import Grammars, GrammarsBusy
from tradewind.engine.tool_calls import NOT_PARSED


class Renderer:
    """vLLM's renderer: each method answers what it was given, or an error."""

    def __init__(self, answer: Any = "rendered") -> None:
        self.answer = answer
        self.rendered: list[Any] = []

    async def render_chat(self, request: Any, *, skip_mm_cache: bool = False) -> Any:
        self.rendered.append(request)
        return self.answer

    render_completion = render_responses = render_chat

    def create_error_response(self, message: str, kind: str, status: HTTPStatus, param: str | None) -> Any:
        return SimpleNamespace(
            error=SimpleNamespace(message=message, type=kind, code=status.value, param=param)
        )


def request(constraint: str | None = None, **fields: Any) -> Any:
    return SimpleNamespace(extract_structured_outputs=lambda: constraint, **fields)


def attempt(constraint: str) -> None:
    if constraint == "bad":
        raise ValueError("no such thing")


def screened(answer: Any = "rendered", *, parses_tools: bool = True, grammars: Any = None) -> Renderer:
    renderer = Renderer(answer)
    screen.install(renderer, grammars or Grammars(attempt, str), parses_tools=parses_tools)
    return renderer


RENDERS = ["render_chat", "render_completion", "render_responses"]
TOOLS = {"tools": [SimpleNamespace(type="function")], "tool_choice": "auto"}


@pytest.mark.parametrize("name", RENDERS)
async def test_what_can_be_carried_out_passes(name: str) -> None:
    renderer = screened()
    assert await getattr(renderer, name)(request("good", **TOOLS), skip_mm_cache=True) == "rendered"
    assert await getattr(renderer, name)(request()) == "rendered"


@pytest.mark.parametrize("name", RENDERS)
async def test_a_constraint_that_cannot_be_used_is_a_bad_request(name: str) -> None:
    error = (await getattr(screened(), name)(request("bad"))).error
    assert (error.code, error.message) == (400, "Structured output cannot be compiled: no such thing")


async def test_a_constraint_that_could_not_be_tried_is_no_mistake_of_the_caller() -> None:
    class Busy:
        async def check(self, constraint: str) -> None:
            raise GrammarsBusy("busy")

    error = (await screened(grammars=Busy()).render_chat(request("good"))).error
    assert error.code == 503


async def test_tools_without_a_parser_are_refused_before_anything_is_rendered() -> None:
    renderer = screened(parses_tools=False)
    error = (await renderer.render_chat(request(**TOOLS))).error
    assert (error.code, error.message, error.param) == (400, NOT_PARSED, "tools")
    assert renderer.rendered == []
    assert await renderer.render_chat(request(**TOOLS | {"tool_choice": "none"})) == "rendered"


async def test_vllms_own_refusal_of_tools_says_the_same() -> None:
    own = SimpleNamespace(error=SimpleNamespace(message="tool_choice requires --tool-call-parser to be set"))
    error = (await screened(own).render_chat(request(**TOOLS))).error
    assert error.message == NOT_PARSED


async def test_another_refusal_stays_and_nothing_is_tried() -> None:
    other = SimpleNamespace(error=SimpleNamespace(message="too long"))
    assert await screened(other).render_chat(request("bad")) is other
