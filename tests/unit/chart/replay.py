"""Rules about conditions, evaluated as Prometheus does, on what the operator exports minute by minute.

Only rules of one form are read; another one is refused rather than taken for something that it is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.measures import CONDITION
from tradewind_operator.metrics import Conditions
from tradewind_operator.policy.verdict import Key

Labels = Mapping[str, str]
Statuses = Mapping[Key, Mapping[str, Any]]
_SELECTOR: Final = rf"{CONDITION.name}\{{(?P<matchers>[^}}]*)\}}"
_RULE: Final = re.compile(
    rf"max by \((?P<by>[a-z, ]+)\) \((?:max_over_time\({_SELECTOR}\[(?P<over>\d+)m\]\)"
    rf"|{_SELECTOR.replace('matchers', 'now')})\) > 0"
)
_MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_MINUTES: Final = {"m": 1, "h": 60}


def samples(statuses: Statuses, namespace: str = "team") -> list[Labels]:
    """The labels of what is exported for these statuses; each has the value 1."""
    conditions = Conditions()
    for key, status in statuses.items():
        conditions.told(namespace, "default", key, status)
    return [sample.labels for metric in conditions.collect() for sample in metric.samples]


@dataclass(frozen=True)
class Rule:
    """One alert about conditions."""

    name: str
    by: tuple[str, ...]
    matchers: tuple[tuple[str, str, str], ...]
    over: int
    """Minutes that it looks back; 0: at what is there now."""
    lasting: int
    """Minutes of its `for`."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Rule:
        """Raises ValueError where it is of another form."""
        found = _RULE.fullmatch(manifest["expr"].strip())
        if found is None:
            raise ValueError(f"{manifest['alert']} is no rule that can be replayed: {manifest['expr']}")
        matchers = found["matchers"] or found["now"]
        read = tuple(_MATCHER.findall(matchers))
        if ", ".join(f'{label}{how}"{value}"' for label, how, value in read) != matchers:
            raise ValueError(f"{manifest['alert']} has a selector that cannot be read: {matchers}")
        count, unit = re.fullmatch(r"(\d+)([mh])", manifest["for"]).groups()  # type: ignore[union-attr]
        return cls(
            manifest["alert"],
            tuple(found["by"].split(", ")),
            read,
            int(found["over"] or 0),
            int(count) * _MINUTES[unit],
        )

    def fires(self, minutes: Sequence[Sequence[Labels]]) -> bool:
        """Whether it does so within these minutes: one set of labels stays for all of `for`."""
        since: dict[tuple[str, ...], int] = {}
        for now in range(len(minutes)):
            seen = {
                tuple(labels[label] for label in self.by)
                for minute in minutes[max(0, now - self.over) : now + 1]
                for labels in minute
                if all(_matches(labels[label], how, value) for label, how, value in self.matchers)
            }
            since = {each: since.get(each, now) for each in seen}
            if any(now - began >= self.lasting for began in since.values()):
                return True
        return False


def _matches(label: str, how: str, value: str) -> bool:
    same = re.fullmatch(value, label) is not None if "~" in how else label == value
    return same is (how[0] == "=")
