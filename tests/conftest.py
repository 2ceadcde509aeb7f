"""What holds for every test run: programs that tests start can be interrupted, however pytest was started.

And no example fails for being slow on a busy machine.
"""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("tradewind", deadline=None)
settings.load_profile("tradewind")


def _nothing(number: int, frame: object) -> None:
    """Take a signal and go on, as a process that ignores it."""


def pytest_configure() -> None:
    """Go on ignoring what we were told to ignore, without handing that on to the programs we start.

    `nohup` ignores SIGHUP and a shell ignores SIGINT for what it runs in the background. A new program
    inherits what is ignored, but not what is handled.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)
