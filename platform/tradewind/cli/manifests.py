"""Manifest files → compiled platform, with errors as a user wants to read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tradewind.api.cluster import ServingCluster
from tradewind.api.model import API_VERSION
from tradewind.api.resources import parse_resource
from tradewind.cli.client import Client
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.cli.patience import Gone, nothing_gone
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.world import DEFAULT_CLUSTER

MAX_BYTES = 4 * 1024 * 1024
SUFFIXES = {".yaml", ".yml", ".json"}
STDIN = "-"
STALE_S = 60.0
"""For this long a gateway may go on by another configuration than it was given."""
_STALE = (
    "a gateway still serves by the configuration before; its log says why (a key in an environment "
    "variable must be set where tradewind up was started)"
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a platform listens, over what its ServingCluster says; None leaves that."""

    host: str | None = None
    port: int | None = None
    metrics_port: int | None = None


AS_WRITTEN = Placement()


def load(files: Sequence[Path], placement: Placement = AS_WRITTEN) -> Compiled:
    """Read, check and compile `files`. See `read` and `compiled`."""
    return compiled(read(files), placement)


def read(files: Sequence[Path]) -> tuple[Located, ...]:
    """The resources in `files` (`-` is standard input, a directory is its YAML files).

    Raises:
        CommandFailed: exit code 2 with every mistake, one a line: file:line:column: path: what.
    """
    try:
        return read_documents(_texts(files))
    except CompileError as error:
        raise _mistakes(error) from error


def compiled(located: Sequence[Located], placement: Placement = AS_WRITTEN) -> Compiled:
    """The resources as a platform that listens at `placement`. Raises as `read` does."""
    try:
        return compile_resources(_placed(located, placement))
    except CompileError as error:
        raise _mistakes(error) from error


def _mistakes(error: CompileError) -> CommandFailed:
    return _refusal([str(diagnostic) for diagnostic in error.diagnostics])


def _refusal(mistakes: Sequence[str]) -> CommandFailed:
    count = len(mistakes)
    summary = f"{count} mistake{'s' if count > 1 else ''}; nothing was changed"
    return CommandFailed(summary, exit_code=BAD_INPUT, mistakes=mistakes)


def endpoint(compiled: Compiled) -> str:
    """Base URL of the compiled platform, without `/v1`."""
    there = compiled.endpoint
    host = "127.0.0.1" if there.host in {"0.0.0.0", "::"} else there.host  # noqa: S104
    return f"http://[{host}]:{there.port}" if ":" in host else f"http://{host}:{there.port}"


def named(files: Sequence[Path]) -> list[str]:
    """The files as other commands can find them."""
    return [str(file) if str(file) == STDIN else str(file.resolve()) for file in files]


def wait_until_in_force(
    client: Client,
    compiled: Compiled,
    timeout_s: float,
    *,
    cold: int = 0,
    gone: Gone = nothing_gone,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the gateway says that it serves by this revision and every deployment but `cold` of
    them has a replica.

    Raises:
        CommandFailed: it does not within `timeout_s`, or goes on with another configuration for STALE_S, or
            something has died; the message says what is missing.
    """
    began = answered = clock()
    seen = 0
    while True:
        missing = _missing(client.ready(), compiled, cold)
        seen = 0 if missing else seen + 1
        # Each call may reach another gateway replica: ask often enough to meet them all.
        if seen >= 2 * _gateways(compiled):
            return
        if dead := gone():
            raise CommandFailed(dead)
        now = clock()
        # One that has refused a configuration will not take it later.
        answered = answered if missing == _STALE else now
        if now - began >= timeout_s or now - answered >= STALE_S:
            raise CommandFailed(f"the configuration is not in force after {now - began:.0f} s: {missing}")
        if missing:
            sleep(0.05)


def _missing(state: Mapping[str, Any] | None, compiled: Compiled, allowed: int) -> str:
    """What keeps the gateway that answered from serving by `compiled`; empty when nothing does."""
    if state is None:
        return "the gateway does not answer"
    if state.get("status_code") != 200 and not (allowed and state.get("reason") == "no_replica"):
        return f"the gateway is not ready ({state.get('reason', 'unknown')})"
    if state.get("revision") != compiled.gateway.revision:
        return _STALE
    cold = state.get("cold_deployments", 0)
    return f"{cold} of the models have no replica that a gateway can reach" if cold > allowed else ""


def _gateways(compiled: Compiled) -> int:
    apps = {app["name"]: app for app in compiled.serve_config["applications"]}
    return int(apps["gateway"]["deployments"][0]["num_replicas"])


def _texts(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Name and text of each file. CommandFailed: with every one that cannot be read."""
    texts: list[tuple[str, str]] = []
    mistakes: list[str] = []
    for file in files:
        try:
            for path in _expanded(file):
                texts.append((_name(path), _read(path)))  # noqa: PERF401 - what was read before counts
        except Unreadable as fault:
            mistakes.append(f"{_name(file)}: {fault}")
        except OSError as error:
            about = error.filename if isinstance(error.filename, str) else _name(file)
            mistakes.append(f"{about}: {(error.strerror or type(error).__name__).lower()}")
    if mistakes:
        raise _refusal(mistakes)
    return texts


class Unreadable(Exception):
    """A named file holds no text that could be manifests."""


def _name(path: Path) -> str:
    return "<stdin>" if str(path) == STDIN else str(path)


def _expanded(file: Path) -> list[Path]:
    """The file itself, or the manifests of a directory in the order of their names."""
    if str(file) == STDIN or not file.is_dir():
        return [file]
    found = sorted(path for path in file.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise Unreadable("no YAML file in this directory")
    return found


def _read(path: Path) -> str:
    """The text of a file, a pipe or standard input, of which no more than the limit is ever read."""
    if str(path) == STDIN:
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Unreadable(f"over {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8 text") from None


def _placed(located: Sequence[Located], placement: Placement) -> list[Located]:
    """The resources with `placement` in their ServingCluster, which is made when there is none."""
    if placement == AS_WRITTEN:
        return list(located)
    result = [
        replace(item, resource=_moved(item.resource, placement))
        if isinstance(item.resource, ServingCluster)
        else item
        for item in located
    ]
    if not any(isinstance(item.resource, ServingCluster) for item in located):
        metadata = {"name": DEFAULT_CLUSTER}
        default = parse_resource(
            {"apiVersion": API_VERSION, "kind": "ServingCluster", "metadata": metadata, "spec": {}}
        )
        assert isinstance(default, ServingCluster)
        result.append(Located.bare(_moved(default, placement)))
    return result


def _moved(cluster: ServingCluster, placement: Placement) -> ServingCluster:
    old = cluster.spec.gateway
    endpoint = old.endpoint.model_copy(
        update={"host": placement.host or old.endpoint.host, "port": placement.port or old.endpoint.port}
    )
    metrics_port = placement.metrics_port or old.metrics_port
    gateway = old.model_copy(update={"endpoint": endpoint, "metrics_port": metrics_port})
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"gateway": gateway})})
