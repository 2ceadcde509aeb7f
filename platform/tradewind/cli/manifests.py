"""Manifest files → compiled platform, with errors as a user wants to read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
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


def load(files: Sequence[Path], *, host: str | None = None, port: int | None = None) -> Compiled:
    """Read, check and compile `files` (`-` is standard input, a directory is its YAML files).

    Args:
        host: overrides the ServingCluster's endpoint host.
        port: overrides its port.

    Raises:
        CommandFailed: exit code 2 with every mistake, one a line: file:line:column: path: what.
    """
    try:
        located = read_documents([(name, text) for name, text in _texts(files)])
        return compile_resources(_with_endpoint(located, host, port))
    except CompileError as error:
        count = len(error.diagnostics)
        summary = f"{count} mistake{'s' if count > 1 else ''}; nothing was changed"
        raise CommandFailed(str(error), exit_code=BAD_INPUT, hint=summary) from error


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


def _with_endpoint(located: Sequence[Located], host: str | None, port: int | None) -> list[Located]:
    """The resources with the endpoint of the command line in their ServingCluster."""
    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if not changes:
        return list(located)
    result, found = [], False
    for item in located:
        resource = item.resource
        if isinstance(resource, ServingCluster):
            found = True
            result.append(replace(item, resource=_moved(resource, changes)))
        else:
            result.append(item)
    if not found:
        metadata = {"name": DEFAULT_CLUSTER}
        default = parse_resource(
            {"apiVersion": API_VERSION, "kind": "ServingCluster", "metadata": metadata, "spec": {}}
        )
        assert isinstance(default, ServingCluster)
        result.append(Located.bare(_moved(default, changes)))
    return result


def _moved(cluster: ServingCluster, changes: dict[str, str | int]) -> ServingCluster:
    gateway = cluster.spec.gateway
    moved = gateway.model_copy(update={"endpoint": gateway.endpoint.model_copy(update=changes)})
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"gateway": moved})})
