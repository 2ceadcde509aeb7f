"""From a decision to an engine that has begun to answer.

Everything may be tried again until the first byte of an answer is here, within three bounds: the
route's attempts, its retry budget, and the deadlines. A replica that refuses the connection was never
asked; it is marked down and costs neither attempts nor budget. Nor does one that is full of other gateways'
requests, which is as well as ever: the request waits on. When this process cannot connect for want of
files, ports or memory, no replica is to blame, and the caller is told to come back. When the variant's own
deployment cannot begin, the fallback deployments are tried in order, each once, with the variant's
overrides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from tradewind.api.headers import ENGINE_FULL, ENGINE_TOKEN, REQUEST_ID
from tradewind.api.problems import Code
from tradewind.gateway.http1 import (
    ConnectFailed,
    HeadTimeout,
    OutOfResources,
    StreamTimeout,
    UpstreamError,
    UpstreamResponse,
    request_head,
)
from tradewind.gateway.prepare import Request, render_body
from tradewind.gateway.problems import Refused
from tradewind.gateway.upstream import Upstream
from tradewind.gateway.verdict import ERROR_BYTES, Retry, judge
from tradewind.routing.admission import Admission, NoReplica, QueueFull, Timeout
from tradewind.routing.replica import ReplicaDirectory, ReplicaView
from tradewind.routing.retry import RetryBudget
from tradewind.routing.table import CompiledRoute, CompiledVariant, Decision
from tradewind.telemetry.record import RequestRecord

_log = logging.getLogger(__name__)

ANSWER_BYTES = 256 * 1024 * 1024
"""Largest answer that is not a stream: embeddings of a full batch are tens of megabytes."""

_REQUEST_ID = REQUEST_ID.encode()
_EVENT_STREAM = b"text/event-stream"
_FULL = ENGINE_FULL.encode()


@dataclass(slots=True)
class Answer:
    """An engine's 200. Either `body` is whole, or `response` streams; `view` is to be released once."""

    view: ReplicaView
    response: UpstreamResponse
    body: bytes | None
    content_type: bytes


@dataclass(slots=True)
class Job:
    """One request on its way to an engine."""

    request: Request
    decision: Decision
    record: RequestRecord
    salt: msgspec.Raw
    total_deadline: float
    """Loop time."""
    admitted_ns: int
    """When routing was done: the phase `admission` begins; 0 once it is noted."""


@dataclass(slots=True)
class _Target:
    variant: CompiledVariant
    wait: bool
    """Wait for a replica, up to the first-token deadline."""
    body: bytes = b""
    first_byte_deadline: float = 0.0


class _Failed(Exception):
    """One try brought no answer."""

    def __init__(self, refused: Refused, retry: Retry, *, asked: bool = True) -> None:
        super().__init__(refused.code.wire)
        self.refused = refused
        self.retry = retry
        self.asked = asked
        """The engine may have seen the request."""


class Dispatcher:
    """Tries replicas until one answers."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        directory: ReplicaDirectory,
        admission: Admission,
        engine_token: str,
        traceparent: Callable[[RequestRecord], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._directory = directory
        self._admission = admission
        self._token = engine_token
        self._traceparent = traceparent
        self._clock = clock
        self._budgets: dict[str, RetryBudget] = {}
        self._headers = (
            (b"content-type", b"application/json"),
            (b"accept-encoding", b"identity"),
            (ENGINE_TOKEN.encode(), engine_token.encode()),
        )

    def configure(self, routes: Mapping[str, CompiledRoute]) -> None:
        """Takes over the routes' retry budgets; what a surviving route has spent stays spent."""
        budgets = {}
        for name, route in routes.items():
            budget = self._budgets.get(name)
            if budget is None:
                budget = RetryBudget(route.retry.budget_percent, self._clock)
            budget.percent = route.retry.budget_percent
            budgets[name] = budget
        self._budgets = budgets

    async def open(self, job: Job) -> Answer:
        """The first answer that begins. Raises Refused with the last failure when none does.

        The caller must release `Answer.view`; after an exception nothing is held.
        """
        budget = self._budgets.get(job.decision.route.model)
        if budget is not None:
            budget.note_request()
        failure: _Failed | None = None
        asked = False
        for target in _targets(job.decision):
            if target.wait and asked:
                break  # the last, waiting turn is for when nobody was there to ask
            try:
                answer = await self._try_target(job, target, budget)
            except _Failed as failed:
                failure = failed
                asked = asked or failed.asked
                if failed.retry is Retry.NO:
                    break
            else:
                if target.variant.deployment.name != job.decision.variant.deployment.name:
                    job.record.assignment = "fallback"
                return answer
        assert failure is not None, "a route has at least one variant"
        raise failure.refused

    async def _try_target(self, job: Job, target: _Target, budget: RetryBudget | None) -> Answer:
        """An answer from one deployment, over as many of its replicas as the route allows."""
        route = job.decision.route
        loop = asyncio.get_running_loop()
        target.body = render_body(job.request, target.variant, job.salt)
        target.first_byte_deadline = min(loop.time() + route.first_token_timeout_s, job.total_deadline)
        tried: list[str] = []
        failure: _Failed | None = None
        while True:
            # A second choice is only worth having when it is there: who was asked already is not.
            wait = target.wait and (failure is None or not failure.asked)
            try:
                view = await self._acquire(job, target, tried, wait, returned=failure is not None)
            except _Failed as nobody:
                raise failure or nobody from None
            try:
                return await self._ask(job, target, view)
            except _Failed as failed:
                self._admission.release(view)
                failure = failed
            except BaseException:
                self._admission.release(view)
                raise
            if not failure.asked:
                if failure.retry is Retry.NO or loop.time() >= target.first_byte_deadline:
                    raise failure
                continue
            tried.append(view.id)
            spent = len(tried) >= max(1, route.retry.attempts)
            if failure.retry is not Retry.ELSEWHERE or spent or (budget is not None and not budget.allow()):
                raise failure

    async def _acquire(
        self, job: Job, target: _Target, tried: list[str], wait: bool, *, returned: bool
    ) -> ReplicaView:
        """A replica, at once or after waiting; notes the phases of the choice."""
        name, adapter = target.variant.deployment.name, target.variant.adapter
        before = time.time_ns()
        view = self._admission.try_acquire(name, tried, adapter)
        if view is None:
            left = target.first_byte_deadline - asyncio.get_running_loop().time()
            cold = not self._directory.any_ready(name, (), adapter)
            try:
                view = await self._admission.acquire(
                    name,
                    wait_s=max(0.0, left) if wait else 0.0,
                    exclude=tried,
                    adapter=adapter,
                    returned=returned,
                )
            except (NoReplica, QueueFull, Timeout) as error:
                raise _no_replica(error) from None
            finally:
                since, before = before, time.time_ns()
                job.record.queue_ns += before - since
                if cold:
                    job.record.cold_start_ns += before - since
        phases = job.record.phases
        if job.admitted_ns:
            phases.append(("admission", job.admitted_ns, before))
            job.admitted_ns = 0
        phases.append(("pick", before, time.time_ns()))
        return view

    async def _ask(self, job: Job, target: _Target, view: ReplicaView) -> Answer:
        """One try at one replica. Raises _Failed; whatever else happens, no connection is left behind."""
        record = job.record
        record.attempts += 1
        record.replica = view.id
        record.deployment = view.deployment
        record.upstream_started_ns = time.time_ns()
        streams = job.request.stream
        # Without a stream the first byte comes with the last token.
        deadline = target.first_byte_deadline if streams else job.total_deadline
        head = request_head(
            b"POST", (view.prefix + job.request.endpoint.path).encode(), view.id, self._headers_for(record),
            len(target.body),
        )  # fmt: skip
        response: UpstreamResponse | None = None
        try:
            response = await self._upstream.send(
                view.host,
                view.port,
                head,
                target.body,
                first_byte_deadline=deadline,
                total_deadline=job.total_deadline,
            )
            if response.status != 200:
                body = await response.read_all(ERROR_BYTES)
                if response.status == 503 and any(name == _FULL for name, _ in response.headers):
                    self._directory.full(view)
                    raise _Failed(_busy(), Retry.FALLBACK, asked=False)
                if response.status == 401:
                    _log.error("replica %s refuses the internal token", view.id)
                raise _Failed(*judge(response.status, body, (self._token, bytes(job.salt)[1:-1].decode())))
            whole = not response.content_type.startswith(_EVENT_STREAM)
            body_ = await response.read_all(ANSWER_BYTES) if whole else None
            return Answer(view, response, body_, response.content_type)
        except UpstreamError as error:
            raise self._failed(error, view, deadline, streams) from None
        except BaseException:
            if response is not None:
                response.abort()
            raise

    def _headers_for(self, record: RequestRecord) -> list[tuple[bytes, bytes]]:
        headers = [
            *self._headers,
            (_REQUEST_ID, record.request_id.encode()),
            (b"traceparent", self._traceparent(record)),
        ]
        if record.trace_state:
            headers.append((b"tracestate", record.trace_state.encode()))
        return headers

    def _failed(self, error: UpstreamError, view: ReplicaView, deadline: float, streams: bool) -> _Failed:
        late = asyncio.get_running_loop().time() >= deadline
        if isinstance(error, ConnectFailed) and not error.refused and late:
            # It was us who had no time left to connect: that says nothing about the replica.
            return _Failed(_busy(), Retry.FALLBACK)
        if isinstance(error, OutOfResources):
            short = Refused(Code.NO_CAPACITY, "The gateway cannot open another connection now.")
            return _Failed(short, Retry.NO, asked=False)
        if isinstance(error, ConnectFailed):
            self._directory.mark_down(view)
            self._upstream.forget(view.host, view.port)
            gone = Refused(Code.MODEL_UNAVAILABLE, "No replica of the model is ready.")
            return _Failed(gone, Retry.ELSEWHERE, asked=False)
        if isinstance(error, HeadTimeout) and streams:
            slow = Refused(Code.FIRST_TOKEN_TIMEOUT, "The engine did not begin an answer in time.")
            return _Failed(slow, Retry.FALLBACK)
        if isinstance(error, HeadTimeout | StreamTimeout):
            slow = Refused(Code.TOTAL_TIMEOUT, "The answer took longer than the route allows.")
            return _Failed(slow, Retry.NO)
        broken = Refused(Code.UPSTREAM_ERROR, "The engine failed to answer.")
        return _Failed(broken, Retry.ELSEWHERE)


def _targets(decision: Decision) -> list[_Target]:
    """Where to try, in order. With a fallback nobody waits, until everything was tried in vain."""
    own = decision.variant
    fallback = decision.route.fallback
    if not fallback:
        return [_Target(own, wait=True)]
    others = [
        replace(own, name=entry.name, deployment=entry, adapter=None)
        for entry in fallback
        if entry.name != own.deployment.name
    ]
    return [_Target(own, wait=False), *(_Target(v, wait=False) for v in others), _Target(own, wait=True)]


def _busy() -> Refused:
    return Refused(Code.NO_CAPACITY, "Every replica of the model is busy.")


def _no_replica(error: NoReplica | QueueFull | Timeout) -> _Failed:
    if isinstance(error, NoReplica) or (isinstance(error, Timeout) and not error.ready):
        refused = Refused(Code.MODEL_UNAVAILABLE, "No replica of the model is ready.")
    else:
        refused = _busy()
    return _Failed(refused, Retry.FALLBACK, asked=False)
