"""The self-check of `tradewind up`: one real question to each variant of each route, and its trace.

Which unit reaches which variant is computed, not guessed: the routing package is the gateway's own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tradewind.api.wire import GatewayConfig, RouteEntry, Task
from tradewind.cli.client import Answer, Client, EndpointError
from tradewind.cli.console import out
from tradewind.cli.errors import CommandFailed
from tradewind.routing.table import RouteTable, Subject
from tradewind.telemetry.store import Trace, load_trace
from tradewind.telemetry.tree import render_tree

QUESTION = "What is the capital of France? Answer in one sentence."
MAX_UNITS = 100_000
ENGINE_SPAN = "llm_request"
"""vLLM's name for its span."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that reaches one variant: `user` is None where the model is called directly."""

    model: str
    variant: str
    user: str | None
    weight_share: float


def unit_for(table: RouteTable, route: RouteEntry, variant: str) -> str | None:
    """A `user` whose sticky assignment on `route` is `variant`; None when no unit reaches it."""
    for number in range(MAX_UNITS):
        user = f"user-{number}"
        subject = Subject(headers={}, user=user, session=None, tenant="", request_id="")
        if table.resolve(route.model, subject).variant.name == variant:
            return user
    return None


def probes(config: GatewayConfig) -> list[Probe]:
    """One probe per variant with traffic, plus one per generating deployment that no route uses."""
    table = RouteTable.build(config)
    generating = {entry.name for entry in config.deployments if entry.task is Task.GENERATE}
    found: list[Probe] = []
    routed: set[str] = set()
    for route in config.routes:
        total = sum(variant.weight for variant in route.variants)
        for variant in route.variants:
            if variant.deployment not in generating or not variant.weight:
                continue
            routed.add(variant.deployment)
            user = unit_for(table, route, variant.name) if "user" in route.assign_by else None
            found.append(Probe(route.model, variant.name, user, variant.weight / total))
    return found + [Probe(name, name, None, 1.0) for name in sorted(generating - routed)]


def run(client: Client, config: GatewayConfig, home: Path, *, trace_wait_s: float = 10.0) -> None:
    """Ask, print, and prove that the trace is whole.

    Raises:
        CommandFailed: a variant did not answer, or another one than expected did.
    """
    last = None
    table = Table("route", "variant", "split", "answer", "first token", "tokens/s", title="Self-check")
    for probe in probes(config):
        answer = _ask(client, probe)
        table.add_row(
            probe.model,
            answer.variant,
            f"{probe.weight_share:.0%}",
            Text(answer.text.strip()),
            f"{answer.ttft_s * 1000:.0f} ms",
            f"{answer.tokens_per_s:.1f}",
        )
        last = answer
    out.print(table)
    if last is not None:
        _print_trace(last.request_id, home, trace_wait_s)


def _ask(client: Client, probe: Probe) -> Answer:
    answer = Answer()
    body = {"user": probe.user} if probe.user is not None else {}
    messages = [{"role": "user", "content": QUESTION}]
    try:
        for _ in client.chat(probe.model, messages, answer, max_tokens=48, temperature=0, **body):
            pass
    except EndpointError as error:
        raise CommandFailed(f"{probe.model} ({probe.variant}) did not answer: {error}") from error
    if probe.user is not None and answer.variant != probe.variant:
        raise CommandFailed(f"{probe.model}: expected variant {probe.variant}, {answer.variant} answered")
    return answer


def _print_trace(request_id: str, home: Path, wait_s: float) -> None:
    """Print the trace as a tree, once the engine's spans have been written too."""
    deadline = time.monotonic() + wait_s
    trace = load_trace(home, request_id)
    while (trace is None or not _whole(trace)) and time.monotonic() < deadline:
        time.sleep(0.2)
        trace = load_trace(home, request_id)
    if trace is None:
        out.print(f"Trace of {request_id}: exported by OTLP, or not sampled.")
        return
    out.print(Panel(render_tree(trace), title=f"tradewind trace {request_id}", expand=False))


def _whole(trace: Trace) -> bool:
    """Whether the engine's own span, the last to be written, has arrived."""
    return any(node.span.name == ENGINE_SPAN for node in trace.nodes())


def how_to_call(endpoint: str, model: str, key_file: str | None) -> str:
    """A curl command and an SDK example, ready to paste."""
    key = f"$(cat {key_file})" if key_file else "none"
    python_key = f'open("{key_file}").read().strip()' if key_file else '"none"'
    return f"""curl {endpoint}/v1/chat/completions \\
  -H "authorization: Bearer {key}" -H "content-type: application/json" \\
  -d '{{"model": "{model}", "user": "user-1", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{endpoint}/v1", api_key={python_key})
messages = [{{"role": "user", "content": "Hello!"}}]
for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="") if chunk.choices else None"""
