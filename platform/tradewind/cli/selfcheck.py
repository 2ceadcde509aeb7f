"""The self-check of `tradewind up`: one real question to each variant of each route, and its trace.

Which unit reaches which variant is computed, not guessed: the routing package is the gateway's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.panel import Panel
from rich.table import Table

from tradewind.api import headers
from tradewind.api.wire import DeploymentEntry, GatewayConfig, RouteEntry, Task
from tradewind.cli.client import Answer, Client, EndpointError, with_key
from tradewind.cli.console import err, out, plain
from tradewind.cli.errors import CommandFailed
from tradewind.cli.keys import key_for
from tradewind.routing.table import RouteTable, Subject
from tradewind.telemetry.store import Trace, load_trace
from tradewind.telemetry.tree import render_tree

QUESTION = "What is the capital of France? Answer in one sentence."
FACT = "Paris is the capital of France."
MAX_UNITS = 100_000
ENGINE_SPAN = "llm_request"
"""vLLM's name for its span."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request to one variant.

    `unit` is what assigns it there, sent in `unit_in`: `user`, or a header's name. It is None where
    no unit can be chosen, so that another variant may answer: each request on its own, a rule, a
    model called directly.
    """

    model: str
    variant: str
    weight_share: float
    task: Task = Task.GENERATE
    unit: str | None = None
    unit_in: str = ""
    key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        unit = {self.unit_in: self.unit} if self.unit is not None and self.unit_in != "user" else {}
        return with_key(self.key) | unit

    @property
    def body(self) -> dict[str, str]:
        return {"user": self.unit} if self.unit is not None and self.unit_in == "user" else {}


def unit_place(route: RouteEntry) -> str:
    """Where a request to `route` can carry a unit of our choice: `user`, a header's name, or nowhere."""
    for name in sorted(route.assign_by, key=lambda name: name != "user"):
        if name == "user":
            return "user"
        if name == "session":
            return headers.SESSION
        if name.startswith("header:"):
            return name.removeprefix("header:").lower()
    return ""


def unit_for(table: RouteTable, route: RouteEntry, variant: str, tenant: str = "") -> str | None:
    """A unit that `route` assigns to `variant` for a caller of `tenant`; None when none reaches it."""
    place = unit_place(route)
    if not place:
        return None
    for number in range(MAX_UNITS):
        unit = f"user-{number}"
        subject = Subject(
            headers={} if place == "user" else {place: unit},
            user=unit if place == "user" else None,
            session=None,
            tenant=tenant,
            request_id="",
        )
        decision = table.resolve(route.model, subject)
        if decision.variant.name == variant:
            return unit
        if decision.reason == "rule":
            # The rule looks at the tenant or at nothing: no unit will get past it.
            return None
    return None


def probes(config: GatewayConfig) -> list[Probe]:
    """One probe per variant with traffic, plus one per deployment that no route uses.

    What no tenant may call (or none whose key this process can read) has none.
    """
    table = RouteTable.build(config)
    entries = {entry.name: entry for entry in config.deployments}
    found: list[Probe] = []
    routed: set[str] = set()
    for route in config.routes:
        total = sum(variant.weight for variant in route.variants)
        used = [variant for variant in route.variants if variant.weight]
        routed |= {variant.deployment for variant in used}
        if (caller := key_for(config, route.model)) is None:
            continue
        key, tenant = caller
        for variant in used:
            unit = unit_for(table, route, variant.name, tenant)
            task = entries[variant.deployment].task
            share = variant.weight / total
            found.append(Probe(route.model, variant.name, share, task, unit, unit_place(route), key))
    return found + [
        Probe(name, name, 1.0, entries[name].task, key=caller[0])
        for name in sorted(set(entries) - routed)
        if (caller := key_for(config, name)) is not None
    ]


def run(client: Client, config: GatewayConfig, home: Path, *, trace_wait_s: float = 10.0) -> None:
    """Ask, print, and prove that the trace is whole.

    Raises:
        CommandFailed: a variant did not answer, or another one than expected did.
    """
    last = None
    table = Table("route", "variant", "split", "answer", "first token", "tokens/s", title="Self-check")
    asked = probes(config)
    for probe in asked:
        with err.status(f"Asking {probe.model} ({probe.variant}) …"):
            answer = _ask(client, probe)
        table.add_row(
            plain(probe.model),
            plain(answer.variant or probe.variant),
            f"{probe.weight_share:.0%}",
            plain(answer.text.strip()),
            f"{answer.ttft_s * 1000:.0f} ms",
            f"{answer.tokens_per_s:.1f}" if answer.output_tokens else "–",
        )
        last = answer if probe.task is Task.GENERATE or last is None else last
    out.print(table)
    for name in _unasked(config, asked):
        err.print(plain(f"  {name}: not asked, no tenant with a key that can be read here may call it"))
    if last is not None:
        _print_trace(last.request_id, home, trace_wait_s)


def _unasked(config: GatewayConfig, asked: Iterable[Probe]) -> list[str]:
    seen = {probe.model for probe in asked}
    routed = {variant.deployment for route in config.routes for variant in route.variants}
    wanted = [route.model for route in config.routes]
    wanted += [entry.name for entry in config.deployments if entry.name not in routed]
    return [name for name in wanted if name not in seen]


def _ask(client: Client, probe: Probe) -> Answer:
    answer = Answer()
    try:
        _ASK[probe.task](client, probe, answer)
    except EndpointError as error:
        raise CommandFailed(f"{probe.model} ({probe.variant}) did not answer: {error}") from error
    if probe.unit is not None and answer.variant != probe.variant:
        raise CommandFailed(f"{probe.model}: expected variant {probe.variant}, {answer.variant} answered")
    return answer


def _generate(client: Client, probe: Probe, answer: Answer) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    for _ in client.chat(
        probe.model, messages, answer, probe.headers, max_tokens=48, temperature=0, **probe.body
    ):
        pass


def _embed(client: Client, probe: Probe, answer: Answer) -> None:
    body = {"model": probe.model, "input": QUESTION, **probe.body}
    content = client.post("/v1/embeddings", body, answer, probe.headers)
    try:
        answer.text = f"{len(content['data'][0]['embedding'])} numbers"
    except (LookupError, TypeError):
        raise EndpointError("the answer holds no embedding") from None


def _score(client: Client, probe: Probe, answer: Answer) -> None:
    body = {"model": probe.model, "text_1": QUESTION, "text_2": FACT, **probe.body}
    content = client.post("/v1/score", body, answer, probe.headers)
    try:
        answer.text = f"score {float(content['data'][0]['score']):.3f}"
    except (LookupError, TypeError, ValueError):
        raise EndpointError("the answer holds no score") from None


_ASK = {Task.GENERATE: _generate, Task.EMBED: _embed, Task.SCORE: _score}


def _print_trace(request_id: str, home: Path, wait_s: float) -> None:
    """Print the trace as a tree, once the engine's spans have been written too."""
    deadline = time.monotonic() + wait_s
    trace = load_trace(home, request_id)
    while (trace is None or not _whole(trace)) and time.monotonic() < deadline:
        time.sleep(0.2)
        trace = load_trace(home, request_id)
    if trace is None:
        out.print(plain(f"Trace of {request_id}: exported by OTLP, or not sampled."))
        return
    out.print(Panel(render_tree(trace), title=f"tradewind trace {request_id}", expand=False))


def _whole(trace: Trace) -> bool:
    """Whether the engine's own span, the last to be written, has arrived."""
    return any(node.span.name == ENGINE_SPAN for node in trace.nodes())


def example_model(config: GatewayConfig) -> str | None:
    """The name to show in an example: the first route, or else deployment, that generates text."""
    entries: dict[str, DeploymentEntry] = {entry.name: entry for entry in config.deployments}
    talking = [name for name, entry in entries.items() if entry.task is Task.GENERATE]
    routes = [
        route.model
        for route in config.routes
        if all(variant.deployment in talking for variant in route.variants)
    ]
    return next(iter([*routes, *talking]), None)
