"""The reference page of the command line, written from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Final

import typer.main

from tradewind import home
from tradewind.cli.ending import LOG_LEVEL
from tradewind.cli.errors import EXIT_CODES
from tradewind.cli.main import app

_ENVIRONMENT: Final = (
    (home.HOME, "State directory: keys, tokens, traces, progress, the facts of what runs. As `--home`."),
    (home.CACHE, "Directory of model weights. It may be deleted at any time."),
    ("TRADEWIND_API_KEY", "Key for `chat`. As `--key`."),
    (LOG_LEVEL, "`debug`, `info`, `warning` or `error`; `info` by default."),
    ("OTEL_*", "OpenTelemetry's standard variables: see [metrics and traces](metrics.md)."),
    ("NO_COLOR", "Set to anything: no colours. Without a terminal there are none either."),
    ("COLUMNS", "Width of what is printed. Without a terminal, tables are as wide as they need to be."),
)
_COMPLETION: Final = ("--install-completion", "--show-completion")


def cli_reference() -> str:
    """The markdown of `docs/reference/cli.md`."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "<!-- Written by `python -m tradewind.schema write`; do not edit. -->",
        "",
        "Answers go to standard output, progress and errors to standard error. A wrong resource is one line",
        "`file:line:column: path: what is wrong`, for editors and `grep`.",
        "",
        "## tradewind",
        "",
        *_about(group),
        *_usage("tradewind [OPTIONS] COMMAND"),
        *_parameters(group),
        f"`{_COMPLETION[0]}` and `{_COMPLETION[1]}` set up or print the completion of the current shell.",
        "",
        "| Command | What it does |",
        "| --- | --- |",
    ]
    for name, command in group.commands.items():
        summary = _about(command)[0]
        lines.append(f"| [`{name}`](#tradewind-{name}) | {summary} |")
    for name, command in group.commands.items():
        lines = [*_stripped(lines), "", f"## tradewind {name}", "", *_about(command)]
        lines += [*_usage(f"tradewind {name} {_pieces(command)}".strip()), *_parameters(command)]
    return "\n".join([*_stripped(lines), "", *_codes(), "", *_variables()]) + "\n"


def _about(command: Any) -> list[str]:
    return [*inspect.cleandoc(command.help or "").splitlines(), ""]


def _usage(text: str) -> list[str]:
    return ["```", text, "```", ""]


def _pieces(command: Any) -> str:
    arguments = [
        (_argument_name(parameter) if parameter.required else f"[{_argument_name(parameter)}]")
        + ("..." if parameter.nargs == -1 else "")
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    return " ".join(["[OPTIONS]", *arguments]) if _options(command) else " ".join(arguments)


def _argument_name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _options(command: Any) -> list[Any]:
    return [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.opts[0] not in _COMPLETION
    ]


def _parameters(command: Any) -> Iterator[str]:
    arguments = [
        (f"`{_argument_name(parameter)}`", _cell(parameter.help))
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    if arguments:
        yield from ["| Argument | Meaning |", "| --- | --- |"]
        yield from (f"| {name} | {meaning} |" for name, meaning in arguments)
        yield ""
    options = _options(command)
    if options:
        yield from ["| Option | Default | Variable | Meaning |", "| --- | --- | --- | --- |"]
        yield from map(_option_row, options)
        yield ""


def _option_row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))
    default = "" if option.default in (None, False) else f"`{option.default:g}`"
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"| {names} | {default} | {variable} | {_cell(option.help)} |"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _stripped(lines: list[str]) -> list[str]:
    """Without empty lines at the end."""
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _codes() -> Iterable[str]:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return ["## Exit codes", "", "| Code | Meaning |", "| --- | --- |", *rows]


def _variables() -> Iterable[str]:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in _ENVIRONMENT]
    return ["## Environment", "", "| Variable | Meaning |", "| --- | --- |", *rows]
