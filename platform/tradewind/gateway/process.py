"""A whole gateway, wired up: listener, core, client of the engines, prober, telemetry. Knows nothing of Ray.

What starts and stops it, tells it its configuration and where engines are, is left to whoever makes it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tradewind.gateway.app import Gateway
from tradewind.gateway.auth import SecretReader
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.front.listener import Listener
from tradewind.gateway.intake import Intake
from tradewind.gateway.membership import Address, Membership
from tradewind.gateway.prober import stats_fetch
from tradewind.gateway.rotation import Rotation
from tradewind.gateway.upstream import Upstream
from tradewind.telemetry.prometheus import ScrapeServer, start_scrape
from tradewind.telemetry.setup import gateway_collector, gateway_telemetry

_LAST_CALL_S: Final = 1.0
"""For the request of whoever connected just before the listener stopped."""
_LAST_WORDS_S: Final = 1.0
"""For callers to take the last bytes of what was cut."""


class GatewayProcess:
    """Made inside the running event loop, to which everything belongs."""

    def __init__(
        self,
        *,
        instance: str,
        engine_token: str,
        read_secret: SecretReader,
        hash_key: bytes | None,
        reachable: Callable[[str], str],
        front: FrontLimits | None = None,
    ) -> None:
        """It listens after `listen`.

        Args:
            instance: its name in traces and metrics.
            engine_token: shown to engines.
            read_secret: gives tenants' keys.
            hash_key: under which the configuration's key hashes were made.
            reachable: the address at which a replica's host is reached.

        Raises:
            ValueError: the environment asks for telemetry by a protocol that does not exist here.
        """
        upstream = Upstream()
        self._telemetry = gateway_telemetry(instance)
        self.metrics = self._telemetry.metrics
        self.gateway = Gateway(
            telemetry=self._telemetry,
            upstream=upstream,
            engine_token=engine_token,
            read_secret=read_secret,
            hash_key=hash_key,
        )
        self._rotation = Rotation(self.gateway, self.metrics, stats_fetch(upstream, engine_token))
        members = Membership(self._rotation.updating, reachable)
        self.found: Callable[[Mapping[str, Sequence[Address]]], None] = members.found
        """To be told discovery's whole current picture, by application."""
        self._intake = Intake(self.gateway, self.metrics, members.configured)
        self._listener = Listener(self.gateway.handle, self.gateway.refuse, front)
        self._collector = gateway_collector(self._telemetry, instance)
        self._scrape: ScrapeServer | None = None

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take callers from a bound socket. Raises OSError."""
        await self._listener.start(sock, tls)

    async def offer(self, user_config: Mapping[str, Any]) -> None:
        """Take over a configuration, as Intake does. Raises ConfigRefused while nothing is in force."""
        await self._intake.offer(user_config)

    def start_scrape(self, host: str, port: int) -> None:
        """Show metrics to Prometheus: a second time there instead. Raises OSError where the port is taken."""
        before, self._scrape = self._scrape, start_scrape(port, [self._collector], host)
        if before is not None:  # which waits for a thread
            asyncio.get_running_loop().run_in_executor(None, before.stop)

    async def leave(self, reachable_s: float, timeout_s: float) -> None:
        """Let callers go to others, and end.

        From now on the gateway says that it is not ready. For `reachable_s` it takes connections and requests
        all the same, because whoever sends them hears of it late; each answer closes its connection. Then it
        listens no more. Answers under way have `timeout_s` to end; what is cut then ends with an error event.
        """
        self.gateway.leave()
        self._listener.leave()
        await asyncio.sleep(reachable_s)
        await self._listener.stop(min(_LAST_CALL_S, timeout_s))
        await self.gateway.shutdown(timeout_s)
        await self._listener.drain(_LAST_WORDS_S)

    async def close(self) -> None:
        """End everything now, in order, also while `leave` waits. What is cut ends with an error event."""
        await self._listener.stop(0)
        await self.gateway.shutdown(0)
        await self._listener.drain(_LAST_WORDS_S)
        await self._rotation.stop()
        # Both wait for threads.
        if self._scrape is not None:
            await asyncio.to_thread(self._scrape.stop)
            self._scrape = None
        await asyncio.to_thread(self._telemetry.shutdown)
