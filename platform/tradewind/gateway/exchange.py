"""One request to an engine endpoint, from its head to the last byte of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from dataclasses import dataclass

from tradewind.api import headers as names
from tradewind.api.problems import Code
from tradewind.gateway.auth import ANONYMOUS, Tenant
from tradewind.gateway.dispatch import Answer, Dispatcher, Job
from tradewind.gateway.endpoints import Endpoint
from tradewind.gateway.front.context import Context
from tradewind.gateway.front.wire import NO_LENGTH
from tradewind.gateway.head import Head, check_content
from tradewind.gateway.http1 import StreamBroken, StreamTimeout
from tradewind.gateway.late_usage import LateUsage
from tradewind.gateway.models import check_permission, not_found
from tradewind.gateway.prepare import Request, check_request
from tradewind.gateway.problems import (
    ClientGone,
    Header,
    Refused,
    Style,
    internal_error,
    render,
    shutting_down,
)
from tradewind.gateway.state import State
from tradewind.gateway.stream import SSERelay
from tradewind.gateway.usage import Usage, body_usage
from tradewind.routing.admission import Admission
from tradewind.routing.table import Decision, Subject, UnknownModel
from tradewind.telemetry.outcome import CANCELLED_CODE, CANCELLED_STATUS
from tradewind.telemetry.record import RequestRecord

_log = logging.getLogger(__name__)

_REQUEST_ID = names.REQUEST_ID.encode()
_ROUTE = names.ROUTE.encode()
_VARIANT = names.VARIANT.encode()
_LAST_WORD_S = 1.0
_CUT_SHORT = frozenset((Code.TOTAL_TIMEOUT, Code.FIRST_TOKEN_TIMEOUT, Code.UPSTREAM_ERROR))
"""Failures of an engine that may have been at work. With any other it has said that it was not."""

_CUT_OFF = frozenset((Code.UPSTREAM_ERROR, Code.MODEL_UNAVAILABLE))
"""What becomes of requests when the connections to engines are closed and nobody waits for one."""


@dataclass(slots=True)
class Services:
    """What every request uses."""

    dispatcher: Dispatcher
    admission: Admission
    late_usage: LateUsage
    ending: bool = False
    """All that is under way has been cut, which is no fault of an engine."""


class Exchange:
    """Reads, decides, asks and relays. `run` answers in every case and raises only a cancellation."""

    __slots__ = (
        "_context", "_endpoint", "_head", "_incomplete", "_record", "_relay", "_services", "_started",
        "_state",
    )  # fmt: skip

    def __init__(
        self,
        services: Services,
        state: State,
        endpoint: Endpoint,
        head: Head,
        record: RequestRecord,
        context: Context,
    ) -> None:
        self._services = services
        self._state = state
        self._endpoint = endpoint
        self._head = head
        self._record = record
        self._context = context
        self._started = False
        self._relay: SSERelay | None = None
        self._incomplete = False
        """An engine was at work, and what it told of its usage is not all."""

    async def run(self) -> None:
        """Serves the request and leaves what became of it in the record."""
        try:
            await self._serve()
        except Refused as refused:
            await self._refuse(refused)
        except ClientGone:
            self._note_gone()
        except asyncio.CancelledError:
            self._note_gone()
            raise
        except Exception as error:
            log_bug(error, self._record.request_id)
            await self._refuse(internal_error())
        finally:
            if self._incomplete and self._endpoint.computes and self._record.attempts:
                self._services.late_usage.complete(self._record, self._prefix())

    async def _serve(self) -> None:
        job = await self._admit()
        self._incomplete = True
        try:
            answer = await self._services.dispatcher.open(job)
        except Refused as refused:
            self._incomplete = refused.code in _CUT_SHORT
            raise
        # An answer may take minutes. Nothing is tried again from here on.
        job.request.let_go()
        self._context.let_body_go()
        try:
            if answer.body is None:
                await self._stream(job, answer)
            else:
                await self._whole(job, answer, answer.body)
        finally:
            answer.response.abort()  # nothing to do after a complete answer
            self._services.admission.release(answer.view)

    async def _admit(self) -> Job:
        """Everything that can end a request before an engine hears of it."""
        record, state = self._record, self._state
        began = time.time_ns()
        tenant = state.keys.authenticate(self._head)
        record.tenant = tenant.name
        record.phases.append(("auth", began, time.time_ns()))
        check_content(self._head)
        body = await self._context.body(state.limits)
        began = time.time_ns()
        request = check_request(body, self._endpoint, state.limits)
        record.stream = request.stream
        decision = self._resolve(request, tenant)
        record.request_model = request.model  # only now: a name nobody has could be any text
        record.route = decision.route.model
        record.variant = decision.variant.name
        record.deployment = decision.variant.deployment.name
        record.assignment = decision.reason
        began_admission = time.time_ns()
        record.phases.append(("route", began, began_admission))
        total_s = min(decision.route.total_timeout_s, decision.variant.deployment.request_timeout_s)
        deadline = asyncio.get_running_loop().time() + total_s
        return Job(request, decision, record, state.salts[tenant.name], deadline, began_admission)

    def _resolve(self, request: Request, tenant: Tenant) -> Decision:
        check_permission(tenant, request.model)
        # Callers without a key are not one unit: they are nobody in particular.
        unit = "" if tenant.name == ANONYMOUS else tenant.name
        subject = Subject(self._head.text, request.user, request.session, unit, self._record.request_id)
        try:
            decision = self._state.table.resolve(request.model, subject)
        except UnknownModel as unknown:
            raise not_found(unknown.close_matches(tenant.may_call)) from None
        if decision.variant.deployment.task not in self._endpoint.tasks:
            raise Refused(
                Code.UNSUPPORTED_ENDPOINT,
                f"The model does not answer {self._endpoint.path}: its task is"
                f" {decision.variant.deployment.task.value}.",
                param="model",
            )
        return decision

    async def _whole(self, job: Job, answer: Answer, body: bytes) -> None:
        record = self._record
        record.chunk(time.time_ns())
        self._note_usage(body_usage(self._endpoint.dialect, body), whole=True)
        self._begin(self._headers(job.decision, answer.content_type), len(body))
        self._context.end(body)

    async def _stream(self, job: Job, answer: Answer) -> None:
        """Bytes through, as they come and from where they come."""
        record, context = self._record, self._context
        strip = self._endpoint.usage_option and not job.request.wants_usage
        relay = self._relay = SSERelay(self._endpoint.dialect, strip_usage=strip)
        self._begin(self._headers(job.decision, answer.content_type))

        def take(chunk: bytes) -> bool:
            record.chunk(time.time_ns())
            data = relay.feed(chunk)
            if relay.failed:
                raise _cut(late=False)  # the engine's words about its fault stay here
            if data:
                context.write(data)
            return context.paused

        async def drained() -> None:
            # The engine's side has deadlines of its own; this one is for a caller that does not read.
            async with asyncio.timeout_at(job.total_deadline):
                await context.drained()

        try:
            await answer.response.deliver(take, drained)
        except (TimeoutError, StreamBroken) as error:
            raise _cut(
                isinstance(error, TimeoutError) or (isinstance(error, StreamTimeout) and error.total)
            ) from None
        finally:
            self._note_usage(relay.usage, whole=relay.ended)
        if not relay.ended:
            raise _cut(late=False)  # whole in HTTP's eyes, but the engine had more to say
        context.end(relay.finish())

    def _note_usage(self, usage: Usage, *, whole: bool) -> None:
        record = self._record
        # One that is whole may still hold its usage where it was not looked for: before megabytes of content.
        known = usage.output_tokens if self._endpoint.streams else usage.input_tokens
        self._incomplete = not whole or known is None
        if usage.input_tokens is not None:
            record.input_tokens = usage.input_tokens
        if usage.output_tokens is not None:
            record.output_tokens = usage.output_tokens
        record.finish_reason = usage.finish_reason or ""

    def _prefix(self) -> str:
        """Of the engine that was asked last."""
        return self._state.table.deployments[self._record.deployment].prefix

    def _headers(self, decision: Decision, content_type: bytes) -> list[Header]:
        return [
            (b"content-type", content_type),
            (_REQUEST_ID, self._record.request_id.encode()),
            (_ROUTE, decision.route.model.encode()),
            (_VARIANT, decision.variant.name.encode()),
        ]

    def _begin(self, headers: list[Header], length: int = NO_LENGTH) -> None:
        self._context.begin(200, headers, length)
        self._record.status = 200
        self._started = True

    async def _refuse(self, refused: Refused) -> None:
        """The error as a response, or as the last event of a stream that has begun."""
        record, context = self._record, self._context
        if self._services.ending and refused.code in _CUT_OFF:
            refused = shutting_down()
        record.code = refused.code.wire
        if not self._started or self._relay is None:
            record.status = refused.code.value.status
            send_refusal(context, refused, record.request_id, self._endpoint.style)
            return
        event = self._relay.broken(refused.code, refused.message)
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                await context.drained()
        except TimeoutError:
            context.abort()  # nobody reads
        else:
            context.end(event)

    def _note_gone(self) -> None:
        self._record.status = CANCELLED_STATUS
        self._record.code = CANCELLED_CODE


def _cut(late: bool) -> Refused:
    if late:
        return Refused(Code.TOTAL_TIMEOUT, "The answer took longer than the route allows.")
    return Refused(Code.UPSTREAM_ERROR, "The engine failed while it answered.")


def send_refusal(context: Context, refused: Refused, request_id: str, style: Style) -> None:
    """Writes an error response, if somebody is there to read it."""
    status, headers, body = render(refused, request_id, style)
    with contextlib.suppress(ClientGone):
        context.begin(status, headers, len(body), close=refused.close)
        context.end(body)


def log_bug(error: Exception, request_id: str) -> None:
    """Says where a bug is. Never the exception's text, which may quote a request."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    _log.error(
        "request failed inside the gateway",
        extra={
            "request_id": request_id,
            "error_type": type(error).__name__,
            "error_at": f"{frame.filename}:{frame.lineno} in {frame.name}",
        },
    )
