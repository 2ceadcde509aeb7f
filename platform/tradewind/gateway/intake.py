"""Takes over what a gateway is sent. A gateway that runs keeps what it has, whatever that is.

Knows nothing of Ray: Serve's hook hands on to `Intake.offer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tradewind.api.reading import MOST_WHY, Kind, LeftOut, Unreadable, reading
from tradewind.api.steps import Steps, Superseded, in_slices
from tradewind.api.wire import GatewayConfig
from tradewind.gateway.app import Gateway
from tradewind.gateway.problems import ConfigRefused
from tradewind.gateway.readiness import Refusal
from tradewind.gateway.state import Prepared
from tradewind.telemetry.metrics import GatewayMetrics

_log = logging.getLogger(__name__)

_MOST_REVISION: Final = 64
_MOST_LOGGED: Final = 20

KINDS: Final[tuple[Kind, ...]] = ("deployment", "route", "tenant")

InForce = Callable[[GatewayConfig], Steps[None]]
"""What else follows a configuration that has just come into force, in steps."""


class Intake:
    """Belongs to the gateway's event loop.

    Args:
        in_force: run after each change. What it raises is logged: the configuration stays in force.
    """

    def __init__(self, gateway: Gateway, metrics: GatewayMetrics, in_force: InForce) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._in_force = in_force
        self._turn = asyncio.Lock()
        self._offered = 0

    async def offer(self, data: object) -> None:
        """Take over `data`, which should be a GatewayConfig's, whole, in slices of the loop's time.

        Of several that come fast the last one ends in force; the call for one that was overtaken returns when
        it is given up. What cannot be used changes nothing, and is told in log, readiness and metrics.

        Raises:
            ConfigRefused: nothing is in force yet, and this cannot be.
        """
        self._offered += 1
        number = self._offered
        async with self._turn:
            try:
                prepared = await in_slices(self._preparing(data), wanted=lambda: number == self._offered)
            except Superseded:
                _log.info("configuration %s was overtaken by a newer one", _revision_of(data))
            except Exception as error:
                self._refuse(data, error)
            else:
                await in_slices(self._adopting(prepared))

    def _preparing(self, data: object) -> Steps[Prepared]:
        read = yield from reading(data, self._gateway.config)
        return (yield from self._gateway.preparing(read.config, read.left_out))

    def _adopting(self, prepared: Prepared) -> Steps[None]:
        config = prepared.state.config
        counts = Counter(entry.kind for entry in prepared.left_out)
        self._metrics.set_configuration(config.revision, {kind: counts[kind] for kind in KINDS})
        try:
            yield from self._gateway.adopting(prepared)
            yield from self._in_force(config)
        except Exception as error:
            _log.error("what follows configuration %s failed", config.revision, exc_info=error)
        _log.info("configuration %s is in force", config.revision)
        _tell(prepared.left_out)

    def _refuse(self, data: object, error: Exception) -> None:
        """Note it where people look. Raises ConfigRefused while nothing is in force."""
        known = isinstance(error, ConfigRefused | Unreadable)
        # Of an error that nobody thought of no text is shown: it may quote what was sent.
        why = str(error)[:MOST_WHY] if known else f"{type(error).__name__} while it was read"
        config = self._gateway.config
        if config is None:
            raise ConfigRefused(why) from (None if known else error)
        refused = Refusal(_revision_of(data), why)
        self._gateway.standing = replace(self._gateway.standing, refused=refused)
        self._metrics.set_refused()
        _log.error(
            "configuration %s was refused, %s stays in force: %s",
            refused.revision or "without a revision",
            config.revision,
            why,
            exc_info=None if known else error,
        )


def _revision_of(data: object) -> str:
    """As far as it says; empty where it does not."""
    try:
        revision: Any = data["revision"] if isinstance(data, Mapping) else None
    except Exception:
        return ""
    return revision[:_MOST_REVISION] if isinstance(revision, str) else ""


def _tell(left_out: tuple[LeftOut, ...]) -> None:
    for entry in left_out[:_MOST_LOGGED]:
        _log.error(
            "%s %s cannot be read and %s: %s",
            entry.kind,
            entry.name,
            "goes on as it was" if entry.kept else "is left out",
            entry.why,
        )
    if (more := len(left_out) - _MOST_LOGGED) > 0:
        _log.error("%d more entries cannot be read", more)
