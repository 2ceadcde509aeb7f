"""How far down each resource has gone: as it is written, as it was accepted last, or out."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from tradewind_operator.policy.namespace import Entry, Form
from tradewind_operator.policy.verdict import Finding, Key, Verdict, verdict


class Level(IntEnum):
    """From the best to the worst."""

    WRITTEN = 0
    ACCEPTED = 1
    OUT = 2


class Ladder:
    """Levels, findings and choices of all resources in one decision. Nothing ever goes up."""

    def __init__(self) -> None:
        self._levels: dict[Key, Level] = {}
        self._findings: dict[Key, list[Finding]] = {}
        self._chosen: dict[Key, Form] = {}

    def enter(self, entries: Iterable[Entry]) -> None:
        """Put resources on their first level: those that cannot be read begin with what was accepted."""
        for entry in entries:
            self._levels[entry.key] = Level.WRITTEN if entry.current is not None else Level.ACCEPTED
            self._findings[entry.key] = list(entry.findings)

    def as_written(self, entry: Entry) -> bool:
        """Whether it is still judged as it is written."""
        return self._levels[entry.key] is Level.WRITTEN

    def form(self, entry: Entry) -> Form | None:
        """The form to try next; None when there is none left."""
        if self.as_written(entry) and entry.current is not None:
            return entry.current
        return entry.accepted if self._levels[entry.key] <= Level.ACCEPTED else None

    def choose(self, entry: Entry, form: Form) -> None:
        """Take a form, for as long as nothing is found wrong with it."""
        self._chosen[entry.key] = form

    def refuse(self, entry: Entry, findings: Iterable[Finding]) -> None:
        """One level down. Only what is wrong with a resource as it is written is told."""
        if self.as_written(entry):
            self._findings[entry.key] += findings
        self._levels[entry.key] = Level(min(self._levels[entry.key] + 1, Level.OUT))
        self._chosen.pop(entry.key, None)

    def tell(self, entry: Entry, findings: Iterable[Finding], form: Form | None) -> None:
        """What was decided elsewhere about a resource."""
        self._findings.setdefault(entry.key, []).extend(findings)
        if form is None:
            self._chosen.pop(entry.key, None)
        else:
            self._chosen[entry.key] = form

    def chosen(self, key: Key) -> Form:
        """The form in force. Raises KeyError where there is none."""
        return self._chosen[key]

    def is_chosen(self, entry: Entry) -> bool:
        """Whether a form of it is in force."""
        return entry.key in self._chosen

    def verdict(self, entry: Entry) -> Verdict:
        """What is said about it."""
        form = self._chosen.get(entry.key)
        generation = form.generation if form is not None else None
        return verdict(self._findings[entry.key], generation, entry.unread)
