"""kubectl, as a person at a terminal would use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.bed.machines import MachineError, run


@dataclass(frozen=True)
class Kubectl:
    """The program, and the kubeconfig that it uses."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it, with `given` as input; what it printed. Raises MachineError with what it said."""
        return run([str(self.program), f"--kubeconfig={self.kubeconfig}", *arguments], given)

    def apply(self, text: str) -> None:
        """Server-side: KubeRay's definitions are larger than an annotation may be. Raises MachineError."""
        self("apply", "--server-side", "--force-conflicts", "--filename=-", given=text)

    def until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for `true`. Raises MachineError."""
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                raise MachineError(f"not within {timeout_s:.0f} s: {what}")
            time.sleep(0.2)
