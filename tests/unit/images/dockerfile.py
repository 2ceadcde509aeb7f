"""deploy/images/Dockerfile as stages of instructions; as much of the format as that file uses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "images" / "Dockerfile"


@dataclass(frozen=True)
class Stage:
    """One `FROM` and what follows it. `parent` is None where the stage begins with the base image."""

    name: str
    parent: Stage | None
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    """(KEYWORD, the rest with continued lines joined), in order."""

    @property
    def lineage(self) -> list[tuple[str, str]]:
        """Instructions of this stage and of those it is built on, in the order in which they hold."""
        return [*(self.parent.lineage if self.parent else []), *self.instructions]

    def values(self, keyword: str) -> list[str]:
        """Every argument of `keyword` that holds in the stage."""
        return [rest for word, rest in self.lineage if word == keyword]


def instructions(text: str) -> list[tuple[str, str]]:
    """(KEYWORD, rest) of every instruction; comments are gone, runs of spaces are one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(word, re.sub(r"\s+", " ", rest).strip()) for word, rest in found]


def arguments(text: str) -> dict[str, str]:
    """ARGs before the first stage, with their defaults."""
    found = {}
    for word, rest in instructions(text):
        if word == "FROM":
            break
        name, _, default = rest.partition("=")
        found[name] = default
    return found


def stages(text: str) -> dict[str, Stage]:
    """Stages by name, in the order in which they are written."""
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(text):
        if word == "FROM":
            base, _, name = rest.split()
            stage = found[name] = Stage(name, found.get(base), base)
        elif stage is not None:
            stage.instructions.append((word, rest))
    return found


def ingredients(text: str, target: str) -> list[tuple[str, str]]:
    """Every instruction that has a part in the stage `target`: also of stages that it takes from."""
    known = stages(text)
    wanted, found = [target], dict[str, list[tuple[str, str]]]()
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = known[name].lineage
        taking = (rest for word, rest in found[name] if word in {"COPY", "RUN"})
        wanted += [origin for rest in taking for origin in re.findall(r"[-,]from=([^\s,]+)", rest)]
    return [instruction for each in found.values() for instruction in each]
