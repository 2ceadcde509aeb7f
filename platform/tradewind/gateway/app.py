"""The gateway: decides once per request and then moves bytes, whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from tradewind.api.problems import Code
from tradewind.api.reading import LeftOut
from tradewind.api.steps import Steps, at_once
from tradewind.api.wire import GatewayConfig, RequestLimits
from tradewind.gateway.auth import SecretReader
from tradewind.gateway.dispatch import Dispatcher
from tradewind.gateway.endpoints import ENDPOINTS, Endpoint
from tradewind.gateway.exchange import Exchange, Services, log_bug, send_refusal
from tradewind.gateway.front.context import Context
from tradewind.gateway.head import Head, read_head
from tradewind.gateway.late_usage import LateUsage
from tradewind.gateway.local_answers import LocalAnswers, find_place, not_configured, send_local
from tradewind.gateway.prepare import salt_secret
from tradewind.gateway.problems import (
    ClientGone,
    Refused,
    Rendered,
    Style,
    internal_error,
    render,
    shutting_down,
)
from tradewind.gateway.readiness import Standing, answering
from tradewind.gateway.state import Prepared, State
from tradewind.gateway.upstream import Upstream
from tradewind.routing.admission import Admission
from tradewind.routing.replica import ReplicaDirectory
from tradewind.telemetry.outcome import CANCELLED_CODE, CANCELLED_STATUS
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.requests import RequestTelemetry

_log = logging.getLogger(__name__)

_ENGINE_PATHS: dict[bytes, tuple[Endpoint, str]] = {
    path.encode(): (endpoint, path) for endpoint in ENDPOINTS for path in endpoint.paths
}
_LAST_WORDS_S = 2.0
_UNCONFIGURED = RequestLimits()

_encode = msgspec.json.Encoder().encode


class Gateway:
    """`configure` before the first request; everything belongs to one event loop."""

    def __init__(
        self,
        *,
        telemetry: RequestTelemetry,
        upstream: Upstream,
        engine_token: str,
        read_secret: SecretReader,
        hash_key: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read_secret` is asked for the tenants' keys at each `configure`; `clock` counts seconds.

        `hash_key` is the one under which a configuration's key hashes were made.
        """
        self.directory = ReplicaDirectory(clock)
        """Replicas of the engines, to be kept up to date by whoever discovers them."""
        self.admission = Admission(self.directory, clock=clock)
        """Its loads tell how many requests wait, for autoscaling."""
        self.context_lengths: dict[str, int] = {}
        """Tokens by deployment, as engines told; used where the configuration does not say."""
        self.standing = Standing()
        """How the configuration in force came to be, and what was refused since."""
        self._telemetry = telemetry
        self._upstream = upstream
        self._clock = clock
        self._read_secret = read_secret
        self._hash_key = hash_key
        self._engine_token = engine_token.encode()
        self._salt_key = salt_secret(engine_token)
        self._dispatcher = Dispatcher(
            upstream=upstream,
            directory=self.directory,
            admission=self.admission,
            engine_token=engine_token,
            traceparent=telemetry.traceparent,
            clock=clock,
        )
        self._late_usage = LateUsage(engine_token)
        self._services = Services(self._dispatcher, self.admission, self._late_usage)
        self._local = LocalAnswers(
            state=lambda: self._state,
            readiness=self._readiness,
            leaving=lambda: self._leaving or self._closing,
            context_lengths=self.context_lengths,
        )
        self._state: State | None = None
        self._active = 0
        self._leaving = self._closing = False
        self._drained: asyncio.Event | None = None

    @property
    def active(self) -> int:
        """Requests to engines that are under way."""
        return self._active

    @property
    def revision(self) -> str | None:
        """Revision of the configuration in force."""
        return None if self.config is None else self.config.revision

    @property
    def config(self) -> GatewayConfig | None:
        """The configuration in force."""
        return None if self._state is None else self._state.config

    def configure(self, config: GatewayConfig) -> None:
        """Take over a configuration whole. Requests under way keep the one they began with.

        Raises ConfigRefused, and then the old one stays.
        """
        at_once(self.adopting(at_once(self.preparing(config))))

    def preparing(self, config: GatewayConfig, left_out: Collection[LeftOut] = ()) -> Steps[Prepared]:
        """All that can be done beforehand for `configure`, in steps; it changes nothing.

        Args:
            left_out: of `config`, because it could not be read.

        Raises:
            ConfigRefused: it contradicts itself, or names what is not there.
        """
        withheld = {entry.name for entry in left_out if entry.kind == "route" and not entry.kept}
        state = yield from State.building(config, self._read_secret, self._salt_key, self._hash_key, withheld)
        labels = yield from state.labels()
        return Prepared(state, labels, tuple(left_out))

    def adopting(self, prepared: Prepared) -> Steps[None]:
        """Bring it into force in the first step; the others forget what is gone."""
        state = prepared.state
        self._dispatcher.configure(state.table.routes)
        self._state = state
        self.standing = Standing(self._clock(), prepared.left_out)
        yield from self._telemetry.configuring(prepared.labels)
        self.directory.retain(state.table.deployments)
        for gone in self.context_lengths.keys() - state.table.deployments.keys():
            del self.context_lengths[gone]

    async def startup(self) -> None:
        """Open for requests (again)."""
        self._leaving = self._closing = False

    def leave(self) -> None:
        """Say that it is not ready, and take requests all the same: whoever sends them hears of it late."""
        self._leaving = True

    async def shutdown(self, timeout_s: float | None = None) -> None:
        """Refuse new requests, let those under way end (for `timeout_s` at most), close the connections.

        What is cut ends with an error, as an answer or as the last event of a stream.
        """
        self._closing = True
        if not await self._over(timeout_s):
            _log.warning("shut down with requests under way", extra={"requests": self._active})
        self._services.ending = True
        self.admission.close()
        await self._upstream.close()
        # What was cut just now has an error event to send, and its usage to ask.
        await self._over(_LAST_WORDS_S)
        await self._late_usage.close()

    async def _over(self, timeout_s: float | None) -> bool:
        """Waits until no request is under way; False when one still is after `timeout_s`."""
        if self._active:
            self._drained = self._drained or asyncio.Event()
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), timeout_s)
        return not self._active

    async def handle(self, context: Context) -> None:
        """Answer one request. Raises only the cancellation of its task."""
        state = self._state
        if state is not None and state.cors is not None:
            context.amend = state.cors.answering(context.method, context.headers)
        endpoint, known = _ENGINE_PATHS.get(context.path, (None, ""))
        if endpoint is not None and context.method == b"POST":
            await self._ask_engine(endpoint, known, context)
        else:
            self._answer_here("openai" if endpoint is None else endpoint.style, context)

    def refuse(self, refused: Refused) -> Rendered:
        """The answer to what is no sound request, so that it is nobody's."""
        return render(refused, "", "openai")

    async def _ask_engine(self, endpoint: Endpoint, path: str, context: Context) -> None:
        state = self._state
        limits = _UNCONFIGURED if state is None else state.limits
        refused: Refused | None = None
        head = _NO_HEAD
        try:
            head = read_head(context.headers, context.version, limits)
            self._check_open(limits)
        except Refused as problem:
            refused = problem
        record = self._start(path, endpoint.operation, head, "POST")
        self._active += 1
        try:
            if refused is not None or state is None:
                refused = refused or not_configured()
                record.status, record.code = refused.code.value.status, refused.code.wire
                send_refusal(context, refused, record.request_id, endpoint.style)
            else:
                await Exchange(self._services, state, endpoint, head, record, context).run()
        finally:
            self._active -= 1
            self._telemetry.finish(record)
            if self._drained is not None and not self._active:
                self._drained.set()

    def _check_open(self, limits: RequestLimits) -> None:
        if self._closing:
            raise shutting_down()
        if self._active >= limits.concurrent_requests:
            raise Refused(Code.NO_CAPACITY, "The gateway is full.")

    def _answer_here(self, style: Style, context: Context) -> None:
        record: RequestRecord | None = None
        request_id = ""
        try:
            limits = _UNCONFIGURED if self._state is None else self._state.limits
            place = find_place(context.path)
            method = _METHODS.get(context.method, "_OTHER")
            head = _NO_HEAD
            try:
                head = read_head(context.headers, context.version, limits)
            finally:
                if place is None or place.recorded:
                    record = self._start("" if place is None else place.template, "", head, method)
                    request_id = record.request_id
            answer = self._local.answer(context.path, place, method, head)
            if record is not None:
                record.status = answer.status
            send_local(context, answer, request_id)
        except Refused as refused:
            _refuse(context, refused, record, style)
        except ClientGone:
            if record is not None:
                record.status, record.code = CANCELLED_STATUS, CANCELLED_CODE
        except Exception as error:
            log_bug(error, request_id)
            _refuse(context, internal_error(), record, style)
        finally:
            if record is not None:
                self._telemetry.finish(record)

    def _readiness(self, head: Head) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Ready: configured, not shutting down, and of the deployments there are at least one can answer.

        Who shows the platform's internal token is told of each deployment.
        """
        state = self._state
        if self._leaving or self._closing:
            reason = "shutting_down"
        elif state is None:
            reason = "not_configured"
        elif state.table.deployments and not any(map(self.directory.any_ready, state.table.deployments)):
            reason = "no_replica"
        else:
            cold = sum(not self.directory.any_ready(name) for name in state.table.deployments)
            answer = {"status": "ready", "revision": self.revision, "cold_deployments": cold}
            return 200, _encode(answer | self._details(head)), []
        why = {"status": "not_ready", "reason": reason, "revision": self.revision}
        return 503, _encode(why | self._details(head)), [(b"retry-after", b"1")]

    def _details(self, head: Head) -> dict[str, Any]:
        """The configuration's standing and who answers for every deployment: not for the public."""
        expected = b"Bearer " + self._engine_token
        sent = head.get(b"authorization")
        if sent is None or not hmac.compare_digest(sent, expected):
            return {}
        told = {"configuration": self.standing.told(self.revision, self._clock())}
        if self._state is None:
            return told
        entries = self._state.table.deployments.values()
        return told | {"deployments": answering(entries, self.directory, self.context_lengths)}

    def _start(self, path: str, operation: str, head: Head, method: str) -> RequestRecord:
        return self._telemetry.start(
            path, operation, head.get(b"traceparent"), head.get(b"tracestate"), method
        )


_NO_HEAD = Head({})
_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}  # fmt: skip


def _refuse(context: Context, refused: Refused, record: RequestRecord | None, style: Style) -> None:
    if record is not None:
        record.status, record.code = refused.code.value.status, refused.code.wire
    send_refusal(context, refused, "" if record is None else record.request_id, style)
