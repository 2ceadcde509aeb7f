"""Tends Ray clusters: gives Serve the configuration of now where it has another, and reads how all is.

Each Ray cluster is tended alone, so that one that is away keeps nothing from the others. Nothing here fails:
what cannot be reached or read is said in the result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from tradewind.compiler.compile import Compiled
from tradewind.rayapi.app_status import deployed_configs, deployed_revisions, is_applied, parse_status
from tradewind.rayapi.client import AsyncServeControl, ControlError
from tradewind.telemetry.redaction import redact
from tradewind_operator.credentials import Credentials
from tradewind_operator.planning.moves import (
    Moves,
    kinds_of,
    placed_apps,
    placed_config,
    plan_moves,
)
from tradewind_operator.status.live import AdapterLive, DeploymentLive, GatewayLive, Live, Unread

logger = logging.getLogger(__name__)

_MOST_TEXT: Final = 300
_READY_STATUSES: Final = frozenset({200, 503})
"""A gateway that is not ready says which configuration it has, too."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One Ray cluster, and what it is to have."""

    name: str
    serve_url: str
    """Of Ray's dashboard, without a slash at the end."""
    gateway_url: str
    """Of its gateways, likewise."""
    groups: tuple[str, ...]
    """Its worker groups, the older first."""
    wanted: tuple[str, ...]
    """Worker groups of now."""
    up: frozenset[str]
    """Worker groups that have the pods of all gateways."""
    compiled: Compiled | None
    """None: it is read and given nothing."""
    retired: bool = False
    """It takes no new applications."""


class Tender:
    """Speaks to heads and gateways. Close it."""

    def __init__(self, serve: AsyncServeControl | None = None, timeout_s: float = 3.0) -> None:
        self._serve = serve or AsyncServeControl()
        # No proxy of the environment and no redirects: the token is for this gateway and nobody else.
        self._gateways = httpx.AsyncClient(timeout=timeout_s, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        await self._serve.close()
        await self._gateways.aclose()

    async def tend(
        self, charge: Charge, credentials: Credentials, first: Callable[[], Awaitable[None]]
    ) -> Live:
        """Look, send what is missing, and look at a gateway.

        Args:
            first: awaited before Serve is given anything; what it raises keeps it from that.
        """
        serve, gateway = await asyncio.gather(
            self._serve_side(charge, credentials.auth_token, first),
            self._gateway_side(charge.gateway_url, credentials.internal_token),
        )
        return Live(gateway=gateway, **serve)

    async def _serve_side(
        self, charge: Charge, token: str, first: Callable[[], Awaitable[None]]
    ) -> dict[str, Any]:
        try:
            document = await self._serve.document(charge.serve_url, token)
        except ControlError as error:
            return {"problem": str(error)}
        try:
            read, config = await asyncio.to_thread(_read, document, charge)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return {"problem": f"Ray's API answered what cannot be read ({type(error).__name__})"}
        if config is None:
            return read
        try:
            await first()
            await self._serve.apply(charge.serve_url, token, config)
        except ControlError as error:
            logger.warning("RayCluster %s: %s", charge.name, error)
            return read | {"problem": str(error)}
        return read | {"sent": True}

    async def _gateway_side(self, url: str, token: str) -> GatewayLive | None:
        try:
            answer = await self._gateways.get(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
            document = answer.json() if answer.status_code in _READY_STATUSES else None
        except (httpx.HTTPError, ValueError) as error:
            logger.debug("%s was not read: %s", url, type(error).__name__)
            return None
        return parse_gateway(document) if isinstance(document, dict) else None


def _read(document: Mapping[str, Any], charge: Charge) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What Serve says, and the configuration that it is to be given; None where it has that. Pure."""
    apps, configs = parse_status(document), deployed_configs(document)
    placed = placed_apps(configs, apps)
    groups = {app.group for app in placed.values() if app.group is not None}
    read: dict[str, Any] = {"apps": apps, "revisions": deployed_revisions(document)}
    if charge.compiled is None:
        return read | {"placed": frozenset(groups)}, None
    moves: Moves = plan_moves(
        kinds_of(charge.compiled), placed, charge.groups, charge.wanted, lambda group: group in charge.up
    )
    only = configs if charge.retired else None
    config = placed_config(charge.compiled.serve_config, moves, only)
    read |= {"moves": moves, "placed": frozenset(groups | set(moves.groups.values()))}
    return read, None if is_applied(configs, config) else config


def parse_gateway(document: Mapping[str, Any]) -> GatewayLive | None:
    """A gateway's `/readyz`; None when it does not say which configuration it has. Pure."""
    if not isinstance(document.get("revision"), str):
        return None
    entries = document.get("deployments")
    deployments = {
        str(name): DeploymentLive(
            int(entry.get("ready") or 0),
            _length(entry.get("context_length")),
            _adapters(entry.get("adapters")),
        )
        for name, entry in (entries.items() if isinstance(entries, dict) else ())
        if isinstance(entry, dict)
    }
    configuration = document.get("configuration")
    return GatewayLive(
        document["revision"],
        deployments,
        **_standing(configuration if isinstance(configuration, dict) else {}),
    )


def _standing(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a gateway says of the configuration that it was sent; nothing, where an older one does not."""
    refused, left_out = configuration.get("refused"), configuration.get("left_out")
    unread = tuple(
        Unread(
            kind=_text(entry.get("kind")),
            name=_text(entry.get("name")),
            why=_text(entry.get("why")),
            kept=entry.get("kept") is True,
        )
        for entry in (left_out if isinstance(left_out, list) else ())
        if isinstance(entry, dict)
    )
    if not isinstance(refused, dict):
        return {"unread": unread}
    revision = _text(refused.get("revision")) or "without a revision"
    return {"unread": unread, "refused": revision, "why": _text(refused.get("why")) or "it does not say why"}


def _text(value: object) -> str:
    return redact(str(value or ""))[:_MOST_TEXT]


def _adapters(value: object) -> dict[str, AdapterLive]:
    return {
        str(name): AdapterLive(
            ready=int(entry.get("ready") or 0),
            loading=int(entry.get("loading") or 0),
            failed=int(entry.get("failed") or 0),
            message=redact(str(entry.get("message") or "")),
        )
        for name, entry in (value.items() if isinstance(value, dict) else ())
        if isinstance(entry, dict)
    }


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
