"""Leader election by a Lease (coordination.k8s.io/v1): of several replicas one works, the others wait.

As Kubernetes' own components do it: clocks of two machines are never compared. A candidate notes when
*it* last saw the Lease change, and takes it once that is longer ago than the Lease lasts. A leader that
could not renew for `renew_s`, which is less, stops before anyone may take over. A clean stop empties the
Lease, so that the next replica need not wait.

With the defaults (10, 7, 1.5): a leader that dies is replaced after 10 to 13.3 seconds, one that stops
cleanly after 1.7 at most.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tradewind_operator.errors import ApiError, Conflict, LeaseLost, NotFound
from tradewind_operator.kinds import LEASE, Resource

logger = logging.getLogger(__name__)

_JITTER: Final = 0.1


class Leases(Protocol):
    """What the election needs of the API; one try a call, no retries behind our back."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]: ...

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Which Lease, and its times in seconds: retry_s < renew_s < duration_s."""

    namespace: str
    name: str
    identity: str
    duration_s: float = 10.0
    renew_s: float = 7.0
    retry_s: float = 1.5


class Elector:
    """One candidate: `acquire`, then `hold` beside the work, then `release`."""

    def __init__(
        self,
        leases: Leases,
        terms: LeaseTerms,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._leases = leases
        self._terms = terms
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._seen: object = None
        self._seen_at = clock()
        self._renewed_at = float("-inf")
        self._lease: dict[str, Any] | None = None
        self.leading = False

    async def acquire(self) -> None:
        """Returns when this candidate leads, however long that takes."""
        told = ""
        while True:
            try:
                holder = await self._try()
            except ApiError as error:
                holder = f"unknown: {error}"
            if self.leading:
                logger.info("this replica leads", extra={"identity": self._terms.identity})
                return
            if holder != told:
                told = holder
                logger.info("waiting to lead", extra={"holder": holder})
            await self._pause()

    async def hold(self) -> None:
        """Renews until it cannot.

        Raises:
            LeaseLost: someone else holds the Lease, or it could not be renewed in time.
        """
        while True:
            await self._pause()
            said = await self._renew()
            if not self.leading:
                raise LeaseLost(f"the Lease {self._place()} is held by {said} now")
            if self._clock() - self._renewed_at >= self._terms.renew_s:
                self.leading = False
                raise LeaseLost(
                    f"the Lease {self._place()} was not renewed for {self._terms.renew_s:g} s: {said}"
                )

    async def _renew(self) -> str:
        """One try, not longer than there is time. Returns who holds the Lease, or what went wrong."""
        left = self._renewed_at + self._terms.renew_s - self._clock()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._try()
        except (ApiError, TimeoutError) as error:
            said = str(error) or "no answer"
            logger.warning("the Lease was not renewed: %s", said)
            return said

    async def release(self) -> None:
        """Give the Lease up at once, where it is ours. Errors are logged: it ends by itself."""
        if not self.leading or self._lease is None:
            return
        self.leading = False
        try:
            spec = self._lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
            async with asyncio.timeout(self._terms.retry_s):
                await self._leases.replace(self._lease | {"spec": spec})
        except (ApiError, TimeoutError) as error:
            logger.warning("the Lease was not given up, it ends by itself: %s", error)

    async def _try(self) -> str:
        """Take or renew the Lease where that is right; sets `leading`. Returns who holds it."""
        terms = self._terms
        try:
            lease = await self._leases.get(LEASE, terms.namespace, terms.name)
        except NotFound:
            return await self._write(self._leases.create, {}, {})
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        observed = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if observed != self._seen:
            self._seen, self._seen_at = observed, self._clock()
        mine = holder == terms.identity
        # The holder's own word for how long it lasts; ours where it says nothing.
        lasts = float(spec.get("leaseDurationSeconds") or terms.duration_s)
        if holder and not mine and self._clock() - self._seen_at < lasts:
            self.leading = False
            return holder
        return await self._write(self._leases.replace, lease["metadata"], spec)

    async def _write(
        self,
        write: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        metadata: dict[str, Any],
        before: dict[str, Any],
    ) -> str:
        terms, at, sent = self._terms, self._timestamp(), self._clock()
        mine = before.get("holderIdentity") == terms.identity
        spec = {
            "holderIdentity": terms.identity,
            # Whole seconds, rounded up: others may only ever wait longer than we think.
            "leaseDurationSeconds": max(1, -int(-terms.duration_s // 1)),
            "acquireTime": before.get("acquireTime", at) if mine else at,
            "renewTime": at,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine or not before else 1),
        }
        kept = {key: metadata[key] for key in ("resourceVersion", "uid") if key in metadata}
        try:
            self._lease = await write(
                {
                    "apiVersion": LEASE.api_version,
                    "kind": LEASE.kind,
                    "metadata": {"namespace": terms.namespace, "name": terms.name} | kept,
                    "spec": spec,
                }
            )
        except Conflict:
            # Another candidate was quicker, or our own renewal arrived though its answer did not:
            # the next look tells which.
            return "another replica"
        # Counted from when it was sent: the server has it at some time after that.
        self._renewed_at = sent
        self.leading = True
        return terms.identity

    async def _pause(self) -> None:
        await self._sleep(self._terms.retry_s * (1.0 + _JITTER * self._rng.random()))

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _place(self) -> str:
        return f"{self._terms.namespace}/{self._terms.name}"
