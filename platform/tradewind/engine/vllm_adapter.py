"""The only importer of vllm: builds its engine and its own ASGI application in this process.

Importing this module costs nothing; vllm is imported inside functions. Names that move between vllm's
versions are all in `_names()`. Written for 0.32.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import logging
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from tradewind.api.wire import EngineSettings
from tradewind.engine import cpu, screen
from tradewind.engine.app import ASGIApp
from tradewind.engine.arguments import Known, command_line
from tradewind.engine.errors import EngineStartError
from tradewind.engine.grammars import Grammars
from tradewind.engine.liveness import Reaper, end_processes
from tradewind.engine.stats import LoadMeter
from tradewind.engine.tool_calls import complete_calls, object_parser
from tradewind.engine.usage import CountedSequence, UsageLog
from tradewind.engine.vllm_grammars import attempt_with
from tradewind.engine.vllm_lora import VLLMLora
from tradewind.telemetry.line_mark import MARK

_LOG = logging.getLogger(__name__)

FORCED_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "0",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "0",
    "VLLM_API_KEY": "",
}
"""What no resource may change: no phoning home, no control endpoints, no answers in logs."""

DEFAULT_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_LOGGING_COLOR": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What a resource's `env` may change. Everything an engine loads is on disk before it starts."""

_PROCESS_TITLE = "VLLM::"
"""What vLLM calls its processes, so that they are told from others."""

_HIDDEN = ("OTEL_", "TRADEWIND_INTERNAL_TOKEN", MARK, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Kept from the engine's child processes: they need no secret, and with an OTLP endpoint in sight they
would open exporters of their own."""


@dataclass(slots=True)
class RunningVLLM:
    """A started engine: its ASGI application, facts, and the few things asked of it while it runs."""

    app: ASGIApp
    context_length: int
    model_type: str
    version: str
    pids: tuple[int, ...]
    """Of the engine's own processes."""
    timings: Mapping[str, float]
    """Seconds of each part of the start."""
    lora: VLLMLora | None
    """None: it takes no adapters."""
    _engine: Any
    _reaper: Reaper

    def unfinished(self) -> int:
        """Requests accepted and not answered yet."""
        return int(self._engine.output_processor.get_num_unfinished_requests())

    def dead(self) -> bool:
        """Whether the engine has told that it cannot go on."""
        return bool(self._engine.errored)

    def trace_requests(self, provider: TracerProvider) -> None:
        """Have vLLM make its `llm_request` spans with `provider`, from now on.

        vLLM switches tracing on by an OTLP address of its own and then opens its own exporter in every
        process. All that its front end asks later is whether there is an address, and it makes spans with
        the global provider: so both are set here, after the engine's processes have their configuration.
        """
        trace.set_tracer_provider(provider)
        if trace.get_tracer_provider() is not provider:
            _LOG.warning("another OpenTelemetry provider is set in this process; llm_request spans go there")
        self._engine.observability_config.otlp_traces_endpoint = "in-process"
        self._engine.output_processor.tracing_enabled = True

    async def shutdown(self) -> None:
        """End the engine's processes, within about 15 s and by force if they do not go."""
        gc.unfreeze()
        if self._engine.output_handler is not None:  # else it reports the end as a failure
            self._engine.output_handler.cancel()
        await asyncio.to_thread(self._engine.shutdown, 10)
        await asyncio.to_thread(end_processes, self.pids, 5.0)
        self._reaper.cancel()


async def launch(
    settings: EngineSettings, directory: Path, ranks: Sequence[int], meter: LoadMeter, usage: UsageLog
) -> RunningVLLM:
    """Start vLLM with the weights of `directory` and report its load to `meter`; after `apply_environment`.

    `ranks` are those of the adapters that are to be loaded once it runs. `usage` is told of every sequence.

    vLLM's imports and checks run in a thread; making the engine blocks this loop, as vLLM has it.
    EngineStartError for arguments that are wrong; otherwise what vLLM raises.
    """
    clock = _Laps()
    names = await asyncio.to_thread(_names)
    clock.lap("imports")
    args, config = await asyncio.to_thread(_configure, names, settings, directory, ranks)
    clock.lap("configuration")
    with _hidden_environment():
        engine = names.AsyncLLM.from_vllm_config(
            config,
            stat_loggers=[_stat_logger(names, meter), *_ray_metrics(settings)],
            disable_log_stats=args.disable_log_stats,
            enable_log_requests=False,
        )
    clock.lap("engine")
    try:
        app, lora = await _application(names, engine, args)
    except BaseException:
        engine.shutdown(timeout=10)
        raise
    meter.unfinished = engine.output_processor.get_num_unfinished_requests
    _tell_usage(engine.output_processor, usage)
    pids = tuple(child.pid for child in multiprocessing.active_children() if child.pid is not None)
    clock.lap("application")
    return RunningVLLM(
        app=app,
        context_length=int(engine.model_config.max_model_len),
        model_type=str(getattr(engine.model_config.hf_config, "model_type", "")),
        version=names.version,
        pids=pids,
        timings=clock.laps,
        lora=lora,
        _engine=engine,
        _reaper=Reaper(pids, _PROCESS_TITLE),
    )


def apply_environment(env: Mapping[str, str], cache_dir: Path) -> None:
    """Set this process's environment for one engine. EngineStartError for a forced variable.

    An engine has its process to itself, so this is not undone. What vLLM learns about model classes (10 s
    the first time) is kept with the weights.
    """
    for name in env:
        if name in FORCED_ENVIRONMENT:
            raise EngineStartError(f"engine environment variable {name} cannot be set")
    for name, value in {**DEFAULT_ENVIRONMENT, "VLLM_CACHE_ROOT": str(cache_dir / "vllm")}.items():
        os.environ.setdefault(name, value)
    os.environ.update(env)
    os.environ.update(FORCED_ENVIRONMENT)


def _names() -> Any:
    """Everything that is used of vllm, under the names of 0.32."""
    try:
        import vllm
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import (
            make_arg_parser,
            propagate_flash_late_interaction,
            validate_parsed_serve_args,
        )
        from vllm.exceptions import GenerationError
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform
        from vllm.sampling_params import SamplingParams
        from vllm.tool_parsers import ToolParserManager
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        from vllm.utils.mistral import is_mistral_tokenizer
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.loggers import StatLoggerBase
        from vllm.v1.structured_output.backend_guidance import GuidanceBackend
        from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
        from vllm.v1.structured_output.request import get_structured_output_key
    except ImportError as error:
        raise EngineStartError(
            f"vLLM cannot be imported ({error}). Install tradewind[engine] or tradewind[engine-cpu]."
        ) from error
    return SimpleNamespace(
        version=str(vllm.__version__),
        AsyncEngineArgs=AsyncEngineArgs,
        AsyncLLM=AsyncLLM,
        FlexibleArgumentParser=FlexibleArgumentParser,
        GenerationError=GenerationError,
        GuidanceBackend=GuidanceBackend,
        LoRARequest=LoRARequest,
        SamplingParams=SamplingParams,
        StatLoggerBase=StatLoggerBase,
        ToolParserManager=ToolParserManager,
        XgrammarBackend=XgrammarBackend,
        build_app=build_app,
        init_app_state=init_app_state,
        is_mistral_tokenizer=is_mistral_tokenizer,
        is_cpu=bool(current_platform.is_cpu()),
        make_arg_parser=make_arg_parser,
        propagate=propagate_flash_late_interaction,
        structured_output_key=get_structured_output_key,
        validate=validate_parsed_serve_args,
    )


def _configure(
    names: Any, settings: EngineSettings, directory: Path, ranks: Sequence[int]
) -> tuple[argparse.Namespace, Any]:
    """vLLM's parsed arguments and its configuration."""
    parser = _parser(names)
    defaults: dict[str, Any] = {}
    if names.is_cpu:
        cores = len(os.sched_getaffinity(0))
        os.environ.update(cpu.environment_defaults(cores, os.environ, settings.args))
        defaults = cpu.argument_defaults(_model_config(directory), os.environ, settings.args)
    argv = command_line(settings, _known(parser), directory, ranks, defaults)
    args = parser.parse_args(argv)
    try:
        names.validate(args)
    except (TypeError, ValueError) as error:
        raise EngineStartError(f"engine arguments: {str(error).removeprefix('Error: ')}") from error
    engine_args = names.AsyncEngineArgs.from_cli_args(args)
    names.propagate(args, engine_args)
    return args, engine_args.create_engine_config()


def _parser(names: Any) -> Any:
    """vLLM's parser, which raises EngineStartError where it would end the process."""

    class Parser(names.FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            text = message.removeprefix("argument ")
            flag, _, rest = text.partition(": ")
            name = flag.split("/")[0].removeprefix("--").replace("-", "_")
            if text.startswith("--") and rest:
                reason = re.sub(r"^invalid [\w.<>]+ value:", "invalid value:", rest)
                raise EngineStartError(f'engine argument "{name}": {reason}')
            raise EngineStartError(f"engine arguments: {message}")

    return names.make_arg_parser(Parser(prog="vllm", add_help=False))


def _known(parser: Any) -> dict[str, Known]:
    known = {}
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        if not flags:
            continue
        off = next((flag for flag in flags if flag.startswith("--no-")), None)
        on = next((flag for flag in flags if flag != off), flags[0])
        known[action.dest] = Known(on, action.nargs == 0, off, action.nargs in ("+", "*"))
    return known


def _model_config(directory: Path) -> dict[str, Any]:
    try:
        content = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _stat_logger(names: Any, meter: LoadMeter) -> Callable[[Any, int], Any]:
    """Factory of the object to which vLLM tells the outcome of every scheduler step."""

    class MeterLogger(names.StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            self._rank = engine_index

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
            **_: Any,
        ) -> None:
            if scheduler_stats is not None:
                meter.step(
                    self._rank,
                    scheduler_stats.num_running_reqs,
                    scheduler_stats.num_waiting_reqs,
                    scheduler_stats.kv_cache_usage,
                )
            if iteration_stats is not None:
                meter.generated(iteration_stats.num_generation_tokens)

        def log_engine_initialized(self) -> None:
            """Nothing to say."""

    return MeterLogger


def _tell_usage(processor: Any, usage: UsageLog) -> None:
    """Tell `usage` of each sequence that vLLM's front end takes: the place that all endpoints go through.

    `RequestStateStats` is what vLLM counts a sequence's tokens in, for its own metrics too. It outlives the
    sequence and holds numbers only, unlike the state around it.
    """
    add = processor.add_request

    def added(request: Any, *args: Any, **kwargs: Any) -> None:
        known = processor.has_request(request.request_id)  # more input for a sequence that is there
        add(request, *args, **kwargs)
        state = processor.request_states.get(request.request_id)
        if known or state is None:
            return
        stats = None if state.detokenizer is None else state.stats
        usage.add(
            CountedSequence(
                prompt_tokens=state.prompt_len if state.request_index == 0 else 0,
                produced=None if stats is None else lambda: int(stats.num_generation_tokens),
                running=functools.partial(processor.has_request, request.request_id),
            )
        )

    processor.add_request = added


def _ray_metrics(settings: EngineSettings) -> list[Any]:
    """vLLM's logger that hands its metrics to Ray. It takes the place of the one behind `/metrics`."""
    if not settings.ray_metrics:
        return []
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return [RayPrometheusStatLogger]


async def _application(names: Any, engine: Any, args: argparse.Namespace) -> tuple[ASGIApp, VLLMLora | None]:
    tasks = await engine.get_supported_tasks()
    await engine.reset_mm_cache()
    app = names.build_app(args, tasks, engine.model_config)
    if parser := _tool_parser(names, args):
        names.ToolParserManager.register_module(args.tool_call_parser, module=object_parser(parser))
    await names.init_app_state(engine, app.state, args, tasks)
    _screen(names, engine, app.state)
    app.state.server = SimpleNamespace()  # vLLM sets should_exit on it when the engine dies
    config = engine.vllm_config.lora_config
    if config is None:
        return app, None
    models = app.state.openai_serving_models
    return app, VLLMLora(engine, models, names.LoRARequest, int(config.max_lora_rank))


def _tool_parser(names: Any, args: argparse.Namespace) -> Any:
    """Class of the deployment's tool parser; None where it has none. vLLM raises for an unknown name."""
    if not (args.enable_auto_tool_choice and args.tool_call_parser):
        return None
    with contextlib.suppress(KeyError):
        return names.ToolParserManager.get_tool_parser(args.tool_call_parser)
    return None


def _screen(names: Any, engine: Any, state: Any) -> None:
    """Have vLLM's endpoints refuse what the caller is to blame for before the engine hears of it."""
    renderer = getattr(state, "online_renderer", None)
    if renderer is None:  # a model that generates nothing
        return
    own_way = renderer.use_harmony or names.is_mistral_tokenizer(renderer.renderer.tokenizer)
    parses_tools = own_way or (renderer.parser is not None and renderer.parser.tool_parser_cls is not None)
    grammars = Grammars(attempt_with(names, engine), lambda params: str(names.structured_output_key(params)))
    screen.install(renderer, grammars, parses_tools=parses_tools)
    if (messages := getattr(state, "anthropic_serving_messages", None)) is not None:
        messages.messages_full_converter = complete_calls(
            messages.messages_full_converter, names.GenerationError
        )


def freeze_heap() -> None:
    """Take everything made by the start out of the garbage collector's rounds: shorter pauses."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _hidden_environment() -> Iterator[None]:
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_HIDDEN)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


class _Laps:
    def __init__(self) -> None:
        self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
