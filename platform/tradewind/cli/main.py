"""The `tradewind` command.

Commands import what they need when they run, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tradewind import home
from tradewind.cli.console import err, out, write_whole
from tradewind.cli.ending import Commands, report_bug
from tradewind.cli.errors import BAD_INPUT, FAILED, CommandFailed

app = typer.Typer(
    name="tradewind",
    cls=Commands,
    help="Serve open models behind one OpenAI-compatible endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Manifest files, directories of them, or - for standard input.",
        metavar="FILE",
        show_default=False,
    ),
]
FileOption = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", metavar="FILE", help="The same, as kubectl has it.", show_default=False),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Route or deployment; without it, the first.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", envvar="TRADEWIND_API_KEY", help="API key; without it, the first tenant's."),
]
Seconds = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the models to be ready.")]


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("tradewind")
    except PackageNotFoundError:
        found = "(not installed)"
    out.print(f"tradewind {found}")
    raise typer.Exit


def _kinds() -> list[str]:
    from tradewind.api.resources import KINDS

    return list(KINDS)


@app.callback()
def options(
    state: Annotated[
        Path | None,
        typer.Option(
            "--home",
            envvar=home.HOME,
            metavar="DIR",
            help="State directory: keys, tokens, traces, what runs.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print answers and errors only, no progress.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Serve open models behind one OpenAI-compatible endpoint."""
    err.quiet = quiet
    if state is not None:
        # Absolute, because the processes that `up` starts have a working directory of their own.
        os.environ[home.HOME] = str(state.expanduser().absolute())


def _chosen(files: list[Path] | None, more: list[Path] | None) -> list[Path]:
    chosen = [*(files or ()), *(more or ())]
    if not chosen:
        raise CommandFailed(
            "no manifest named",
            exit_code=BAD_INPUT,
            hint="name files or directories, or - to read from a pipe",
        )
    return chosen


@app.command()
def up(
    files: Files = None,
    filename: FileOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Stop after the self-check: exit code 0 or 1.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Listen here instead of the manifest's endpoint host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Listen here instead of the manifest's endpoint port."),
    ] = None,
    timeout: Seconds = 3600.0,
) -> None:
    """Serve the manifests on this machine until Ctrl-C."""
    from tradewind.cli.up import UpOptions
    from tradewind.cli.up import up as run

    run(UpOptions(files=_chosen(files, filename), host=host, port=port, check=check, timeout_s=timeout))


@app.command()
def down(
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for it to stop.")] = 120.0,
) -> None:
    """Stop the platform that `up` started."""
    from tradewind.cli.down import down as run

    run(timeout)


@app.command()
def apply(
    files: Files = None,
    filename: FileOption = None,
    timeout: Seconds = 3600.0,
) -> None:
    """Change the running platform to what the manifests say.

    Routes, weights, tenants and limits take effect without restarting anything. A model that the
    manifests do not hold is drained and removed.
    """
    from tradewind.cli.apply import apply as run

    run(_chosen(files, filename), timeout)


@app.command()
def status() -> None:
    """Show models, replicas, traffic, speed and split. Exit code 1 while something is not ready."""
    from tradewind.cli.status import status as run

    run()


@app.command()
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(help="One question; without it, standard input, or a conversation in a terminal."),
    ] = None,
    model: ModelOption = None,
    user: Annotated[str | None, typer.Option(help="User id, which a sticky route assigns by.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    url: Annotated[str | None, typer.Option(help="Another endpoint than the running platform's.")] = None,
    key: KeyOption = None,
) -> None:
    """Talk to a model and see which variant answered."""
    from tradewind.cli.chat import chat as run
    from tradewind.cli.connect import connect

    client = connect(url, key)
    try:
        fields = {"user": user, "max_tokens": max_tokens}
        run(client, model, prompt, {name: value for name, value in fields.items() if value is not None})
    finally:
        client.close()


@app.command()
def trace(
    request_id: Annotated[str, typer.Argument(help="The x-request-id of an answer, or a trace id.")],
) -> None:
    """Show one request's way as a tree."""
    from tradewind.cli.trace import trace as run

    run(request_id)


@app.command()
def render(files: Files = None, filename: FileOption = None) -> None:
    """Check the manifests and print what they compile to, as JSON. Changes nothing."""
    from tradewind.cli.manifests import load

    compiled = load(_chosen(files, filename))
    write_whole(json.dumps(compiled.dump(), indent=2, ensure_ascii=False) + "\n")


@app.command()
def schema(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="A kind, such as ModelDeployment; without it, their names.", autocompletion=_kinds
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of a kind, for editors and validators."""
    from tradewind.schema.json_schemas import json_schema_text

    kinds = _kinds()
    if kind is None:
        write_whole("\n".join(kinds) + "\n")
        return
    if kind not in kinds:
        raise CommandFailed(f"no kind {kind!r}", exit_code=BAD_INPUT, hint=f"one of: {', '.join(kinds)}")
    write_whole(json_schema_text(kind))


def main(run: Callable[[], object] = app) -> None:
    """Entry point. `Commands` turns every foreseen end of a command into an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to stop. Replaced streams lack this.
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
    try:
        run()
    except Exception as error:
        report_bug(error)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
