"""`tradewind chat`: a conversation in the terminal that shows which variant answered."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tradewind.cli.client import Answer, Client, EndpointError
from tradewind.cli.console import err, out
from tradewind.cli.errors import BAD_INPUT, CommandFailed


def pick_model(client: Client, wanted: str | None) -> str:
    """The model to talk to: `wanted`, or the first one that the endpoint lists."""
    try:
        names = [str(entry["id"]) for entry in client.models()]
    except EndpointError as error:
        raise CommandFailed(str(error)) from error
    if wanted is None:
        if not names:
            raise CommandFailed("the endpoint serves no model")
        return names[0]
    if wanted not in names:
        raise CommandFailed(f"no model {wanted!r}", hint=f"one of: {', '.join(names)}", exit_code=BAD_INPUT)
    return wanted


def say(client: Client, model: str, messages: list[dict[str, str]], user: str | None) -> Answer:
    """Stream one answer to standard output; returns it."""
    answer = Answer()
    body = {"user": user} if user else {}
    for piece in client.chat(model, messages, answer, **body):
        out.print(piece, end="", markup=False, soft_wrap=True)
    out.print()
    return answer


def describe(answer: Answer) -> str:
    """The line below an answer."""
    return (
        f"{answer.route} → {answer.variant} · {answer.ttft_s * 1000:.0f} ms to first token · "
        f"{answer.tokens_per_s:.1f} tokens/s · {answer.request_id}"
    )


def chat(client: Client, model: str | None, prompt: str | None, user: str | None) -> None:
    """Answer one `prompt`, or converse until end of input."""
    name = pick_model(client, model)
    messages: list[dict[str, str]] = []
    interactive = prompt is None and sys.stdin.isatty()
    if interactive:
        err.print(f"Talking to [bold]{name}[/]. Ctrl-D ends.")
    for question in [prompt] if prompt is not None else _questions(interactive):
        messages.append({"role": "user", "content": question})
        try:
            answer = say(client, name, messages, user)
        except EndpointError as error:
            raise CommandFailed(str(error)) from error
        messages.append({"role": "assistant", "content": answer.text})
        err.print(f"[dim]{describe(answer)}[/]")


def _questions(interactive: bool) -> Iterator[str]:
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return
        if line.strip():
            yield line
