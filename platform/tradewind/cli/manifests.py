"""Manifest files → compiled platform, with errors as a user wants to read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tradewind.api.cluster import ServingCluster
from tradewind.api.model import API_VERSION
from tradewind.api.resources import parse_resource
from tradewind.cli.client import Client
from tradewind.cli.errors import BAD_INPUT, CommandFailed
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.documents import Located, read_documents
from tradewind.compiler.world import DEFAULT_CLUSTER

MAX_BYTES = 4 * 1024 * 1024
SUFFIXES = {".yaml", ".yml"}


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
        return read_documents(list(_texts(files)))
    except CompileError as error:
        raise _mistakes(error) from error


def compiled(located: Sequence[Located], placement: Placement = AS_WRITTEN) -> Compiled:
    """The resources as a platform that listens at `placement`. Raises as `read` does."""
    try:
        return compile_resources(_placed(located, placement))
    except CompileError as error:
        raise _mistakes(error) from error


def _mistakes(error: CompileError) -> CommandFailed:
    count = len(error.diagnostics)
    summary = f"{count} mistake{'s' if count > 1 else ''}; nothing was changed"
    return CommandFailed(str(error), exit_code=BAD_INPUT, hint=summary)


def endpoint(compiled: Compiled) -> str:
    """Base URL of the compiled platform, without `/v1`."""
    http = compiled.serve_config["http_options"]
    host = "127.0.0.1" if http["host"] in {"0.0.0.0", "::"} else http["host"]  # noqa: S104
    return f"http://[{host}]:{http['port']}" if ":" in host else f"http://{host}:{http['port']}"


def wait_until_in_force(client: Client, compiled: Compiled, timeout_s: float) -> None:
    """Return when the gateway says that it serves by this revision and every deployment has a replica.

    Raises:
        CommandFailed: it does not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    seen = 0
    while time.monotonic() < deadline:
        state = client.ready()
        if state and state.get("revision") == compiled.gateway.revision and not state.get("cold_deployments"):
            seen += 1
            # Each call may reach another gateway replica: ask often enough to meet them all.
            if seen >= 2 * _gateways(compiled):
                return
            continue
        seen = 0
        time.sleep(0.05)
    raise CommandFailed(f"the gateway did not take over the configuration within {timeout_s:.0f} s")


def _gateways(compiled: Compiled) -> int:
    apps = {app["name"]: app for app in compiled.serve_config["applications"]}
    return int(apps["gateway"]["deployments"][0]["num_replicas"])


def _texts(files: Sequence[Path]) -> Iterable[tuple[str, str]]:
    for file in files:
        if str(file) == "-":
            yield "<stdin>", sys.stdin.read(MAX_BYTES)
            continue
        paths = (
            sorted(path for path in file.iterdir() if path.suffix in SUFFIXES) if file.is_dir() else [file]
        )
        if not paths:
            raise CommandFailed(f"{file}: no YAML file in this directory", exit_code=BAD_INPUT)
        for path in paths:
            yield str(path), _read(path)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CommandFailed(f"{path}: over {MAX_BYTES} bytes", exit_code=BAD_INPUT)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandFailed(f"{path}: no such file", exit_code=BAD_INPUT) from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{path}: not UTF-8 text", exit_code=BAD_INPUT) from None
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", exit_code=BAD_INPUT) from error


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
