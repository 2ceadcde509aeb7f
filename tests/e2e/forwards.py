"""Ways into a cluster whose network this machine is not part of: `kubectl port-forward`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.e2e.bed.kubectl import Kubectl
from tests.e2e.bed.machines import MachineError

_SAYS = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Forwards:
    """Those that are open, one process each."""

    kubectl: Kubectl
    namespace: str
    _open: dict[str, tuple[subprocess.Popen[str], str]] = field(default_factory=dict)

    def url(self, what: str, port: int) -> str:
        """`http://127.0.0.1:…` that leads to `kind/name`; opened when it is not. Raises MachineError."""
        process, url = self._open.get(what, (None, ""))
        if process is None or process.poll() is not None:
            process, url = self._open[what] = self._start(what, port)
        return url

    def _start(self, what: str, port: int) -> tuple[subprocess.Popen[str], str]:
        command = [str(self.kubectl.program), f"--kubeconfig={self.kubectl.kubeconfig}"]
        command += [f"--namespace={self.namespace}", "port-forward", "--address=127.0.0.1", what, f":{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if (found := _SAYS.search(line)) is None:
            process.kill()
            process.wait()
            raise MachineError(f"kubectl port-forward {what} said: {line.strip()}")
        return process, f"http://127.0.0.1:{found[1]}"

    def close(self) -> None:
        """End all."""
        for process, _ in self._open.values():
            process.terminate()
            process.wait()


@contextmanager
def forwarding(kubectl: Kubectl, namespace: str) -> Iterator[Forwards]:
    """Forwards that end with the context."""
    forwards = Forwards(kubectl, namespace)
    try:
        yield forwards
    finally:
        forwards.close()
