"""`tradewind chat`: a conversation in the terminal that shows which variant answered."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tradewind.api.wire import Task
from tradewind.cli.client import Answer, Client, EndpointError
from tradewind.cli.console import err, failures, plain, printable
from tradewind.cli.errors import BAD_INPUT, FAILED, CommandFailed
from tradewind.cli.signals import Terminated

MAX_QUESTION_BYTES = 8 * 1024 * 1024
_USERS_FAULT = frozenset((400, 401, 403, 404, 413, 422))

Messages = list[dict[str, str]]
Fields = Mapping[str, Any]


def pick_model(client: Client, wanted: str | None) -> str:
    """The model to talk to: `wanted`, or the first one listed that generates text."""
    try:
        entries = client.models()
    except EndpointError as error:
        raise _failed(client, error) from error
    names = [entry["id"] for entry in entries]
    if wanted is None:
        talking = [entry["id"] for entry in entries if entry.get("task", Task.GENERATE) == Task.GENERATE]
        if not talking:
            raise CommandFailed("the endpoint serves no model that generates text")
        return str(talking[0])
    if wanted not in names:
        known = f"one of: {', '.join(names)}" if names else "this key may call no model"
        raise CommandFailed(f"no model {wanted!r}", hint=known, exit_code=BAD_INPUT)
    return wanted


def say(client: Client, model: str, messages: Messages, body: Fields, answer: Answer) -> None:
    """Stream one answer to standard output, and into `answer`. The line is ended whatever happens.

    `body` holds further fields of the request.
    """
    with contextlib.closing(client.chat(model, messages, answer, **body)) as pieces:
        try:
            for piece in pieces:
                _write(printable(piece))
        finally:
            _write("\n")


def _write(text: str) -> None:
    """To standard output at once and as it is: rich would turn tabs into spaces."""
    sys.stdout.write(text)
    sys.stdout.flush()


def describe(answer: Answer) -> str:
    """The line below an answer."""
    parts = [
        " → ".join(filter(None, (answer.route, answer.variant))),
        f"{answer.ttft_s * 1000:.0f} ms to first token",
        f"{answer.tokens_per_s:.1f} tokens/s",
        "cut at the token limit" if answer.finish_reason == "length" else "",
        answer.request_id,
    ]
    return " · ".join(filter(None, parts))


def chat(client: Client, model: str | None, prompt: str | None, body: Fields) -> None:
    """Answer one `prompt`, or what standard input holds, or converse with a person until end of input.

    `body` holds further fields of each request.

    Raises:
        CommandFailed: no answer, or not all of it. In a conversation that is only shown.
    """
    name = pick_model(client, model)
    if prompt is None and sys.stdin.isatty():
        _converse(client, name, body)
        return
    question = prompt if prompt is not None else _piped()
    if not question.strip():
        raise CommandFailed("no question", exit_code=BAD_INPUT, hint='tradewind chat "What is …?"')
    answer = Answer()
    try:
        say(client, name, [{"role": "user", "content": question}], body, answer)
    except EndpointError as error:
        raise _failed(client, error) from error
    err.print(plain(describe(answer), "dim"), soft_wrap=True)


def _piped() -> str:
    """All of standard input as one question."""
    content = sys.stdin.buffer.read(MAX_QUESTION_BYTES + 1)
    if len(content) > MAX_QUESTION_BYTES:
        raise CommandFailed(f"<stdin>: over {MAX_QUESTION_BYTES} bytes", exit_code=BAD_INPUT)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CommandFailed("<stdin>: not UTF-8 text", exit_code=BAD_INPUT) from None


def _converse(client: Client, model: str, body: Fields) -> None:
    err.print(plain(f"Talking to {model}. Ctrl-C stops an answer, Ctrl-D ends."))
    messages: Messages = []
    for question in _questions():
        messages.append({"role": "user", "content": question})
        answer = Answer()
        try:
            say(client, model, messages, body, answer)
        except EndpointError as error:
            messages.pop()
            failures.print(plain(f"error: {error}", "red"), soft_wrap=True)
            continue
        except Terminated:
            raise
        except KeyboardInterrupt:
            err.print(plain("(stopped)", "dim"))
        messages.append({"role": "assistant", "content": answer.text})
        err.print(plain(describe(answer), "dim"), soft_wrap=True)


def _questions() -> Iterator[str]:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing and history
    while True:
        if not sys.stdout.isatty():
            failures.print("> ", end="")
        try:
            line = input("> " if sys.stdout.isatty() else "")
        except EOFError:
            failures.print()
            return
        if line.strip():
            yield line


def _failed(client: Client, error: EndpointError) -> CommandFailed:
    hint = ""
    if error.status == 401:
        hint = "--key or TRADEWIND_API_KEY gives a key"
        if client.has_key:
            hint = f"the key that was sent is none of {client.base}'s; {hint}"
    elif error.status == 0:
        hint = "tradewind status tells more of a platform on this machine"
    return CommandFailed(
        str(error), exit_code=BAD_INPUT if error.status in _USERS_FAULT else FAILED, hint=hint
    )
