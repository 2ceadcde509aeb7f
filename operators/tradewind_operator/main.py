"""The `tradewind-operator` command."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from tradewind.telemetry.logs import setup_logging
from tradewind.version import version as installed_version
from tradewind_operator.errors import LeaseLost, OperatorError, SettingsError
from tradewind_operator.settings import PREFIX, load

FAILED: Final = 1
BAD_SETTINGS: Final = 2
LEASE_LOST: Final = 3

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="tradewind-operator",
    help="Keeps Ray clusters as ServingClusters, ModelDeployments, ModelRoutes and Tenants say.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar=f"{PREFIX}CONFIG",
            metavar="FILE",
            help="Settings in YAML or JSON; variables TRADEWIND_OPERATOR_* go over them.",
        ),
    ] = None,
) -> None:
    """Run until SIGTERM.

    Ends with 0 when told to stop, 2 when a setting is wrong, 3 when another replica leads now, 1 when
    anything else went wrong.
    """
    raise typer.Exit(_run(config))


@app.command()
def migrate(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="How to reach the API server; else $KUBECONFIG, else this pod's own."
        ),
    ] = None,
) -> None:
    """Store every Tradewind resource in the version of now, so that an older one can be dropped.

    Needs rights of its own: the chart's value `crds.migrate` runs it with them. Done again, it does what is
    left. Ends with 0 when nothing is stored in an older version, else with 1.
    """
    raise typer.Exit(_migrate(kubeconfig))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"tradewind-operator {installed_version()}")


def _run(config: Path | None) -> int:
    try:
        settings = load(config)
        setup_logging("tradewind-operator", settings.log_level)
        # Not before the settings are known to be right: it takes most of a second.
        from tradewind_operator.operator import run as run_operator

        asyncio.run(run_operator(settings))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return BAD_SETTINGS
    except LeaseLost as error:
        logger.error("this replica stops: %s", error)
        return LEASE_LOST
    except Exception as error:  # a bug: the log says where, and the kubelet begins anew
        logger.critical("the operator ends: %s", type(error).__name__, exc_info=error)
        return FAILED
    return 0


def _migrate(kubeconfig: Path | None) -> int:
    from tradewind_operator.kinds import CUSTOM
    from tradewind_operator.kube import Kube, connect
    from tradewind_operator.migration import migrate

    async def all_kinds() -> int:
        kube, left = Kube(await connect(None if kubeconfig is None else str(kubeconfig)), concurrency=1), 0
        try:
            for kind in CUSTOM:
                try:
                    print(await migrate(kube, kind), flush=True)
                except OperatorError as error:
                    left = FAILED
                    print(f"{kind.kind}: not migrated: {error}", file=sys.stderr, flush=True)
        finally:
            await kube.close()
        return left

    try:
        return asyncio.run(all_kinds())
    except SettingsError as error:
        print(error, file=sys.stderr)
        return BAD_SETTINGS


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
