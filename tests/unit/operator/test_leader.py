"""Leader election over a Lease, with clocks of its own: one leads, never two, and the next comes in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.fake_clock import FakeClock, settle
from tradewind_operator.errors import LeaseLost, Unreachable
from tradewind_operator.kinds import LEASE
from tradewind_operator.leader import Elector, LeaseTerms


def elector(api: FakeApi, clock: FakeClock, identity: str) -> Elector:
    terms = LeaseTerms("ns", "operator", identity)
    return Elector(api, terms, clock=clock, now=clock.now, sleep=clock.sleep)


def spec(api: FakeApi) -> Mapping[str, Any]:
    lease = api.find(LEASE, "ns", "operator")
    assert lease is not None
    found: Mapping[str, Any] = lease["spec"]
    return found


class Replica:
    """A process: it acquires, then holds."""

    def __init__(self, api: FakeApi, clock: FakeClock, identity: str) -> None:
        self.elector = elector(api, clock, identity)
        self.error: BaseException | None = None
        self.led_at: float | None = None
        self._clock = clock
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.elector.acquire()
        self.led_at = self._clock.time
        try:
            await self.elector.hold()
        except LeaseLost as error:
            self.error = error

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_the_first_leads_and_the_second_waits() -> None:
    api, clock = FakeApi(), FakeClock()
    first, second = Replica(api, clock, "a"), Replica(api, clock, "b")
    await clock.advance(60.0)
    assert first.elector.leading != second.elector.leading
    assert spec(api)["leaseTransitions"] == 0
    assert spec(api)["leaseDurationSeconds"] == 10
    await first.kill()
    await second.kill()


async def test_a_dead_leader_is_replaced_within_15_seconds_and_not_before_its_time() -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await settle()
    second = Replica(api, clock, "b")
    await clock.advance(33.3)
    assert first.elector.leading
    await first.kill()
    died = clock.time
    await clock.advance(15.0)
    assert second.led_at is not None
    assert 10.0 - 1.7 <= second.led_at - died <= 15.0
    assert spec(api)["holderIdentity"] == "b"
    assert spec(api)["leaseTransitions"] == 1
    await second.kill()


async def test_a_clean_stop_hands_over_at_once() -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await settle()
    second = Replica(api, clock, "b")
    await clock.advance(5.0)
    await first.kill()
    await first.elector.release()
    released = clock.time
    await clock.advance(3.0)
    assert second.led_at is not None
    assert second.led_at - released <= 1.8
    await second.kill()


async def test_a_leader_that_cannot_renew_stops_before_anyone_may_take_over() -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await clock.advance(5.0)
    cut_off = clock.time
    api.failing["get", "leases"] = Unreachable("get Lease ns/operator", 0)
    while first.error is None:
        assert clock.time < cut_off + 10.0
        await clock.advance(0.1)
    assert clock.time - cut_off < 9.0
    assert not first.elector.leading
    assert "was not renewed for 7 s" in str(first.error)


async def test_a_leader_whose_lease_someone_took_says_who() -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await clock.advance(5.0)
    lease = api.find(LEASE, "ns", "operator")
    assert lease is not None
    api.put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
    await clock.advance(2.0)
    assert str(first.error) == "the Lease ns/operator is held by thief now"


async def test_a_short_outage_costs_nothing() -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await clock.advance(5.0)
    api.failing["update", "leases"] = Unreachable("update Lease ns/operator", 503)
    await clock.advance(4.0)
    api.failing.clear()
    await clock.advance(30.0)
    assert first.elector.leading
    assert first.error is None
    await first.kill()


async def test_a_wrong_clock_on_another_machine_changes_nothing() -> None:
    """The time in the Lease is for people: only its changes count."""
    api, clock = FakeApi(), FakeClock()
    api.put(
        {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": "ns", "name": "operator"},
            "spec": {"holderIdentity": "x", "leaseDurationSeconds": 10, "renewTime": "1970-01-01T00:00:00Z"},
        }
    )
    second = Replica(api, clock, "b")
    await clock.advance(9.0)
    assert second.led_at is None
    await clock.advance(4.0)
    assert spec(api)["holderIdentity"] == "b"
    await second.kill()


async def test_release_without_the_api_does_not_fail(caplog: pytest.LogCaptureFixture) -> None:
    api, clock = FakeApi(), FakeClock()
    first = Replica(api, clock, "a")
    await clock.advance(5.0)
    await first.kill()
    api.failing["update", "leases"] = Unreachable("update Lease ns/operator", 0)
    await first.elector.release()
    assert not first.elector.leading
    assert "ends by itself" in caplog.text
