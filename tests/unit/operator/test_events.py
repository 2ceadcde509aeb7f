"""Events: said once, counted when said again, and never a reason to fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.fake_clock import FakeClock
from tradewind_operator.errors import Forbidden
from tradewind_operator.events import Events
from tradewind_operator.kinds import EVENT

ABOUT: dict[str, Any] = {
    "apiVersion": "tradewind.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {"name": "acme", "namespace": "ns", "uid": "u1", "resourceVersion": "5"},
}


class Teller:
    def __init__(self) -> None:
        self.api, self.clock = FakeApi(), FakeClock()
        self._names = iter(f"e{number}" for number in range(100))
        self.events = Events(
            self.api, "me", clock=self.clock, now=self.clock.now, random_name=lambda: next(self._names)
        )

    async def say(self, note: str = "It is wrong.", reason: str = "Invalid") -> None:
        await self.events.emit(ABOUT, "Warning", reason, note, action="Reconcile", trace="abc123")

    def written(self) -> list[dict[str, Any]]:
        return [item for (plural, _, _), item in self.api.objects.items() if plural == EVENT.plural]


async def test_an_event_names_the_object_and_the_trace() -> None:
    teller = Teller()
    await teller.say()
    (event,) = teller.written()
    assert event["note"] == "It is wrong. (trace abc123)"
    assert event["metadata"]["annotations"] == {"tradewind.dev/trace": "abc123"}
    assert event["regarding"]["uid"] == "u1"
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "Invalid", "Reconcile")
    assert event["eventTime"].endswith("Z")


async def test_the_same_again_is_counted_and_after_ten_minutes_said_anew() -> None:
    teller = Teller()
    for _ in range(3):
        await teller.say()
    (event,) = teller.written()
    assert event["series"]["count"] == 3
    teller.clock.time += 601
    await teller.say()
    assert len(teller.written()) == 2


async def test_something_else_is_said_but_not_without_end() -> None:
    teller = Teller()
    for number in range(50):
        await teller.say(note=f"Wrong number {number}.")
    assert len(teller.written()) == 10


async def test_an_event_that_is_gone_is_written_again() -> None:
    teller = Teller()
    await teller.say()
    teller.api.objects.clear()
    await teller.say()
    assert len(teller.written()) == 1


async def test_a_secret_is_cut_out_and_a_long_note_cut_off() -> None:
    teller = Teller()
    await teller.say(note="token: hf_abcdefghijklmnopqrst " + "x" * 5_000)
    (event,) = teller.written()
    assert "hf_abc" not in event["note"]
    assert len(event["note"]) < 1_024


async def test_without_permission_it_is_logged_and_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller()
    teller.api.failing["create", "events"] = Forbidden("create Event", 403)
    await teller.say()
    assert "an Event was not written" in caplog.text
