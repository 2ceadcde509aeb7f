"""Load as told by schedulers and as counted at the front."""

from __future__ import annotations

from tradewind.engine.stats import Load, LoadMeter


def test_before_the_first_step_everything_is_zero() -> None:
    assert LoadMeter().read() == Load(0, 0, 0.0, 0, 0)


def test_ranks_add_up_and_the_fullest_cache_counts() -> None:
    meter = LoadMeter()
    meter.step(0, running=3, waiting=1, kv_cache_use=0.2)
    meter.step(1, running=2, waiting=0, kv_cache_use=0.7)
    meter.generated(5)
    meter.generated(4)
    assert meter.read() == Load(5, 1, 0.7, 9, 2)


def test_a_later_step_of_a_rank_replaces_the_earlier() -> None:
    meter = LoadMeter()
    meter.step(0, running=3, waiting=1, kv_cache_use=0.2)
    meter.step(0, running=1, waiting=0, kv_cache_use=0.1)
    assert meter.read() == Load(1, 0, 0.1, 0, 2)


def test_after_an_abort_the_front_knows_better_than_the_last_step() -> None:
    meter = LoadMeter(unfinished=lambda: 0)
    meter.step(0, running=1, waiting=0, kv_cache_use=0.1)
    load = meter.read()
    assert (load.running, load.waiting) == (0, 0)


def test_a_request_that_no_step_has_seen_yet_is_waiting() -> None:
    meter = LoadMeter(unfinished=lambda: 4)
    meter.step(0, running=3, waiting=0, kv_cache_use=0.1)
    load = meter.read()
    assert (load.running, load.waiting) == (3, 1)


def test_cache_use_stays_within_its_bounds() -> None:
    meter = LoadMeter()
    meter.step(0, running=0, waiting=0, kv_cache_use=1.0000001)
    assert meter.read().kv_cache_use == 1.0
