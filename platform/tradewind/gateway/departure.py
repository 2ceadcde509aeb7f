"""Notices that the caller left, and stops the work for it."""

from __future__ import annotations

import asyncio
import logging

from tradewind.gateway.body import Receive

_log = logging.getLogger(__name__)


class Departure:
    """Cancels the task that serves a request when `receive` tells of a disconnect.

    A server that cancels the task by itself (Ray Serve) needs none of this and is not hindered by it.
    """

    __slots__ = ("_armed", "_receive", "_served", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._served: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._armed = False
        self.gone = False
        """The running task was cancelled by this object."""

    def watch(self) -> None:
        """Begin; to be called by the task that serves the request, after its body was read."""
        self._served = asyncio.current_task()
        self._armed = True
        self._watcher = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Nothing is cancelled from here on: a server may report the end of an answer as a disconnect."""
        self._armed = False
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as error:  # a server that cannot tell any more; it will cancel the task instead
            _log.debug("receiving failed: %s", type(error).__name__)
            return
        if self._armed and self._served is not None:
            self.gone = True
            self._served.cancel()
