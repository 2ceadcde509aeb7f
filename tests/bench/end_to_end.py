"""The quickstart as people run it: how long it takes to start, what it adds to a real engine, what it weighs.

`tradewind up` runs as a process of its own with a state directory of its own; the weights are in the
cache before the clock starts. The same engine replica is asked in turns through the platform's
gateway and on its own port with the internal token, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console

from tests.bench import processes
from tests.bench.gateway_cost import Series
from tests.bench.load import CHAT_PATH, Plan, send
from tradewind import home
from tradewind.cli import manifests
from tradewind.cli.client import Answer, Client, EndpointError
from tradewind.cli.fetching import fetch_weights
from tradewind.cli.keys import first_key, prepare_keys
from tradewind.serve.local import free_port

_MODEL = "smollm2-bf16"
_ROUTE = "chat"
_VARIANT = "control"
_TOKENS = 48
_IN_TURN = {1: 2, 8: 1}
"""Answers of each stream per round, by concurrent streams."""
_REPLICA_PORTS = range(30_000, 31_001)
_START_S = 300.0
_STOP_S = 60.0

START = "warm_restart_to_first_answer"
RSS = "rss_of_everything"
PSS = "pss_of_everything"


class PlatformFailed(Exception):
    """`tradewind up` ended or never answered."""


def name(what: str, streams: int) -> str:
    """Of a figure that is measured for several counts of concurrent streams."""
    return f"{what}_{streams}_streams" if streams > 1 else f"{what}_1_stream"


@dataclass(slots=True)
class Side:
    """What one way to the engine gave, by round."""

    ttft_ms: list[float] = field(default_factory=list)
    """Median of the round's streams."""
    tokens_per_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Quickstart:
    """A running platform."""

    port: int
    engine_port: int
    key: str
    token: str
    user: str
    """One that the route's split sends to the engine that is measured."""
    pid: int
    state: Path
    start_s: float
    """From the start of the process to the first token of an answer."""

    def plan(self, prompts: list[str], streams: int, *, through: bool) -> Plan:
        """One streamed answer to each of `prompts`, of exactly 48 tokens, over `streams` connections."""
        model = _ROUTE if through else _MODEL
        shape = {
            "model": model, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
            "max_tokens": _TOKENS, "min_tokens": _TOKENS, "ignore_eos": True, "user": self.user,
        }  # fmt: skip
        bodies = [
            json.dumps({**shape, "messages": [{"role": "user", "content": prompt}]}) for prompt in prompts
        ]
        secret = ("authorization", f"Bearer {self.key}") if through else ("x-tradewind-token", self.token)
        return Plan(
            port=self.port if through else self.engine_port,
            path=CHAT_PATH if through else f"/engines/{_MODEL}{CHAT_PATH}",
            headers=[secret, ("content-type", "application/json")],
            bodies=bodies,
            connections=streams,
            requests=len(prompts) // streams,
        )


@contextmanager
def quickstart(state: Path, root: Path) -> Iterator[Quickstart]:
    """Start `examples/quickstart.yaml` and wait until it is ready; stop it at the end.

    Raises:
        PlatformFailed: it did not come up; the message ends with what it printed last.
    """
    os.environ[home.HOME] = str(home.private_dir(state))
    file = root / "examples" / "quickstart.yaml"
    config = manifests.load([file])
    prepare_keys(config.gateway)
    fetch_weights(config.engines, config.adapters, Console(stderr=True))
    key, _ = first_key(config.gateway)
    port = free_port(18_100)
    log = state / "up.log"
    command = [sys.executable, "-m", "tradewind.cli.main", "up", str(file), "--port", str(port)]
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=_environment(root)
        )
    try:
        client = Client(f"http://127.0.0.1:{port}", key)
        start_s = _first_answer(client, process, began, log)
        _until_served(state, process, log)
        found = processes.family(process.pid, state)
        yield Quickstart(
            port=port,
            engine_port=processes.listening_port(processes.replica(found, _MODEL), _REPLICA_PORTS),
            key=key,
            token=(state / "internal-token").read_text().strip(),
            user=_user_of_variant(client),
            pid=process.pid,
            state=state,
            start_s=start_s,
        )
        client.close()
    finally:
        _stop(process)


def compare(platform: Quickstart, streams: int, rounds: int) -> tuple[Side, Side]:
    """(through the platform, direct) with so many streams at once; an uncounted round comes first."""
    through, direct = Side(), Side()
    for turn in range(rounds + 1):
        sides = [(1, through), (2, direct)]
        for digit, side in sides if turn % 2 else reversed(sides):
            # The engine keeps what it computed for a prompt: each is new to it, and as long as its twin.
            prompts = [
                f"{turn}/{streams}/{number}/{digit}: tell what a sailor saw on day {number} of a long voyage,"
                " and what the wind and the sea were like."
                for number in range(streams * _IN_TURN[streams])
            ]
            result = send(platform.plan(prompts, streams, through=side is through))
            if turn:
                side.ttft_ms.append(statistics.median(result.first_s) * 1e3)
                side.tokens_per_s.append(len(prompts) * _TOKENS / result.elapsed_s)
    return through, direct


def figures(platform: Quickstart, rounds: dict[int, int]) -> dict[str, Series]:
    """Everything about the running quickstart. `rounds` by concurrent streams.

    What the platform adds is the difference within a round: the two ways were tried one right after the
    other there, so that what else the machine did is in both.
    """
    found = {START: Series("s", [platform.start_s])}
    for streams, count in rounds.items():
        through, direct = compare(platform, streams, count)
        ttft = zip(through.ttft_ms, direct.ttft_ms, strict=True)
        tokens = zip(through.tokens_per_s, direct.tokens_per_s, strict=True)
        found |= {
            name("ttft_through", streams): Series("ms", through.ttft_ms),
            name("ttft_direct", streams): Series("ms", direct.ttft_ms),
            name("ttft_added", streams): Series("ms", [mine - bare for mine, bare in ttft]),
            name("tokens_through", streams): Series("tok/s", through.tokens_per_s),
            name("tokens_direct", streams): Series("tok/s", direct.tokens_per_s),
            name("throughput_lost", streams): Series("%", [(1 - mine / bare) * 100 for mine, bare in tokens]),
        }
    memory = processes.memory(processes.family(platform.pid, platform.state))
    found[RSS] = Series("GB", [memory.rss / 1e9])
    found[PSS] = Series("GB", [memory.pss / 1e9])
    return found


def _environment(root: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RAY_"))}
    paths = [str(root / "platform"), environ.get("PYTHONPATH", "")]
    return environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _first_answer(client: Client, process: subprocess.Popen[bytes], began: float, log: Path) -> float:
    """Seconds from `began` to the first token, asking again and again."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    while time.monotonic() - began < _START_S:
        with contextlib.suppress(EndpointError, httpx.HTTPError):
            for _ in client.chat(_ROUTE, messages, Answer(), max_tokens=1):
                return time.monotonic() - began
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise PlatformFailed(f"the quickstart gave no answer:\n{log.read_text()[-2000:]}")


def _until_served(state: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when `tradewind up` has done its own self-check and serves."""
    deadline = time.monotonic() + _START_S
    while "Serving http" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise PlatformFailed(f"the quickstart did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def _user_of_variant(client: Client) -> str:
    messages = [{"role": "user", "content": "Hello"}]
    for number in range(100):
        answer = Answer()
        for _ in client.chat(_ROUTE, messages, answer, max_tokens=1, user=f"bench-{number}"):
            pass
        if answer.variant == _VARIANT:
            return f"bench-{number}"
    raise PlatformFailed(f"of 100 users the split sends none to {_VARIANT}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # Ray's daemons die with it
        process.wait()
