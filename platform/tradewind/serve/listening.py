"""Listens to a controller that tells of changes by long polls. Whatever fails, it goes on listening.

Knows nothing of Ray. Ray's own client ends for good when the controller dies, when a poll cannot be sent,
when an answer is none that it knows, or when what it calls raises; and it waits for an answer without end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Final, NamedTuple

logger = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Between two polls when one has failed, or has told nothing at once."""
_CHANGES: Final = 1_000
"""More than a controller can make between two answers: a number further on is another controller's."""


class Update(NamedTuple):
    """What a controller tells of a topic: all there is now, and the number of its last change."""

    number: int
    content: Any


Ask = Callable[[Mapping[Hashable, int]], Awaitable[Mapping[Hashable, Update]]]
"""Asks for what is newer than a number by topic, -1 for anything. Empty: nothing, for as long as a controller
waits; a topic that it does not know yet it leaves out.

Any exception: it could not be asked."""


class _Failed(Exception):
    """A poll brought no answer. The text says why, without any of Ray's own."""


class Listener:
    """Belongs to the event loop that it is started on.

    Args:
        topics: what to ask for; asked before each poll, so that an update may add to it.
        on_update: called with the contents that have changed, by topic. What it raises at is asked for again.
        on_new: called before what another controller than before tells.
        silence_s: a poll without an answer for so long is given up, and another one sent.
    """

    def __init__(
        self,
        ask: Ask,
        topics: Callable[[], Iterable[Hashable]],
        on_update: Callable[[Mapping[Hashable, Any]], None],
        on_new: Callable[[], None],
        *,
        silence_s: float,
        again_s: float = AGAIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._topics = topics
        self._on_update = on_update
        self._on_new = on_new
        self._silence_s = silence_s
        self._again_s = again_s
        self._clock = clock
        self._heard = clock()
        self._numbers: dict[Hashable, int] = {}
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    def age(self) -> float:
        """Seconds since the controller was heard and what it told was taken in. Callable from any thread."""
        return max(0.0, self._clock() - self._heard)

    def start(self) -> None:
        """Begin to listen."""
        self._heard = self._clock()
        self._begin()

    def stop(self) -> None:
        """Listen no more; no callback is called afterwards."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _begin(self) -> None:
        # A context of its own: with that of a call to this replica Ray would cancel the polls with the call.
        self._task = asyncio.get_running_loop().create_task(
            self._listen(), name="replica discovery", context=contextvars.Context()
        )
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing ends it but `stop`. Should something all the same, it begins anew."""
        if task is not self._task:
            return
        self._complain(
            "ended by " + ("cancellation" if task.cancelled() else type(task.exception()).__name__)
        )
        task.get_loop().call_later(self._again_s, self._revive, task)

    def _revive(self, ended: asyncio.Task[None]) -> None:
        if ended is self._task:
            self._begin()

    async def _listen(self) -> None:
        while True:
            asked = self._clock()
            try:
                updates = await self._poll()
            except _Failed as failure:
                self._complain(str(failure))
            else:
                told = self._take(updates)
                # A controller may also answer nothing at once, again and again.
                if told and (updates or self._clock() - asked >= self._again_s):
                    continue
            await asyncio.sleep(self._again_s)

    async def _poll(self) -> Mapping[Hashable, Update]:
        """Raises _Failed."""
        self._numbers = {topic: self._numbers.get(topic, -1) for topic in self._topics()}
        try:
            async with asyncio.timeout(self._silence_s):
                return await self._ask(self._numbers)
        except TimeoutError:
            raise _Failed("it does not answer") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _Failed("the poll was cancelled") from None  # by Ray, and not this task
        except Exception as error:
            raise _Failed(type(error).__name__) from error

    def _take(self, updates: Mapping[Hashable, Update]) -> bool:
        """False: it could not be taken in, which is in the log."""
        if updates:
            try:
                if any(self._is_new(topic, update.number) for topic, update in updates.items()):
                    self._on_new()
                self._on_update({topic: update.content for topic, update in updates.items()})
            except Exception as error:
                self._complain(f"what it told was not taken in: {type(error).__name__}", error)
                return False
            self._numbers.update({topic: update.number for topic, update in updates.items()})
        self._heard = self._clock()
        if self._trouble:
            logger.info("Serve's controller is heard again")
            self._trouble = ""
        return True

    def _complain(self, trouble: str, error: Exception | None = None) -> None:
        """Once for each kind of trouble in a row, which may last for hours."""
        if trouble != self._trouble:
            logger.warning("Serve's controller is not heard: %s", trouble, exc_info=error)
        self._trouble = trouble

    def _is_new(self, topic: Hashable, number: int) -> bool:
        """Controllers count the changes of each topic from a number of chance."""
        known = self._numbers.get(topic, -1)
        return known >= 0 and not 0 < number - known < _CHANGES
