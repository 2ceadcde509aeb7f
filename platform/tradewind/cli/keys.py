"""Tenant keys on a laptop: made when missing, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

from tradewind import home
from tradewind.api.wire import GatewayConfig, SecretRef
from tradewind.cli.console import err
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.secrets import SecretMissing, read_secret, secret_path

PREFIX = "tw-"


def prepare_keys(config: GatewayConfig) -> None:
    """Create each key file of the state directory that is not there; then every key must be readable.

    Only files named relative to the state directory are made: a file elsewhere is somebody's own.

    Raises:
        CommandFailed: a key is missing; nothing has been started.
    """
    for tenant in config.tenants:
        for reference in tenant.keys:
            if reference.file is not None and _is_ours(reference.file):
                path = secret_path(reference.file)
                if not path.exists():
                    home.ensure_secret(path, PREFIX)
                    err.print(f"  key: made one for tenant {tenant.name} in {path}")
            try:
                read_secret(reference)
            except SecretMissing as error:
                raise CommandFailed(f"tenant {tenant.name}: {error}", exit_code=BAD_INPUT) from error


def _is_ours(file: str) -> bool:
    path = Path(file)
    return not path.is_absolute() and not file.startswith("~") and ".." not in path.parts


def first_key(config: GatewayConfig) -> tuple[str, str | None]:
    """A key that may call every model where there is one: (key, its file if it lies in one)."""
    tenants = sorted(config.tenants, key=lambda tenant: "*" not in tenant.models)
    references: list[SecretRef] = [reference for tenant in tenants for reference in tenant.keys]
    if not references:
        return "", None
    reference = references[0]
    file = str(secret_path(reference.file)) if reference.file is not None else None
    return read_secret(reference), file
