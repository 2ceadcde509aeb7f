"""Notes about one request, taken while it runs; spans and metrics are made of them at its end."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from tradewind.telemetry.cells import StreamCells
from tradewind.telemetry.outcome import Outcome, outcome_of


class Meter(Protocol):
    """Where a streaming request finds its cells."""

    def stream_cells(self, record: RequestRecord) -> StreamCells:
        """Cells of the record's operation, route and variant."""


class RequestRecord(msgspec.Struct, eq=False):
    """One request: ids, times and facts. Times are nanoseconds since the epoch, 0 while unknown.

    There is no field for a prompt, an answer, a key or a header, so none can get into a span or a
    metric. Made by `RequestTelemetry.start`; not to be changed after `RequestTelemetry.finish`, save by what
    is `pending` then. A msgspec Struct: slots, and built in C.
    """

    request_id: str
    trace_id: int
    span_id: int
    parent_id: int | None
    sampled: bool
    trace_state: str
    upstream_span_id: int
    """Id of the client span around the chosen upstream try; goes into the upstream's traceparent."""
    operation: str
    """`gen_ai.operation.name`, empty for paths that call no model."""
    path: str
    """Path template."""
    method: str
    started_ns: int
    route: str = ""
    variant: str = ""
    deployment: str = ""
    tenant: str = ""
    assignment: str = ""
    """rule, sticky, request, direct or fallback."""
    stream: bool = False
    request_model: str = ""
    phases: list[tuple[str, int, int]] = []
    """(name, start, end): auth, route, admission, pick."""
    upstream_started_ns: int = 0
    first_byte_ns: int = 0
    ended_ns: int = 0
    replica: str = ""
    """host:port of the replica that answered."""
    attempts: int = 0
    queue_ns: int = 0
    cold_start_ns: int = 0
    status: int = 0
    code: str = ""
    """Error code, empty when all went well; `cancelled` when the client went away."""
    input_tokens: int = -1
    output_tokens: int = -1
    finish_reason: str = ""
    chunks: int = 0
    last_chunk_ns: int = 0
    finished: bool = False
    pending: Any = None
    """An asyncio.Future that is done when nothing more will be noted, or None. The request is over and
    answered by then; only its numbers are not complete."""
    meter: Any = None
    """A Meter or None. Any, for msgspec takes no Protocol."""
    cells: Any = None
    """StreamCells from the first streamed chunk on."""

    def chunk(self, now_ns: int) -> None:
        """Note one chunk of the answer's body at `now_ns`. Called for each one; about half a microsecond."""
        last = self.last_chunk_ns
        self.last_chunk_ns = now_ns
        self.chunks += 1
        if last:
            if self.cells is not None:
                self.cells.tick(now_ns - last, now_ns)
            return
        self.first_byte_ns = now_ns
        if self.stream and self.meter is not None:
            self.cells = self.meter.stream_cells(self)
            self.cells.ring.add(now_ns, 1)

    @property
    def outcome(self) -> Outcome:
        """What became of the request."""
        return outcome_of(self.status, self.code)
