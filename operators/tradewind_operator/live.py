"""What a running platform says about itself: Serve's REST API on the Ray head, and a gateway's /readyz.

Nothing here fails: what cannot be reached or read is None, and the status says what is known without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from tradewind.rayapi.app_status import deployed_revisions, parse_status
from tradewind_operator.credentials import Credentials
from tradewind_operator.status.live import DeploymentLive, GatewayLive, Live

logger = logging.getLogger(__name__)

_MAX_BYTES: Final = 32 << 20
"""Serve repeats every application's settings and its replicas; 1,000 models are about 8 MiB."""
_READY_STATUSES: Final = frozenset({200, 503})
"""A gateway that is not ready says which configuration it has, too."""


class LiveReader:
    """Reads running platforms. Close it.

    Args:
        timeout_s: of one request, connecting included.
    """

    def __init__(self, timeout_s: float = 3.0) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, serve_url: str, gateway_url: str, credentials: Credentials) -> Live:
        """Both sides at once.

        Args:
            serve_url: of Ray's dashboard, without a slash at the end.
            gateway_url: of the endpoint, likewise.
        """
        serve, gateway = await asyncio.gather(
            self._get(f"{serve_url}/api/serve/applications/", credentials.auth_token, frozenset({200})),
            self._get(f"{gateway_url}/readyz", credentials.internal_token, _READY_STATUSES),
        )
        return parse_live(serve, gateway)

    async def _get(self, url: str, token: str, accepted: frozenset[int]) -> dict[str, Any] | None:
        if self._session is None:
            # No proxy of the environment and no redirects: the tokens are for these two and nobody else.
            self._session = aiohttp.ClientSession(trust_env=False)
        try:
            async with self._session.get(
                url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                if answer.status not in accepted:
                    logger.debug("%s answered %d", url, answer.status)
                    return None
                document = json.loads(await _read(answer))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.debug("%s was not read: %s", url, type(error).__name__)
            return None
        return document if isinstance(document, dict) else None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body; ValueError when it is larger than anything we asked for."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > _MAX_BYTES:
            raise ValueError("too large")
        parts.append(part)
    return b"".join(parts)


def parse_live(serve: Mapping[str, Any] | None, gateway: Mapping[str, Any] | None) -> Live:
    """Pure: the two documents, where there are any. What is not as it should be counts as not there."""
    try:
        apps = None if serve is None else parse_status(serve)
        revisions = {} if serve is None else deployed_revisions(serve)
    except (AttributeError, KeyError, TypeError, ValueError):
        apps, revisions = None, {}
    return Live(apps, _gateway(gateway), revisions)


def _gateway(document: Mapping[str, Any] | None) -> GatewayLive | None:
    if document is None or not isinstance(document.get("revision"), str):
        return None
    entries = document.get("deployments")
    deployments = {
        str(name): DeploymentLive(int(entry.get("ready") or 0), _length(entry.get("context_length")))
        for name, entry in (entries.items() if isinstance(entries, dict) else ())
        if isinstance(entry, dict)
    }
    return GatewayLive(document["revision"], deployments)


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
