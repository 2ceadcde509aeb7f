"""A running engine's adapters: what comes, what is replaced, what fails and what goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from tradewind.api.wire import AdapterSettings, SourceSettings
from tradewind.engine.adapters import LINGER_S, RETRY_S, Adapters, Loaded, Report, State
from tradewind.engine.errors import SourceError

READY = Report(State.READY)


class FakeHost:
    """Notes what happens to it. `refuses` holds directories whose weights it does not take."""

    max_rank = 16

    def __init__(self) -> None:
        self.served: dict[str, Loaded] = {}
        self.loaded: list[Loaded] = []
        self.unloaded: list[Loaded] = []
        self.refuses: dict[Path, str] = {}

    async def load(self, adapter: Loaded) -> None:
        await asyncio.sleep(0)
        if adapter.directory in self.refuses:
            raise ValueError(self.refuses[adapter.directory])
        self.loaded.append(adapter)

    def serve(self, adapter: Loaded) -> None:
        assert adapter in self.loaded
        self.served[adapter.served] = adapter

    def refuse(self, served: str) -> None:
        del self.served[served]

    async def unload(self, adapter: Loaded) -> None:
        assert adapter not in self.served.values()
        self.unloaded.append(adapter)


class Scene:
    """Adapters on a fake engine. Sources are directories below `root`; time and requests wait to be told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = FakeHost()
        self.there: set[str] = set()
        self.held: set[str] = set()
        """Sources that do not arrive yet."""
        self.arrived = asyncio.Event()
        self.sleeping: list[tuple[float, asyncio.Event]] = []
        self.requests_end = asyncio.Event()
        self.adapters = Adapters(
            "llama", self.host, self._fetch, self.requests_end.wait, model=root, sleep=self._sleep
        )

    def source(self, name: str, rank: int = 8) -> SourceSettings:
        self.there.add(name)
        (self.root / name).mkdir(exist_ok=True)
        (self.root / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
        return SourceSettings(uri=f"file://{self.root / name}")

    def want(self, **sources: SourceSettings) -> None:
        self.adapters.want(AdapterSettings(name=name, source=source) for name, source in sources.items())

    async def _fetch(self, source: SourceSettings) -> Path:
        path = Path(source.uri.removeprefix("file://"))
        while path.name in self.held:
            await self.arrived.wait()
        if path.name not in self.there:
            raise SourceError(f"{source.uri}: no such directory")
        return path

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.sleeping.append((seconds, woken))
        await woken.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1_000):
            if condition():
                return
            await asyncio.sleep(0.001)  # some of the work is in threads
        raise AssertionError("it did not come to that")

    async def wake(self, seconds: float) -> None:
        """Let the last one that sleeps for so long wake up."""
        await self.until(lambda: self.sleeping and self.sleeping[-1][0] == seconds)
        self.sleeping[-1][1].set()

    async def ready(self, name: str) -> None:
        await self.until(lambda: self.adapters.reports().get(name) == READY)

    def answers(self, name: str) -> str:
        """Source of the version that answers."""
        return self.host.served[f"llama:{name}"].directory.name


async def test_each_comes_by_itself(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.held = {"slow"}
    slow, quick = scene.source("slow"), scene.source("quick")
    scene.want(slow=slow, quick=quick)
    assert scene.adapters.reports()["slow"].state is State.LOADING
    await scene.ready("quick")
    report = scene.adapters.reports()["slow"]
    assert (report.state, report.message) == (State.LOADING, f"fetching {slow.uri}")
    scene.held = set()
    scene.arrived.set()
    await scene.adapters.settled()
    await scene.ready("slow")
    assert len({adapter.number for adapter in scene.host.loaded}) == 2
    await scene.adapters.stop()


async def test_the_same_list_again_changes_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    tone = scene.source("tone")
    for _ in range(3):
        scene.want(tone=tone)
        await scene.ready("tone")
    assert len(scene.host.loaded) == 1
    await scene.adapters.stop()


async def test_a_new_version_answers_and_the_old_one_stays_until_its_requests_end(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.want(tone=scene.source("v1"))
    await scene.ready("tone")
    scene.held = {"v2"}
    scene.want(tone=scene.source("v2"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (scene.answers("tone"), scene.adapters.reports()["tone"]) == ("v1", READY)
    scene.held = set()
    scene.arrived.set()
    await scene.until(lambda: scene.answers("tone") == "v2")
    first, second = scene.host.loaded
    assert first.label != second.label
    assert (first.served, second.served) == ("llama:tone", "llama:tone")
    assert scene.host.unloaded == []
    scene.requests_end.set()
    await scene.until(lambda: scene.host.unloaded == [first])
    await scene.adapters.stop()


async def test_one_that_leaves_answers_for_a_while_and_goes_when_its_requests_have_ended(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    scene.want(tone=scene.source("tone"))
    await scene.ready("tone")
    scene.want()
    await scene.until(lambda: scene.sleeping)
    assert scene.answers("tone") == "tone"
    await scene.wake(LINGER_S)
    await scene.until(lambda: scene.host.served == {})
    assert scene.adapters.reports() == {}
    assert scene.host.unloaded == []
    scene.requests_end.set()
    await scene.until(lambda: scene.host.unloaded == scene.host.loaded)
    await scene.adapters.stop()


async def test_one_that_comes_back_in_time_has_never_left(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    tone = scene.source("tone")
    scene.want(tone=tone)
    await scene.ready("tone")
    scene.want()
    await scene.until(lambda: scene.sleeping)
    scene.want(tone=tone)
    await scene.ready("tone")
    assert len(scene.host.loaded) == 1
    assert scene.host.unloaded == []
    await scene.adapters.stop()


async def test_one_that_comes_back_later_is_another_version(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.requests_end.set()
    tone = scene.source("tone")
    scene.want(tone=tone)
    await scene.ready("tone")
    scene.want()
    await scene.wake(LINGER_S)
    await scene.until(lambda: scene.adapters.reports() == {})
    scene.want(tone=tone)
    await scene.ready("tone")
    assert len({adapter.label for adapter in scene.host.loaded}) == 2
    await scene.adapters.stop()


async def test_a_source_that_is_not_there_is_asked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.want(tone=SourceSettings(uri=f"file://{tmp_path / 'late'}"), other=scene.source("other"))
    await scene.adapters.settled()
    assert scene.adapters.reports()["tone"].state is State.FAILED
    assert "no such directory" in scene.adapters.reports()["tone"].message
    assert scene.adapters.reports()["other"] == READY
    for seconds in RETRY_S[:2]:
        await scene.wake(seconds)
    await scene.until(lambda: scene.sleeping[-1][0] == RETRY_S[2])
    assert scene.adapters.reports()["tone"].state is State.FAILED
    scene.source("late")
    await scene.wake(RETRY_S[2])
    await scene.ready("tone")
    await scene.adapters.stop()


async def test_what_the_engine_refuses_is_told_taken_out_and_not_tried_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.host.refuses = {tmp_path / "odd": "shape [3, 4] is not [8, 4]\nTraceback"}
    scene.want(odd=scene.source("odd"), large=scene.source("large", rank=64))
    await scene.adapters.settled()
    reports = scene.adapters.reports()
    assert "shape [3, 4]" in reports["odd"].message
    assert "maxLoraRank: 64" in reports["large"].message
    assert {report.state for report in reports.values()} == {State.FAILED}
    await scene.until(lambda: len(scene.host.unloaded) == 1)
    assert (scene.sleeping, scene.host.served) == ([], {})
    scene.want(odd=scene.source("better"))
    await scene.ready("odd")
    await scene.adapters.stop()


async def test_a_new_version_that_fails_leaves_the_old_one_and_says_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    good = scene.source("good")
    scene.want(tone=good)
    await scene.ready("tone")
    scene.want(tone=SourceSettings(uri=f"file://{tmp_path / 'nowhere'}"))
    await scene.until(lambda: "no such directory" in scene.adapters.reports()["tone"].message)
    report = scene.adapters.reports()["tone"]
    assert (report.state, scene.answers("tone")) == (State.READY, "good")
    assert "The version of before answers" in report.message
    scene.want(tone=good)
    await scene.ready("tone")
    assert len(scene.host.loaded) == 1
    await scene.adapters.stop()


async def test_a_wish_that_changes_while_it_is_fetched_is_not_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.held = {"stuck"}
    scene.want(tone=scene.source("stuck"))
    await scene.until(lambda: "fetching" in scene.adapters.reports()["tone"].message)
    scene.want(tone=scene.source("good"))
    await scene.ready("tone")
    assert scene.answers("tone") == "good"
    scene.want()
    await scene.adapters.stop()
