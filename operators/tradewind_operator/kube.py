"""The Kubernetes API in plain dicts. The only importer of the `kubernetes` client.

Objects stay dicts: the client's typed models would cost more memory than all that is read. The official
client's asyncio half does the connection and the credentials; there are no threads to wait for when the
process stops. Every call has a time limit; what may pass (429, 5xx, no connection) is tried again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from tradewind_operator import api_answers
from tradewind_operator.errors import ApiError, SettingsError, Unreachable
from tradewind_operator.kinds import Resource, resource_of

FIELD_MANAGER: Final = "tradewind-operator"
PAGE: Final = 1000
"""Objects per page of a list: ours are small, and a page is a request."""

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GROWING: Final = wait_exponential(multiplier=0.2, max=3.0) + wait_random(0.0, 0.2)
_TRANSPORTS_END_S: Final = 0.05
_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"
_APPLY: Final = "application/apply-patch+yaml"

calls_made: ContextVar[Counter[str] | None] = ContextVar("calls_made", default=None)
"""Where the calls of the current task are counted, by `verb resource`; None: nowhere."""

CallObserver = Callable[[str, str, int], None]
"""Told verb, resource and HTTP status (0: no answer) of every request."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is, and how to authenticate."""

    configuration: Configuration
    namespace: str
    """The operator's own namespace."""

    @property
    def server(self) -> str:
        return str(self.configuration.host).rstrip("/")

    async def authorization(self) -> str | None:
        """The current `Authorization` header; a service account's token is read anew as it is renewed."""
        bearer = (await self.configuration.auth_settings()).get("BearerToken")
        return None if bearer is None else str(bearer["value"]).strip()

    def session(self, trace: aiohttp.TraceConfig | None = None, *, limit: int = 0) -> aiohttp.ClientSession:
        """An HTTP session of one's own, made in the event loop that will use it.

        Args:
            limit: connections at a time; 0 is any number.
        """

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            value = await self.authorization()
            if value is not None:
                request.headers["Authorization"] = value
            return await handler(request)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ssl=RESTClientObject(self.configuration).ssl_context),
            middlewares=(authenticate,),
            trace_configs=[] if trace is None else [trace],
            proxy=self.configuration.proxy,
            headers={"User-Agent": FIELD_MANAGER},
        )


async def connect(kubeconfig: str | None = None, namespace: str | None = None) -> Connection:
    """The API server of `kubeconfig` or `$KUBECONFIG`, else the cluster that this pod runs in.

    Raises:
        SettingsError: neither is there, or the kubeconfig cannot be read.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if path:
            await load_kube_config(path, client_configuration=configuration, persist_config=False)
        else:
            load_incluster_config(configuration)
    except (ConfigException, OSError, ValueError) as error:
        where = f"kubeconfig {path}" if path else "this pod's service account"
        raise SettingsError(f"{where} cannot be used: {error}") from error
    if namespace is None and not path and _ACCOUNT.is_file():
        namespace = _ACCOUNT.read_text(encoding="utf-8").strip()
    return Connection(configuration, namespace or "default")


async def close_session(session: aiohttp.ClientSession) -> None:
    """Close it, and let its TLS transports end: they do so in later turns of the event loop."""
    await session.close()
    await asyncio.sleep(_TRANSPORTS_END_S)


class Kube:
    """Calls to one API server. Close it.

    Every method raises a subclass of ApiError.

    Args:
        attempts: tries of one call, the first included.
        timeout_s: of one try.
        concurrency: requests under way at a time.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        attempts: int = 4,
        timeout_s: float = 10.0,
        concurrency: int = 8,
        observe: CallObserver | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(3.0, timeout_s))
        self._observe = observe
        retry: dict[str, Any] = {} if sleep is None else {"sleep": sleep}
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_attempt(attempts),
            wait=_wait,
            reraise=True,
            **retry,
        )

    async def close(self) -> None:
        if self._session is not None:
            await close_session(self._session)

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a namespace ("" is all) that a label selector picks."""
        found: list[dict[str, Any]] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        # Items of a list do not say what they are.
        path, about = resource.path(namespace), {"apiVersion": resource.api_version, "kind": resource.kind}
        while True:
            page = await self._call(
                "list", resource, "GET", path, query, what=_what("list", resource, namespace)
            )
            found += (about | item for item in page.get("items") or [])
            token = page.get("metadata", {}).get("continue")
            if not token:
                return found
            query = query | {"continue": token}

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        return await self._call(
            "get",
            resource,
            "GET",
            resource.path(namespace, name),
            what=_what("get", resource, namespace, name),
        )

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = FIELD_MANAGER) -> dict[str, Any]:
        """Server-side apply of the whole manifest: what `manager` wrote before and is no longer in it is
        taken away, what others wrote stays. Returns the object as it is now."""
        resource, namespace, name = _address(manifest)
        query = {"fieldManager": manager, "force": "true"}
        return await self._write("apply", resource, "PATCH", namespace, name, query, manifest, _APPLY)

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Raises AlreadyExists where it is there."""
        resource, namespace, name = _address(manifest)
        return await self._call(
            "create",
            resource,
            "POST",
            resource.path(namespace),
            {"fieldManager": FIELD_MANAGER},
            manifest,
            _JSON,
            what=_what("create", resource, namespace, name),
        )

    async def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """PUT; with `metadata.resourceVersion` it raises Conflict when someone else wrote."""
        resource, namespace, name = _address(manifest)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write("update", resource, "PUT", namespace, name, query, manifest, _JSON)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        """JSON merge patch; with `metadata.resourceVersion` in it, it raises Conflict as `replace`."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write("patch", resource, "PATCH", namespace, name, query, patch, _MERGE)

    async def put_status(
        self, resource: Resource, namespace: str, name: str, uid: str, version: str, status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The whole status of exactly this object; raises Invalid when another has its name now, and
        Conflict when it is no longer of this resourceVersion."""
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self._call(
            "patch",
            resource,
            "PATCH",
            resource.path(namespace, name, "status"),
            {"fieldManager": FIELD_MANAGER},
            patch,
            _JSON_PATCH,
            what=_what("patch status of", resource, namespace, name),
        )

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete in the background; with `uid`, only that very object (else Conflict)."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        await self._write("delete", resource, "DELETE", namespace, name, {}, body, _JSON)

    async def served(self, root: str) -> dict[str, str]:
        """What a group's version (`/apis/tradewind.dev/v1alpha1`) has: plurals, each with the hash of the
        version that is stored (empty where the server does not say); none where it is not known."""
        try:
            found = await self._call("discover", None, "GET", root, what=f"look for {root}")
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return {item["name"]: item.get("storageVersionHash", "") for item in found.get("resources") or []}

    async def _write(
        self,
        verb: str,
        resource: Resource,
        method: str,
        namespace: str,
        name: str,
        query: Mapping[str, str],
        body: object,
        content_type: str,
    ) -> dict[str, Any]:
        path, what = resource.path(namespace, name), _what(verb, resource, namespace, name)
        return await self._call(verb, resource, method, path, query, body, content_type, what=what)

    async def _call(
        self,
        verb: str,
        resource: Resource | None,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = _JSON,
        *,
        what: str,
    ) -> dict[str, Any]:
        plural = resource.plural if resource is not None else "apis"
        url = self._connection.server + path + (f"?{urlencode(query)}" if query else "")

        async def once() -> dict[str, Any]:
            status = 0
            counter = calls_made.get()
            if counter is not None:
                counter[f"{verb} {plural}"] += 1
            try:
                status, headers, data = await self._request(method, url, body, content_type)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(what, 0, type(error).__name__) from error
            finally:
                if self._observe is not None:
                    self._observe(verb, plural, status)
            return api_answers.read(what, status, headers, data, secret=plural == "secrets")

        # A copy per call: the object keeps the state of what it runs.
        result: dict[str, Any] = await self._retrying.copy()(once)
        return result

    async def _request(
        self, method: str, url: str, body: object, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            self._session = self._connection.session(limit=self._concurrency)
        headers = {"Accept": _JSON, "Content-Type": content_type}
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, url, data=data, headers=headers, timeout=self._timeout
        ) as answer:
            return answer.status, answer.headers, await answer.read()


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: what the server asks for, at most 5, else growing with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after_s", None)
    grown = _GROWING(state)
    return grown if asked is None else min(5.0, max(grown, float(asked)))


def _address(manifest: Mapping[str, Any]) -> tuple[Resource, str, str]:
    metadata = manifest["metadata"]
    return resource_of(manifest), metadata["namespace"], metadata["name"]


def _what(verb: str, resource: Resource, namespace: str, name: str = "") -> str:
    place = f"{namespace}/{name}" if name else f"in {namespace}" if namespace else "in all namespaces"
    return f"{verb} {resource.kind} {place}"
