"""The `tradewind` command.

Commands import what they need when they run, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tradewind.cli.console import err, out
from tradewind.cli.errors import BAD_INPUT, INTERRUPTED, CommandFailed

app = typer.Typer(
    name="tradewind",
    help="Serve open models behind one OpenAI-compatible endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Files = Annotated[
    list[Path],
    typer.Argument(help="Manifest files, directories of them, or - for standard input.", metavar="FILE..."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Route or deployment. [default: the first]")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", envvar="TRADEWIND_API_KEY", help="API key. [default: the first tenant's]"),
]


@app.command()
def up(
    files: Files,
    check: Annotated[
        bool, typer.Option("--check", help="Stop after the self-check: exit code 0 or 1.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Listen here instead of the manifest's endpoint host.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Listen here instead of the manifest's endpoint port.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the models to be ready.")] = 3600.0,
) -> None:
    """Serve the manifests on this machine until Ctrl-C."""
    from tradewind.cli.up import UpOptions
    from tradewind.cli.up import up as run

    run(UpOptions(files=files, host=host, port=port, check=check, timeout_s=timeout))


@app.command()
def down(timeout: Annotated[float, typer.Option(help="Seconds to wait for it to stop.")] = 120.0) -> None:
    """Stop the platform that `up` started."""
    from tradewind.cli.down import down as run

    run(timeout)


@app.command()
def apply(
    files: Files,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for new models to be ready.")] = 3600.0,
) -> None:
    """Change the running platform to what the manifests say.

    Routes, weights, tenants and limits take effect without restarting anything. A model that the
    manifests do not hold is drained and removed.
    """
    from tradewind.cli.apply import apply as run

    run(files, timeout)


@app.command()
def status() -> None:
    """Show models, replicas, traffic, speed and split."""
    from tradewind.cli.status import status as run

    run()


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    model: ModelOption = None,
    user: Annotated[str | None, typer.Option(help="User id, which a sticky route assigns by.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Endpoint without /v1. [default: the running platform]")
    ] = None,
    key: KeyOption = None,
) -> None:
    """Talk to a model and see which variant answered."""
    from tradewind.cli.chat import chat as run
    from tradewind.cli.connect import connect

    client = connect(url, key)
    try:
        run(client, model, prompt, user)
    finally:
        client.close()


@app.command()
def trace(
    request_id: Annotated[str, typer.Argument(help="The x-request-id of an answer, or a trace id.")],
) -> None:
    """Show one request's way as a tree."""
    from tradewind import home
    from tradewind.telemetry.store import load_trace
    from tradewind.telemetry.tree import render_tree

    found = load_trace(home.home_dir(), request_id)
    if found is None:
        raise CommandFailed(
            f"no trace of {request_id!r} under {home.home_dir() / 'traces'}",
            exit_code=BAD_INPUT,
            hint="the last ones are kept here, while no OTEL_EXPORTER_OTLP_ENDPOINT is set",
        )
    out.print(render_tree(found))


@app.command()
def render(files: Files) -> None:
    """Check the manifests and print what they compile to, as JSON. Changes nothing."""
    from tradewind.cli.manifests import load

    sys.stdout.write(json.dumps(load(files).dump(), indent=2, ensure_ascii=False) + "\n")


@app.command()
def schema(
    kind: Annotated[
        str | None, typer.Argument(help="A kind, such as ModelDeployment; without it, their names.")
    ] = None,
) -> None:
    """Print the JSON Schema of a kind, for editors and validators."""
    from tradewind.api.resources import KINDS
    from tradewind.schema.json_schemas import json_schema_text

    if kind is None:
        sys.stdout.write("\n".join(KINDS) + "\n")
        return
    if kind not in KINDS:
        raise CommandFailed(f"no kind {kind!r}", exit_code=BAD_INPUT, hint=f"one of: {', '.join(KINDS)}")
    sys.stdout.write(json_schema_text(kind))


def main() -> None:
    """Entry point: runs a command and turns its failure into a message and an exit code."""
    try:
        app()
    except CommandFailed as failure:
        err.print(f"[red]error:[/] {_escaped(str(failure))}", soft_wrap=True)
        if failure.hint:
            err.print(f"[dim]{_escaped(failure.hint)}[/]", soft_wrap=True)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        err.print("Interrupted.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
