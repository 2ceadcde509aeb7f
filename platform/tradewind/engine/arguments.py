"""EngineSettings -> the command line of vLLM's own parser, minus what the platform decides. Pure.

Arguments go through vLLM's parser and not into its classes, so that a resource means exactly what
`vllm serve` would make of it, in every supported version.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradewind.api.wire import EngineSettings, Task
from tradewind.engine import lora
from tradewind.engine.errors import EngineStartError

LOAD_FORMATS = ("safetensors", "mistral")
"""Formats whose files cannot run code when loaded."""

OWNED = {
    "model": "it comes from spec.source",
    "model_tag": "it comes from spec.source",
    "revision": "it belongs to spec.source",
    "code_revision": "it belongs to spec.source",
    "download_dir": "the platform keeps the cache",
    "served_model_name": "it is the deployment's name",
    "trust_remote_code": "it belongs to spec.source",
    "lora_modules": "they come from spec.adapters",
    "host": "the platform listens",
    "port": "the platform listens",
    "uds": "the platform listens",
    "root_path": "the platform listens",
    "grpc": "the platform listens",
    "grpc_port": "the platform listens",
    "headless": "the platform listens",
    "api_server_count": "the platform scales by replicas",
    "config": "arguments stand in spec.engine.args",
    "api_key": "keys come from tenants",
    "ssl_keyfile": "the platform listens",
    "ssl_certfile": "the platform listens",
    "ssl_ca_certs": "the platform listens",
    "middleware": "it would run code in front of the engine",
    "allowed_local_media_path": "requests may not read files",
    "allowed_media_domains": "requests may not make the engine fetch",
    "trust_request_chat_template": "requests may not bring templates",
    "trust_request_mm_kwargs": "requests may not set processor options",
    "enable_log_requests": "prompts are never logged",
    "enable_log_outputs": "answers are never logged",
    "max_log_len": "prompts are never logged",
    "otlp_traces_endpoint": "spans go where OTEL_* says",
    "collect_detailed_traces": "spans go where OTEL_* says",
    "tool_server": "it would let requests run tools in the cluster",
}
"""Arguments that a resource may not set, and why."""

_CODE = (
    "tool_parser_plugin",
    "reasoning_parser_plugin",
    "io_processor_plugin",
    "worker_cls",
    "worker_extension_cls",
    "scheduler_cls",
    "model_class_overrides",
    "logits_processors",
)
"""Arguments that name Python code: only together with trust_remote_code."""

NO_REMOTE_MEDIA = "media.invalid"
"""The only host that media may come from: one that RFC 6761 promises will never exist."""


@dataclass(frozen=True, slots=True)
class Known:
    """One argument of vLLM's parser."""

    flag: str
    """As on the command line: `--max-model-len`."""
    switch: bool
    """Takes no value."""
    off: str | None = None
    """The flag that turns a switch off."""
    many: bool = False
    """Takes several values one after the other; otherwise a list is sent as JSON."""


def command_line(
    settings: EngineSettings,
    known: Mapping[str, Known],
    directory: Path,
    ranks: Sequence[int],
    defaults: Mapping[str, Any],
) -> list[str]:
    """Arguments for vLLM's parser. EngineStartError names an argument that is unknown or not allowed.

    `defaults` hold only where the resource says nothing, and only when this vLLM knows them. `ranks` are
    those of the adapters that are there at the start.
    """
    check_arguments(settings.args, known, trust=settings.source.trust_remote_code)
    wanted = {name: value for name, value in defaults.items() if name in known}
    wanted |= _task_arguments(settings)
    wanted |= settings.args
    if settings.lora:
        wanted |= lora.room(ranks, settings.args)
    if wanted.get("load_format", "auto") == "auto":
        wanted["load_format"] = "safetensors"
    fixed: dict[str, Any] = {
        "model": str(directory),
        "served_model_name": [settings.name],
        "trust_remote_code": settings.source.trust_remote_code,
        "allowed_media_domains": [NO_REMOTE_MEDIA],
        "disable_fastapi_docs": True,
        "log_error_stack": False,
    }
    if settings.lora:
        fixed["enable_lora"] = True
    argv: list[str] = []
    for name, value in (wanted | fixed).items():
        argv += _flag(known[name], value)
    return argv


def check_arguments(args: Mapping[str, Any], known: Collection[str], *, trust: bool) -> None:
    """Raise EngineStartError for the first argument that vLLM does not know or the platform refuses."""
    for name, value in args.items():
        if name in OWNED:
            raise EngineStartError(f'engine argument "{name}" cannot be set: {OWNED[name]}.')
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise EngineStartError(f'engine argument "{name}" is not known to this vLLM.{hint}')
        if name in _CODE and value and not trust:
            raise EngineStartError(f'engine argument "{name}" runs code: it needs source.trustRemoteCode.')
        if name == "load_format" and value not in (*LOAD_FORMATS, "auto"):
            raise EngineStartError(
                f'engine argument "load_format" cannot be {value!r}: '
                f"only {' and '.join(LOAD_FORMATS)} cannot run code while they load."
            )


def _task_arguments(settings: EngineSettings) -> dict[str, Any]:
    if settings.task is Task.GENERATE or "runner" in settings.args:
        return {}
    return {"runner": "pooling"}


def _flag(argument: Known, value: Any) -> list[str]:
    if value is None:
        return []
    if argument.switch:
        if not isinstance(value, bool):
            name = argument.flag.removeprefix("--").replace("-", "_")
            raise EngineStartError(f'engine argument "{name}" is true or false, not {value!r}.')
        if value:
            return [argument.flag]
        return [argument.off] if argument.off else []
    if argument.many and isinstance(value, (list, tuple)):
        return [argument.flag, *(_text(item) for item in value)]
    return [f"{argument.flag}={_text(value)}"]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list, tuple, bool)) else str(value)
