"""Talks to Serve's REST API: apply a configuration, read how the applications are.

No Ray import: the same few calls reach a local platform (`ServeControl`) and those in Kubernetes
(`AsyncServeControl`). What is asked and what an answer means stands here once; only the waiting differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx

from tradewind.api.wire import AdapterSettings, EngineLive, EngineSettings, GatewayConfig
from tradewind.rayapi.app_status import AppStatus, parse_status, reason

_APPLICATIONS: Final = "/api/serve/applications/"
_MAX_BYTES: Final = 64 << 20
"""Serve repeats every application's settings and its replicas; 1,000 models are about 8 MiB."""

_APPLY_S: Final = 300.0
"""The first configuration starts Serve's controller, which takes a busy machine more than a minute."""


class ControlError(Exception):
    """Ray's API could not be reached or refused the configuration."""


class Unreachable(ControlError):
    """Ray's API did not answer: it is slow, or not there.

    `refused`: nobody listens, which is no matter of time.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class ServeControl:
    """Client of one Ray dashboard's Serve API."""

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._client = httpx.Client(
            base_url=url, timeout=timeout_s, headers=_headers(token), trust_env=False, transport=transport
        )

    def apply(self, serve_config: Mapping[str, Any]) -> None:
        """Make `serve_config` the full desired set of applications. It may be said again at any time.

        Raises:
            Unreachable: Ray did not answer, and may or may not do it.
            ControlError: Ray refused; nothing was changed.
        """
        _applied(self._request("PUT", json=dict(serve_config), timeout=_APPLY_S))

    def applications(self) -> dict[str, AppStatus]:
        """How every application is now."""
        return parse_status(self._document())

    def gateway_config(self) -> GatewayConfig:
        """The configuration that the gateway was given."""
        document = self._document()
        try:
            gateway = document["applications"]["gateway"]["deployed_app_config"]
            return GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ControlError("Ray's API shows no gateway") from error

    def engines(self) -> dict[str, tuple[EngineSettings, tuple[AdapterSettings, ...]]]:
        """What every engine was given, and the LoRA adapters that it was given last, by ModelDeployment."""
        document = self._document()
        try:
            configs = {
                name: app.get("deployed_app_config") or {} for name, app in document["applications"].items()
            }
            return {
                name: (
                    EngineSettings.model_validate(config["args"]["settings"]),
                    EngineLive.model_validate(config["deployments"][0].get("user_config") or {}).adapters,
                )
                for name, config in configs.items()
                if "settings" in (config.get("args") or {})
            }
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ControlError("Ray's API shows engines of another version") from error

    def _document(self) -> dict[str, Any]:
        response = self._request("GET")
        return _document(response.status_code, response.content)

    def _request(self, method: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, _APPLICATIONS, **arguments)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    def close(self) -> None:
        self._client.close()


class AsyncServeControl:
    """Client of the Serve APIs of many Ray clusters, each call with its own address and token. Close it.

    Args:
        timeout_s: of a call, connecting included.
        connect_s: of connecting: a head that is away is known to be so soon.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        connect_s: float = 2.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=connect_s),
            # No proxy of the environment and no redirects: the token is for this head and nobody else.
            trust_env=False,
            follow_redirects=False,
            transport=transport,
        )

    async def apply(self, url: str, token: str, serve_config: Mapping[str, Any]) -> None:
        """As `ServeControl.apply`, at the dashboard `url` without a slash at its end."""
        try:
            response = await self._client.put(
                url + _APPLICATIONS, headers=_headers(token), json=dict(serve_config)
            )
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        _applied(response)

    async def document(self, url: str, token: str) -> dict[str, Any]:
        """Serve's whole answer on its applications.

        Raises:
            ControlError: there was none, or not one of Serve's.
        """
        parts, size = [], 0
        try:
            async with self._client.stream("GET", url + _APPLICATIONS, headers=_headers(token)) as response:
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > _MAX_BYTES:
                        raise ControlError(f"Ray's API answered more than {_MAX_BYTES} bytes")
                    parts.append(part)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _document(response.status_code, b"".join(parts))

    async def close(self) -> None:
        await self._client.aclose()


def _headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _applied(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise ControlError(f"Ray refused the configuration: {reason(response.text) or response.status_code}")


def _document(status: int, content: bytes) -> dict[str, Any]:
    if status != 200:
        raise ControlError(f"Ray's API answered {status}")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ControlError("Ray's API answered something that is not JSON") from error
    if not isinstance(document, dict):
        raise ControlError("Ray's API answered something that is no object")
    return document


def _unreachable(error: httpx.HTTPError) -> Unreachable:
    refused = isinstance(error, httpx.ConnectError)
    return Unreachable(f"Ray's API cannot be reached: {type(error).__name__}", refused=refused)
