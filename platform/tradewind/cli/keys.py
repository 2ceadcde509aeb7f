"""Tenant keys on a laptop: made when missing, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tradewind import home
from tradewind.api.wire import GatewayConfig, SecretRef, TenantEntry
from tradewind.cli.console import err
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.secrets import SecretMissing, read_secret, secret_path

PREFIX = "tw-"


def prepare_keys(config: GatewayConfig) -> None:
    """Create each key file of the state directory that is not there; then every key must be readable.

    Only files named relative to the state directory are made: a file elsewhere is somebody's own.

    Raises:
        CommandFailed: with every key that is missing; nothing has been made or started.
    """
    ours = {tenant.name: [ref for ref in tenant.keys if _is_to_make(ref)] for tenant in config.tenants}
    missing = []
    for tenant in config.tenants:
        for reference in tenant.keys:
            if reference in ours[tenant.name]:
                continue
            try:
                read_secret(reference)
            except SecretMissing as error:
                missing.append(f"tenant {tenant.name}: {error}")
    if missing:
        raise CommandFailed(
            "; ".join(missing), exit_code=BAD_INPUT, hint="a key file below TRADEWIND_HOME would be made"
        )
    for name, references in ours.items():
        for reference in references:
            path = secret_path(reference.file or "")
            home.ensure_secret(path, PREFIX)
            err.print(f"  key: made one for tenant {name} in {path}", markup=False, soft_wrap=True)


def _is_to_make(reference: SecretRef) -> bool:
    if reference.file is None:
        return False
    path = Path(reference.file)
    inside = not path.is_absolute() and not reference.file.startswith("~") and ".." not in path.parts
    return inside and not secret_path(reference.file).exists()


def first_key(config: GatewayConfig) -> tuple[str, str | None]:
    """A readable key, of a tenant that may call every model where there is one.

    Returns:
        The key, and its file if it lies in one; an empty key where there is no tenant.

    Raises:
        CommandFailed: there are tenants, but this process can read none of their keys.
    """
    if not config.tenants:
        return "", None
    for tenant in _generous_first(config):
        for reference in tenant.keys:
            try:
                key = read_secret(reference)
            except SecretMissing:
                continue
            return key, None if reference.file is None else str(secret_path(reference.file))
    raise CommandFailed(
        "no tenant's key can be read here", exit_code=BAD_INPUT, hint="--key or TRADEWIND_API_KEY gives one"
    )


def key_for(config: GatewayConfig, model: str) -> tuple[str, str] | None:
    """A readable key that may call `model`: (key, tenant). None without one; empty where none is needed."""
    if not config.tenants:
        return "", ""
    for tenant in _generous_first(config):
        if "*" not in tenant.models and model not in tenant.models:
            continue
        for reference in tenant.keys:
            try:
                return read_secret(reference), tenant.name
            except SecretMissing:
                continue
    return None


def _generous_first(config: GatewayConfig) -> Iterator[TenantEntry]:
    yield from sorted(config.tenants, key=lambda tenant: "*" not in tenant.models)
