"""Choice of a replica, and the directory's book-keeping as replicas come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

import pytest

from tradewind.api.wire import DeploymentEntry
from tradewind.routing.replica import (
    SCAN_UP_TO,
    AdapterReport,
    ReplicaAddress,
    ReplicaDirectory,
    ReplicaView,
    choose,
)


def entry(name: str = "small", capacity: int = 4, prefix: str = "/engines/small") -> DeploymentEntry:
    return DeploymentEntry(name=name, app=name, prefix=prefix, family="llama", max_ongoing_requests=capacity)


def addresses(count: int) -> list[ReplicaAddress]:
    return [ReplicaAddress("10.0.0.1", 30000 + n) for n in range(count)]


def views(outstanding: Iterable[int], capacity: int = 100) -> list[ReplicaView]:
    made = []
    for n, count in enumerate(outstanding):
        view = ReplicaView(entry(capacity=capacity), ReplicaAddress("10.0.0.1", 30000 + n))
        view.outstanding = count
        made.append(view)
    return made


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def directory_of(count: int, clock: Clock | None = None) -> ReplicaDirectory:
    directory = ReplicaDirectory(clock or Clock())
    directory.update(entry(), addresses(count))
    return directory


def picked(candidates: list[ReplicaView], now: float = 0.0, exclude: tuple[str, ...] = ()) -> Counter[int]:
    """How often each index is chosen in 600 choices."""
    rng = Random(7)
    seen: Counter[int] = Counter()
    for _ in range(600):
        view = choose(candidates, now=now, rng=rng, exclude=exclude)
        seen[-1 if view is None else candidates.index(view)] += 1
    return seen


def test_nothing_to_choose_from() -> None:
    assert choose([], now=0, rng=Random(1)) is None


def test_the_least_outstanding_wins() -> None:
    assert picked(views([3, 1, 2])) == {1: 600}


def test_ties_are_settled_evenly() -> None:
    seen = picked(views([1, 0, 0, 0]))
    assert set(seen) == {1, 2, 3}
    assert min(seen.values()) > 150


@pytest.mark.parametrize("count", [3, SCAN_UP_TO + 5])
def test_requests_for_an_adapter_go_where_it_is_loaded(count: int) -> None:
    candidates = views([0] * count)
    candidates[0].adapters = {"tone": AdapterReport("loading")}
    candidates[1].adapters = {"tone": AdapterReport("failed"), "other": AdapterReport("ready")}
    candidates[2].adapters = {"tone": AdapterReport("ready")}
    candidates[2].outstanding = 9
    for _ in range(50):
        assert choose(candidates, now=0, rng=Random(), adapter="tone") is candidates[2]
    assert choose(candidates, now=0, rng=Random(), adapter="tone", exclude=(candidates[2].id,)) is None
    assert choose(candidates, now=0, rng=Random(), adapter="unheard-of") is None
    assert choose(candidates, now=0, rng=Random()) is not candidates[2]


def test_an_adapter_is_refused_when_every_replica_that_answers_says_so() -> None:
    directory = directory_of(2)
    first, second = directory.views("small")
    failed, ready = {"tone": AdapterReport("failed")}, {"tone": AdapterReport("ready")}
    assert not directory.refused("small", "tone")  # nobody has spoken
    directory.report(first, running=0, waiting=0, adapters=failed)
    assert not directory.refused("small", "tone")
    directory.report(second, running=0, waiting=0, adapters=failed)
    assert directory.refused("small", "tone")
    assert not directory.refused("small", None)
    assert not directory.any_ready("small", adapter="tone")
    directory.report(second, running=0, waiting=0, adapters=ready)
    assert directory.any_ready("small", adapter="tone")
    assert not directory.any_ready("small", {second.id}, "tone")
    directory.mark_down(second)
    assert directory.refused("small", "tone")
    directory.mark_down(first)
    assert not directory.refused("small", "tone")  # nobody is there: that may change


def test_full_down_unhealthy_and_excluded_replicas_are_out() -> None:
    full, down, unhealthy, tried, good = candidates = views([5, 0, 0, 0, 4], capacity=5)
    down.down = True
    unhealthy.healthy = False
    assert picked(candidates, exclude=(tried.id,)) == {4: 600}
    good.outstanding = 5
    assert picked(candidates, exclude=(tried.id,)) == {-1: 600}
    assert full.ready
    assert not down.ready
    assert not unhealthy.ready


def test_engine_load_beyond_our_own_requests_counts_while_the_report_is_fresh() -> None:
    clock = Clock()
    directory = directory_of(2, clock)
    ours, busy = directory.views("small")
    ours.outstanding, busy.outstanding = 3, 1
    directory.report(ours, running=3, waiting=0)
    directory.report(busy, running=4, waiting=6)  # nine of them other gateways'
    assert (ours.score(clock.now), busy.score(clock.now)) == (3, 10)
    busy.outstanding = 0
    assert busy.score(clock.now) == 9
    assert choose(directory.views("small"), now=clock.now, rng=Random(1)) is ours
    clock.now += 10
    assert busy.score(clock.now) == 0
    assert choose(directory.views("small"), now=clock.now, rng=Random(1)) is busy


def test_a_replica_says_how_much_of_its_bound_is_ours() -> None:
    directory = directory_of(1)
    (view,) = directory.views("small")
    view.outstanding = 1
    directory.report(view, running=0, waiting=0, room=1)
    assert choose([view], now=1000, rng=Random(1)) is None
    directory.report(view, running=0, waiting=0, room=2)
    assert choose([view], now=1000, rng=Random(1)) is view
    directory.report(view, running=0, waiting=0, room=99)
    assert view.capacity == 4, "never more than the configuration says"
    directory.report(view, running=0, waiting=0, room=0)
    directory.update(entry(), addresses(1))
    assert view.capacity == 0, "discovery says nothing about that"
    directory.update(entry(capacity=9), addresses(1))
    assert view.capacity == 9
    directory.report(view, running=0, waiting=0)
    assert view.capacity == 9


def test_one_that_was_full_gets_no_more_until_something_ends_or_it_reports() -> None:
    directory = directory_of(1)
    (view,) = directory.views("small")
    view.outstanding = 3  # two of them are turned away
    for left in (2, 1):
        directory.full(view)
        view.outstanding = left
        assert choose([view], now=0, rng=Random(1)) is None
    assert view.ready
    view.outstanding = 0
    assert choose([view], now=0, rng=Random(1)) is view
    view.outstanding = 1
    directory.full(view)
    view.outstanding = 0
    assert choose([view], now=0, rng=Random(1)) is None
    directory.unheard(view)
    assert choose([view], now=0, rng=Random(1)) is view


def test_unknown_load_counts_as_our_own_outstanding_only() -> None:
    assert views([3])[0].score(now=0.0) == 3


def test_of_equal_replicas_the_one_with_more_free_cache_wins() -> None:
    directory = directory_of(2)
    tight, free = directory.views("small")
    directory.report(tight, running=1, waiting=0, kv_cache_use=0.9)
    directory.report(free, running=1, waiting=0, kv_cache_use=0.2)
    assert choose(directory.views("small"), now=1000, rng=Random(1)) is free


def test_many_replicas_are_sampled_and_the_load_stays_even() -> None:
    candidates = views([0] * 64, capacity=10_000)
    rng = Random(3)
    for _ in range(6400):
        view = choose(candidates, now=0, rng=rng)
        assert view is not None
        view.outstanding += 1
    counts = [view.outstanding for view in candidates]
    # One random draw would spread by +-35; two choices stay within a few of the mean.
    assert max(counts) - min(counts) <= 12


@pytest.mark.parametrize("count", [SCAN_UP_TO, SCAN_UP_TO + 1, 200])
def test_the_one_replica_that_can_is_found_among_any_number(count: int) -> None:
    candidates = views([1] * count, capacity=1)
    candidates[-1].outstanding = 0
    assert choose(candidates, now=0, rng=Random(1)) is candidates[-1]
    assert choose(candidates, now=0, rng=Random(1), exclude={candidates[-1].id}) is None


def test_choice_is_reproducible_from_the_seed() -> None:
    assert picked(views([0] * 40)) == picked(views([0] * 40))


def test_survivors_keep_their_counts_and_follow_the_configuration() -> None:
    directory = directory_of(2)
    first, second = directory.views("small")
    first.outstanding = 2
    directory.mark_down(second)
    directory.update(entry(capacity=9, prefix="/engines/renamed"), addresses(3))
    assert directory.views("small")[:2] == (first, second)
    assert (first.outstanding, first.capacity, first.prefix) == (2, 9, "/engines/renamed")
    assert second.down
    assert directory.views("small")[2].outstanding == 0


def test_a_replica_that_comes_back_starts_fresh() -> None:
    directory = directory_of(1)
    (old,) = directory.views("small")
    old.outstanding = 3
    directory.mark_down(old)
    directory.update(entry(), [])
    assert directory.views("small") == ()
    directory.update(entry(), addresses(1))
    (new,) = directory.views("small")
    assert new is not old
    assert new.id == old.id
    assert new.generation > old.generation
    assert (new.outstanding, new.down) == (0, False)
    directory.mark_down(old)  # a request that still holds the old one
    assert not new.down


def test_another_process_on_the_same_port_starts_fresh() -> None:
    directory = ReplicaDirectory(Clock())
    directory.update(entry(), [ReplicaAddress("10.0.0.1", 30000, "actor-1")])
    (old,) = directory.views("small")
    directory.update(entry(), [ReplicaAddress("10.0.0.1", 30000, "actor-2")])
    (new,) = directory.views("small")
    assert new is not old


def test_down_lasts_until_a_probe_answers_not_until_discovery_repeats_itself() -> None:
    directory = directory_of(1)
    (view,) = directory.views("small")
    directory.mark_down(view)
    directory.update(entry(), addresses(1))
    assert not directory.any_ready("small")
    directory.mark_up(view)
    assert directory.any_ready("small")
    directory.mark_down(view)
    directory.report(view, running=0, waiting=0)
    assert directory.any_ready("small")
    assert not directory.any_ready("small", exclude=(view.id,))
    directory.report(view, running=0, waiting=0, healthy=False)
    assert not directory.any_ready("small")


def test_listeners_hear_of_what_may_let_a_request_in() -> None:
    directory = directory_of(1)
    heard: list[str] = []
    directory.subscribe(heard.append)
    (view,) = directory.views("small")
    directory.mark_down(view)
    assert heard == []
    directory.mark_up(view)
    directory.report(view, running=0, waiting=0)
    directory.update(entry("large"), [])
    directory.retain({"large"})
    assert heard == ["small", "small", "large", "small"]
    assert directory.deployments() == ("large",)
    assert "small" not in directory


def test_an_address_listed_twice_is_one_replica_and_ipv6_gets_brackets() -> None:
    directory = ReplicaDirectory(Clock())
    directory.update(entry(), [ReplicaAddress("::1", 30000), ReplicaAddress("::1", 30000)])
    (view,) = directory.views("small")
    assert (view.id, view.host) == ("[::1]:30000", "::1")
    view.outstanding = 1
    assert repr(view) == "<ReplicaView small [::1]:30000 ready 1/4>"
