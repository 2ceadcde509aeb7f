"""The engine of one replica: what Serve's deployment holds, starts, asks and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from opentelemetry.trace import TracerProvider

from tradewind.api.wire import AdapterSettings, EngineLive, EngineSettings, SourceSettings
from tradewind.engine import vllm_adapter
from tradewind.engine.adapters import Adapters
from tradewind.engine.app import ASGIApp, EngineGuard
from tradewind.engine.errors import EngineError, EngineStartError, EngineUnhealthyError
from tradewind.engine.family import family_of
from tradewind.engine.liveness import ProcessWatch, Trouble
from tradewind.engine.lora import rank_of
from tradewind.engine.output import OutputTee, root_cause, says_little, tidy
from tradewind.engine.progress import StallProbe
from tradewind.engine.sources.report import Progress, ProgressFile, both, progress_file, silent
from tradewind.engine.sources.resolve import prefetch, prefetch_adapter
from tradewind.engine.stats import EngineStats, LoadMeter
from tradewind.engine.usage import UsageLog
from tradewind.engine.warmup import warm_up
from tradewind.home import cache_dir as cache_home
from tradewind.home import home_dir
from tradewind.telemetry.lines import LineFormat
from tradewind.telemetry.logs import adopt_logger

_LOG = logging.getLogger(__name__)


class Engine(Protocol):
    """What the serving layer needs of an engine."""

    async def start(self, settings: EngineSettings, adapters: Sequence[AdapterSettings] = ()) -> None:
        """Have the weights, start, warm up, load the adapters that can be had.

        EngineStartError carries the cause, ready to be shown. An adapter that fails is none; `stats` tells.
        """

    def set_adapters(self, adapters: Sequence[AdapterSettings]) -> None:
        """Make these the LoRA adapters, all of them, while it serves; returns at once. Only after `start`."""

    def set_bound(self, requests: int) -> None:
        """Take that many requests at a time, of all gateways together. At any time, also before `start`."""

    @property
    def asgi(self) -> ASGIApp:
        """The guarded application; only after `start`."""

    def stats(self) -> EngineStats:
        """Load and facts; cheap, never blocks."""

    async def check_health(self) -> None:
        """Raise EngineUnhealthyError with the reason when the replica should be replaced."""

    async def stop(self) -> None:
        """End the engine's processes; may be called at any time and twice."""


class VLLMEngine:
    """vLLM in this process (its scheduler and model in processes of their own).

    One per process: vLLM reads its settings from the environment and the output of the whole process is
    watched for the cause of a failure. `tracer_provider` None turns tracing off. `lines` makes log lines of
    that output.
    """

    def __init__(
        self,
        *,
        token: str,
        tracer_provider: TracerProvider | None = None,
        cache_dir: Path | None = None,
        home: Path | None = None,
        progress: Progress = silent,
        clock: Callable[[], float] = time.monotonic,
        lines: LineFormat | None = None,
    ) -> None:
        self._token = token
        self._provider = tracer_provider
        self._cache_dir = cache_dir or cache_home()
        self._home = home or home_dir()
        self._progress = progress
        self._clock = clock
        self._meter = LoadMeter()
        self._probe = StallProbe(clock)
        self._tee = OutputTee(lines or LineFormat({}))
        self._settings: EngineSettings | None = None
        self._running: vllm_adapter.RunningVLLM | None = None
        self._guard: EngineGuard | None = None
        self._watch: ProcessWatch | None = None
        self._bound = EngineLive().max_ongoing_requests
        self._adapters: Adapters | None = None

    async def start(self, settings: EngineSettings, adapters: Sequence[AdapterSettings] = ()) -> None:
        """See Engine.start. Progress goes to the callback and to `<home>/progress/<name>.json`."""
        published = ProgressFile(progress_file(self._home, settings.name))
        progress = both(self._progress, published)
        self._settings = settings
        self._tee.start()
        try:
            await self._start(settings, adapters, progress)
        except BaseException as error:
            cause = self._cause(error)
            published.failed(cause)
            await self.stop()
            if not isinstance(error, (Exception, SystemExit)):  # cancelled
                raise
            if isinstance(error, EngineStartError) and str(error) == cause:
                raise
            raise EngineStartError(cause) from error
        progress("ready")

    async def _start(
        self, settings: EngineSettings, adapters: Sequence[AdapterSettings], progress: Progress
    ) -> None:
        began = self._clock()
        directory = await asyncio.to_thread(prefetch, settings, progress, self._cache_dir)
        ranks = await self._ranks(adapters)
        fetched = self._clock()
        progress("load")
        vllm_adapter.apply_environment(settings.env, self._cache_dir)
        usage = UsageLog()
        running = await vllm_adapter.launch(settings, directory, ranks, self._meter, usage)
        self._running = running
        self._guard = guard = EngineGuard(
            usage.counting(running.app),
            token=self._token,
            model=settings.name,
            stats=self.stats,
            usage=usage,
            tracer=self._provider.get_tracer("tradewind.engine") if self._provider else None,
            bound=self._bound,
        )
        self._watch = await asyncio.to_thread(ProcessWatch, running.pids, clock=self._clock)
        launched = self._clock()
        if settings.warmup:
            progress("warmup")
            await warm_up(running.app, settings.name, settings.task)
        if running.lora is not None:
            self._adapters = Adapters(
                settings.name,
                running.lora,
                self._fetch_adapter,
                lambda: guard.in_flight.over(settings.drain_timeout_s),
                model=directory,
            )
            self._adapters.want(adapters)
            await self._adapters.settled()
        if self._provider is not None:
            running.trace_requests(self._provider)
        # From here on its messages may quote requests; ours leave out what an exception says.
        adopt_logger("vllm")
        vllm_adapter.freeze_heap()
        timings = {
            "weights": round(fetched - began, 2),
            **running.timings,
            "warm-up": round(self._clock() - launched, 2),
        }
        parts = ", ".join(f"{name} {seconds:g} s" for name, seconds in timings.items())
        _LOG.info("engine %s is ready after %.1f s: %s", settings.name, self._clock() - began, parts)

    async def _ranks(self, adapters: Sequence[AdapterSettings]) -> list[int]:
        """Of those adapters that can be had; `Adapters` tells what is wrong with the others."""
        ranks = []
        for adapter in adapters:
            with contextlib.suppress(EngineError):
                ranks.append(rank_of(await self._fetch_adapter(adapter.source)))
        return ranks

    async def _fetch_adapter(self, source: SourceSettings) -> Path:
        return await asyncio.to_thread(prefetch_adapter, source, cache_dir=self._cache_dir)

    def set_adapters(self, adapters: Sequence[AdapterSettings]) -> None:
        settings, _ = self._started()
        if self._adapters is not None:
            self._adapters.want(adapters)
        elif adapters:
            raise EngineError(f"the engine of {settings.name} was started without room for adapters")

    def set_bound(self, requests: int) -> None:
        self._bound = requests
        if self._guard is not None:
            self._guard.bound = requests

    @property
    def asgi(self) -> ASGIApp:
        if self._guard is None:
            raise EngineError("the engine has not been started")
        return self._guard

    def stats(self) -> EngineStats:
        settings, running = self._started()
        load = self._meter.read()
        return EngineStats(
            model=settings.name,
            family=family_of(running.model_type) if settings.family == "other" else settings.family,
            task=settings.task.value,
            context_length=running.context_length,
            running=load.running,
            waiting=load.waiting,
            kv_cache_use=round(load.kv_cache_use, 4),
            tokens_generated=load.tokens_generated,
            healthy=self._problem(settings, running) is None,
            adapters=self._reports(),
            version=running.version,
        )

    def _reports(self) -> dict[str, dict[str, str]]:
        reports = self._adapters.reports() if self._adapters is not None else {}
        return {name: {"state": at.state.value, "message": at.message} for name, at in reports.items()}

    async def check_health(self) -> None:
        settings, running = self._started()
        problem = self._problem(settings, running)
        if problem is not None and problem.lost(self._clock(), settings.stall_timeout_s):
            raise EngineUnhealthyError(problem.text)

    def _problem(self, settings: EngineSettings, running: vllm_adapter.RunningVLLM) -> Trouble | None:
        """Why no request should come here now. Whether it is a reason to end the replica is `lost`'s."""
        if running.dead():
            said = root_cause(self._tee.text(), engine_only=True)
            return Trouble(f"the engine has died: {said}" if said else "the engine has died", 0.0, final=True)
        if self._watch is not None and self._watch.trouble is not None:
            return self._watch.trouble
        stalled = self._probe.stalled_s(running.unfinished(), self._meter.read().steps)
        if stalled >= settings.stall_timeout_s:
            text = f"the engine has requests but made no progress for {stalled:.0f} s"
            return Trouble(text, self._clock() - stalled, final=False)
        return None

    async def stop(self) -> None:
        running, self._running = self._running, None
        adapters, self._adapters = self._adapters, None
        watch, self._watch = self._watch, None
        self._guard = None
        try:
            if watch is not None:
                await asyncio.to_thread(watch.stop)
            if adapters is not None:
                await adapters.stop()
            if running is not None:
                await running.shutdown()
        finally:
            self._tee.stop()

    def _started(self) -> tuple[EngineSettings, vllm_adapter.RunningVLLM]:
        if self._running is None or self._settings is None:
            raise EngineUnhealthyError("the engine is not running")
        return self._settings, self._running

    def _cause(self, error: BaseException) -> str:
        """What to tell people: the error's own words, or what the engine's processes printed."""
        own = str(error)
        if isinstance(error, SystemExit) or says_little(own):
            self._tee.settle()
            said = root_cause(f"{self._tee.text()}\n{own}")
            return said or tidy(own, type(error).__name__)
        return own if isinstance(error, EngineStartError) else tidy(own, type(error).__name__)
