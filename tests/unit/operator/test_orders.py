"""Whatever order the news comes in, twice or not at all: what is reached in the end is the same.

The whole of the operator but its watches and HTTP is here: wakeups, memory, decision, plans and statuses, on
an API server of dicts, with KubeRay and Serve played at the moments that Hypothesis picks.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

from tests.unit.api.builders import Data, resource
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import PlayedRays, PlayedTender
from tradewind_operator.desired.metadata import owned_labels
from tradewind_operator.desired.world import Defaults, Images
from tradewind_operator.events import Events
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import CUSTOM, EVENT, RAY_CLUSTER, SECRET, Resource, resource_of
from tradewind_operator.metrics import Conditions
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.publish import Publisher
from tradewind_operator.reconcile import Reconciler, ReconcileSettings
from tradewind_operator.rhythm import Rhythm
from tradewind_operator.status.conditions import ACCEPTED, TRUE, condition_of
from tradewind_operator.wakeups import ClusterKey, Wakeups

NAMESPACE = "team"
CLUSTERS = ("default", "other")
MOST_ROUNDS = 12
MOST_REPAIRS = 3
"""A resource that is put right may leave another wrong, which is put right then."""
RESYNC_S = 30.0
LOOK_S = 5.0
CPU = {"cpus": 8, "memory": "16Gi", "maxNodes": 4}
BIG = {"cpus": 16, "memory": "64Gi", "maxNodes": 2}
ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


def engine(name: str, **spec: Any) -> Data:
    return resource("ModelDeployment", name, {"source": {"uri": "hf://meta-llama/Llama-3.1-8B"}, **spec})


def split(name: str, *shares: tuple[str, int]) -> Data:
    variants = [{"name": each, "deployment": each, "weight": weight} for each, weight in shares]
    return resource("ModelRoute", name, {"model": name, "variants": variants})


def opener(**spec: Any) -> Data:
    keys = [{"secret": {"name": "acme", "key": "key"}}]
    return resource("Tenant", "acme", {"keys": keys, **spec})


WRITTEN = [
    resource("ServingCluster", "default", {"pools": {"cpu": CPU}}),
    resource("ServingCluster", "default", {"pools": {"cpu": CPU, "large": BIG}}),
    resource("ServingCluster", "default", {"pools": {"cpu": CPU}, "gateway": {"cpus": 2}}),
    resource("ServingCluster", "other", {"pools": {"cpu": CPU}}),
    engine("llama"),
    engine("llama", engine={"args": {"maxModelLen": 4096}}),
    engine("llama", cluster="other"),
    engine("mistral"),
    engine("mistral", replicas=3),
    split("chat", ("llama", 80), ("mistral", 20)),
    split("chat", ("mistral", 1)),
    split("chat", ("llama", 5)),
    opener(),
    opener(models=["chat"]),
]
WRONG = [
    engine("mistral", engine={"args": {"maxModelLenn": 1}}),
    split("chat", ("nobody", 2)),
    resource("Tenant", "acme", {"keys": [{"secret": {"name": "nobody", "key": "key"}}]}),
]
ALONE = {(each["kind"], each["metadata"]["name"]): each for each in reversed(WRITTEN)} | {
    ("ModelRoute", "chat"): split("chat", ("mistral", 3))
}
"""A version of each that is right whatever the others are, if only the model is there."""
PLURALS = {kind.plural for kind in CUSTOM}


@dataclass(frozen=True)
class Write:
    """Somebody applies a resource."""

    manifest: Data = field(hash=False)


@dataclass(frozen=True)
class Delete:
    kind: str
    name: str


@dataclass(frozen=True)
class Hear:
    """The news that are under way arrive: in this order, and for some twice or never."""

    order: tuple[float, ...]
    twice: frozenset[int]
    never: frozenset[int]


@dataclass(frozen=True)
class Work:
    """The operator works on what it was told of; with `kuberay`, KubeRay before it."""

    kuberay: bool


Step = Write | Delete | Hear | Work
POSITIONS = st.frozensets(st.integers(0, 7), max_size=4)
NEWS = st.tuples(*[st.floats(0, 1)] * 8)
HEARD = {
    "lossy": st.builds(Hear, NEWS, POSITIONS, POSITIONS),
    "whole": st.builds(Hear, NEWS, POSITIONS, st.just(frozenset())),
}
GOING = [Delete("ModelDeployment", "mistral"), Delete("ModelRoute", "chat"), Delete("Tenant", "acme")]


def steps(heard: str) -> st.SearchStrategy[list[Step]]:
    change = st.sampled_from([*map(Write, WRITTEN), *map(Write, WRONG), *GOING])
    return st.lists(st.one_of(change, HEARD[heard], st.builds(Work, st.booleans())), min_size=4, max_size=14)


class World:
    """An API server, an operator, and KubeRay with Serve."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.time = 0.0
        """Of KubeRay and Serve."""
        self._clock = 0.0
        """The operator's: it stands still, so that nothing is read anew but for what was heard."""
        self._rays = PlayedRays(lambda: self.time)
        self._news: list[tuple[Resource, str, Data]] = []
        self._asked: set[ClusterKey] = set()
        self._wakeups = Wakeups()
        gatherer = Gatherer(self.api, AllowedImages(()), RESYNC_S, self._know, RESYNC_S)
        defaults = Defaults(Images("head:1", "gateway:1", "cpu:1", "cuda:1"))
        to = ReconcileSettings(
            defaults,
            lambda _, name: f"serve://{name}",
            lambda _, name: f"gateway://{name}",
            Rhythm(resync_s=RESYNC_S),
        )
        publisher = Publisher(self.api, Events(self.api, "operator"), Conditions())
        self._reconciler = Reconciler(
            self.api,
            gatherer,
            PlayedTender(self._rays),
            publisher,
            to,
            self,
            NoOpTracer(),
            clock=lambda: self._clock,
            now=lambda: datetime.fromtimestamp(self.time, UTC),
        )
        self._put_secrets()

    def _put_secrets(self) -> None:
        contents = {f"{name}-auth": ("auth_token", "internal-token", "hash-key") for name in CLUSTERS}
        for name, keys in {**contents, "acme": ("key",)}.items():
            data = {key: base64.b64encode(b"0123456789abcdef").decode() for key in keys}
            labels = owned_labels(name.removesuffix("-auth"))
            metadata = {"namespace": NAMESPACE, "name": name, "labels": labels}
            self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    # What the reconciler is given

    def reconciled(self, seconds: float, error: BaseException | None) -> None: ...

    def _know(self, namespace: str, clusters: Any) -> None:
        self._asked |= set(self._wakeups.know(namespace, clusters))

    # What happens

    async def take(self, step: Step) -> None:
        if isinstance(step, Write):
            self._write(step.manifest)
        elif isinstance(step, Delete):
            await self._delete(step)
        elif isinstance(step, Hear):
            self._hear(step)
        else:
            if step.kuberay:
                self._kuberay()
            await self._work()

    def _write(self, manifest: Data) -> None:
        kind, metadata = resource_of(manifest), {**manifest["metadata"], "namespace": NAMESPACE}
        before = self.api.find(kind, NAMESPACE, metadata["name"])
        if before is not None and before["metadata"].get("deletionTimestamp"):
            return
        old = before["metadata"] if before is not None else {}
        kept = {key: old[key] for key in ("uid", "finalizers") if key in old}
        status = {"status": before["status"]} if before and "status" in before else {}
        made = self.api.put({**copy.deepcopy(manifest), "metadata": metadata | kept, **status})
        self._news.append((kind, MODIFIED if before else ADDED, made))

    async def _delete(self, step: Delete) -> None:
        kind = next(kind for kind in CUSTOM if kind.kind == step.kind)
        before = self.api.find(kind, NAMESPACE, step.name)
        if before is None:
            return
        await self.api.delete(kind, NAMESPACE, step.name)
        after = self.api.find(kind, NAMESPACE, step.name)
        self._news.append((kind, MODIFIED, after) if after else (kind, DELETED, before))

    def _hear(self, step: Hear) -> None:
        pieces = [
            (step.order[place % len(step.order)], place, piece) for place, piece in enumerate(self._news)
        ]
        for _, place, piece in sorted(pieces, key=lambda entry: entry[:2]):
            if place in step.never:
                continue
            self._tell(*piece)
            if place in step.twice:
                self._tell(*piece)
        self._news.clear()

    def _tell(self, kind: Resource, change: str, body: Data) -> None:
        for key in self._wakeups.seen(kind, change, body):
            if kind in CUSTOM:
                self._reconciler.changed(key, kind)
            else:
                self._reconciler.woken(key)
            self._asked.add(key)

    async def _work(self) -> None:
        keys, self._asked = sorted(self._asked), set()
        for key in keys:
            self._reconciler.woken(key)
            again = await self._reconciler(key)
            if again is not None and again < LOOK_S:
                self._asked.add(key)

    def _kuberay(self) -> None:
        """KubeRay and Serve do all that there is to do."""
        self._news += [(RAY_CLUSTER, MODIFIED, each) for each in self._rays.play(self.api, NAMESPACE)]
        self.time += 10

    # The end

    async def settle(self, *, resync: bool) -> None:
        """Let everything happen that is on its way; with `resync`, so much time passes that all is read."""
        for _ in range(MOST_ROUNDS):
            before = self.state()
            self._kuberay()
            self._hear(Hear((0.0,), frozenset(), frozenset()))
            if resync:
                self._clock += 1_000.0
                self._asked |= set(self._wakeups.keys())
            await self._work()
            if self.state() == before and (resync or not self._asked):
                return
        raise AssertionError(f"no end after {MOST_ROUNDS} rounds: {self._asked}")

    def refused(self) -> list[tuple[str, str]]:
        """Kind and name of what is not accepted as it is written."""
        return [
            (found["kind"], name)
            for (plural, _, name), found in sorted(self.api.objects.items())
            if plural in PLURALS and condition_of(found.get("status"), ACCEPTED).get("status") != TRUE
        ]

    def state(self) -> dict[str, Any]:
        """Everything there is, without times, versions and what an object was before."""
        return {
            f"{found['kind']}/{name}": plain(found)
            for (plural, _, name), found in sorted(self.api.objects.items())
            if plural not in (EVENT.plural, SECRET.plural)
        }


VOLATILE = frozenset(
    {"generation", "observedGeneration", "resourceVersion", "uid", "lastTransitionTime", "annotations"}
)


def plain(found: Any) -> Any:
    if isinstance(found, dict):
        kept = {key: plain(value) for key, value in found.items() if key not in VOLATILE}
        if "workerGroupSpecs" in kept:  # in the order in which they were added, which is a matter of history
            kept["workerGroupSpecs"].sort(key=lambda group: group["groupName"])
        return kept
    return [plain(item) for item in found] if isinstance(found, list) else found


def ended_in(world: World) -> list[Data]:
    """The resources that are left, as someone would write them into an empty namespace."""
    return [
        {key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
        for (plural, _, name), found in world.api.objects.items()
        if plural in PLURALS
    ]


async def same_end(taken: list[Step], *, resync: bool) -> None:
    """Take the steps, put right what is wrong in the end, and compare with a world that never saw them.

    What is wrong must be put right: it goes on as it was seen last, which is a matter of history.
    """
    world = World()
    for step in (Write(ALONE["ServingCluster", "default"]), Write(ALONE["ServingCluster", "other"]), *taken):
        await world.take(step)
    await world.settle(resync=resync)
    for _ in range(MOST_REPAIRS):
        for key in world.refused() and [("ModelDeployment", "mistral"), *world.refused()]:
            await world.take(Write(ALONE[key]))
        await world.settle(resync=resync)
    assert world.refused() == []
    fresh = World()
    for manifest in ended_in(world):
        await fresh.take(Write(manifest))
    await fresh.settle(resync=True)
    assert world.state() == fresh.state()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


QUICK = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@QUICK
@given(steps("lossy"))
def test_news_that_are_lost_are_caught_up_with(taken: list[Step]) -> None:
    run(lambda: same_end(taken, resync=True))


@QUICK
@given(steps("whole"))
def test_news_in_any_order_and_twice_come_to_the_same(taken: list[Step]) -> None:
    run(lambda: same_end(taken, resync=False))
