"""Between vLLM's endpoints and its engine: what the caller or the deployment is to blame for ends here.

Every endpoint that generates has its request rendered by one object, before a stream's 200 and before the
engine hears of it. Refusals are made there, so that they are alike for all protocols, streamed or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from tradewind.engine.grammars import GrammarRefused, Grammars, GrammarsBusy
from tradewind.engine.tool_calls import NOT_PARSED, wants_tools

_RENDERS: Final = ("render_chat", "render_completion", "render_responses")
_NO_PARSER: Final = ("--tool-call-parser", "--enable-auto-tool-choice")
"""What vLLM's refusals of tools name, each of them."""
Render = Callable[..., Awaitable[Any]]


def install(renderer: Any, grammars: Grammars, *, parses_tools: bool) -> None:
    """Have vLLM's `renderer` refuse what cannot be carried out.

    Args:
        renderer: its `OnlineRenderer`.
        grammars: tries constraints.
        parses_tools: the deployment reads tool calls.
    """
    for name in _RENDERS:
        setattr(
            renderer, name, _screened(renderer, getattr(renderer, name), grammars, parses_tools=parses_tools)
        )


def _screened(renderer: Any, render: Render, grammars: Grammars, *, parses_tools: bool) -> Render:
    def refuse(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, param: str | None = None) -> Any:
        kind = "BadRequestError" if status == HTTPStatus.BAD_REQUEST else "ServiceUnavailableError"
        return renderer.create_error_response(message, kind, status, param)

    async def screened(request: Any, **options: Any) -> Any:
        if not parses_tools and wants_tools(request):
            return refuse(NOT_PARSED, param="tools")
        rendered = await render(request, **options)
        message = getattr(getattr(rendered, "error", None), "message", "")
        if any(flag in message for flag in _NO_PARSER):
            return refuse(NOT_PARSED, param="tools")
        if message:
            return rendered
        constraint = request.extract_structured_outputs()
        if constraint is None:
            return rendered
        try:
            await grammars.check(constraint)
        except GrammarRefused as refused:
            return refuse(str(refused))
        except GrammarsBusy as busy:
            return refuse(str(busy), HTTPStatus.SERVICE_UNAVAILABLE)
        return rendered

    return screened
