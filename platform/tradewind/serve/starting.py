"""Starts Ray on a machine that may be too busy for the time that Ray gives its own processes.

Most of those times can be set (`PATIENCE`). Two cannot: fifteen seconds for the agents beside a raylet to
say where they listen, and thirty for the raylet to be known. Who misses them is started again, and the files
that Python had to read from a slow disk are in memory by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

TRIES: Final = 5
PATIENCE: Final[Mapping[str, str]] = {
    # Ray looks meanwhile whether the process lives, save for the first of these.
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "900",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "900",
    "RAY_agent_register_timeout_ms": "900000",
    "RAY_worker_register_timeout_seconds": "900",
}
"""Seconds (of one, milliseconds) that Ray waits for its own processes. A variable that is set comes first."""
_WRONG: Final = (TypeError, ValueError, ImportError)
"""What Ray raises for what it was given, which time does not mend."""


class StartFailed(Exception):
    """Ray could not be started; the message says why, as Ray told the last time."""


def start_patiently(
    start: Callable[[], str], clear: Callable[[], object], tell: Callable[[str], object], tries: int = TRIES
) -> str:
    """What `start` returns, which is tried again where it may have been too slow.

    Args:
        clear: takes away what a start that failed has left.
        tell: is given a line for people before each further try.

    Raises:
        StartFailed: the last try failed too, or no other would do better.
    """
    for number in range(1, tries + 1):
        try:
            return start()
        except Exception as error:
            clear()
            if number == tries or isinstance(error, _WRONG):
                raise StartFailed(_first_line(error)) from error
            tell(f"Ray did not start in its own time ({_first_line(error)}): try {number + 1} of {tries}")
    raise AssertionError("there is at least one try")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
