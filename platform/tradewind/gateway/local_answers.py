"""What needs no engine: model lists, probes, and everything that is refused by its path or method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import msgspec

from tradewind.api.problems import Code
from tradewind.gateway.endpoints import ENDPOINTS
from tradewind.gateway.front.context import Context
from tradewind.gateway.head import Head
from tradewind.gateway.models import list_models, show_model
from tradewind.gateway.openapi import openapi_document
from tradewind.gateway.problems import Header, Refused
from tradewind.gateway.state import State
from tradewind.gateway.stored_responses import CANCEL, INPUT_ITEMS, RESPONSE, not_kept
from tradewind.version import version

MODELS: Final = "/v1/models"
MODEL: Final = "/v1/models/{model}"
METRICS: Final = "/metrics"
READY: Final = frozenset(("/readyz", "/health", "/ping"))
"""The same answer: `/health` and `/ping` are what load balancers made for other servers ask."""
_MAX_PATH: Final = 2_048

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Place:
    """A path that the gateway knows."""

    template: str
    """As it may appear in telemetry: no part of it is the caller's."""
    methods: tuple[str, ...]
    recorded: bool = True
    """A request there is counted and traced; probes are not."""

    @property
    def allow(self) -> bytes:
        """Value of the header that names the methods."""
        more = ("HEAD",) if "GET" in self.methods else ()
        return ", ".join((*self.methods, *more, "OPTIONS")).encode()


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """Status, JSON body and further headers."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()


_GET: Final = ("GET",)
_PLACES: Final[dict[bytes, Place]] = {
    **{path.encode(): Place(path, ("POST",)) for endpoint in ENDPOINTS for path in endpoint.paths},
    **{path.encode(): Place(path, _GET, recorded=False) for path in ("/healthz", *sorted(READY))},
    **{path.encode(): Place(path, _GET, recorded=False) for path in ("/version", "/openapi.json")},
    MODELS.encode(): Place(MODELS, _GET),
    MODELS.encode() + b"/": Place(MODELS, _GET),
    METRICS.encode(): Place(METRICS, _GET),
}
_MODEL: Final = Place(MODEL, _GET)
_RESPONSES: Final[dict[bytes, Place]] = {
    b"": Place(RESPONSE, ("GET", "DELETE")),
    b"cancel": Place(CANCEL, ("POST",)),
    b"input_items": Place(INPUT_ITEMS, _GET),
}


def find_place(path: bytes) -> Place | None:
    """What is at `path`, given as it was sent and without its query; None for a path that does not exist."""
    place = _PLACES.get(path)
    if place is not None or len(path) > _MAX_PATH:
        return place
    if path.startswith(b"/v1/models/"):
        return _MODEL
    if path.startswith(b"/v1/responses/"):
        response_id, slash, rest = path.removeprefix(b"/v1/responses/").partition(b"/")
        if response_id and bool(slash) == bool(rest):
            return _RESPONSES.get(rest)
    return None


_LEAVING: Final = LocalAnswer(503, b'{"status":"leaving"}')


class LocalAnswers:
    """Answers requests that no engine hears of."""

    def __init__(
        self,
        *,
        state: Callable[[], State | None],
        readiness: Callable[[Head], tuple[int, bytes, list[Header]]],
        leaving: Callable[[], bool],
        context_lengths: Mapping[str, int],
    ) -> None:
        """`state` gives the configuration in force, `readiness` status, body and headers of `/readyz`.

        While `leaving`, `/healthz` asks that nobody be sent here: unlike `/readyz` it knows no engines.
        """
        self._state = state
        self._leaving = leaving
        self._readiness = readiness
        self._context_lengths = context_lengths

    def answer(self, path: bytes, place: Place | None, method: str, head: Head) -> LocalAnswer:
        """The answer; Refused where there is none."""
        if place is None:
            raise Refused(Code.NOT_FOUND, "There is no such path.")
        if method == "OPTIONS":
            return LocalAnswer(204, b"", ((b"allow", place.allow),))
        if method not in place.methods and not (method == "HEAD" and "GET" in place.methods):
            raise Refused(
                Code.METHOD_NOT_ALLOWED,
                f"Use {' or '.join(place.methods)} for this path.",
                headers=((b"allow", place.allow),),
                close=True,
            )
        return self._found(path, place.template, head)

    def _found(self, path: bytes, template: str, head: Head) -> LocalAnswer:
        if template == "/healthz":
            return _LEAVING if self._leaving() else LocalAnswer(200, b'{"status":"alive"}')
        if template in READY:
            status, body, headers = self._readiness(head)
            return LocalAnswer(status, body, tuple(headers))
        if template == "/version":
            return LocalAnswer(200, _encode({"version": version()}))
        if template == "/openapi.json":
            return LocalAnswer(200, _encode(openapi_document()))
        if template == METRICS:
            raise Refused(
                Code.NOT_FOUND,
                "Metrics have a port of their own, which is not public: spec.gateway.metricsPort (9464).",
            )
        return LocalAnswer(200, self._for_tenant(path, template, head))

    def _for_tenant(self, path: bytes, template: str, head: Head) -> bytes:
        """JSON for who shows a key."""
        state = self._state()
        if state is None:
            raise not_configured()
        tenant = state.keys.authenticate(head)
        if template == MODELS:
            return _encode(list_models(state.table, tenant, self._context_lengths))
        if template != MODEL:
            raise not_kept()
        name = unquote(path.removeprefix(b"/v1/models/").decode("latin-1"))
        return _encode(show_model(state.table, tenant, name, self._context_lengths))


def not_configured() -> Refused:
    """The refusal of a gateway that has just started."""
    return Refused(Code.MODEL_UNAVAILABLE, "The gateway has no configuration yet.")


def send_local(context: Context, answer: LocalAnswer, request_id: str) -> None:
    """Writes an answer; `request_id` is empty for what is not recorded. Raises ClientGone."""
    headers = [*answer.headers]
    if answer.status != 204:
        headers.append((b"content-type", b"application/json"))
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    context.begin(answer.status, headers, len(answer.body))
    context.end(answer.body)
