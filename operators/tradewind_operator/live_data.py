"""Sends live data (routes, weights, keys, limits) to every Ray cluster, and remembers what each says.

This comes before anything else is done, and whatever else is the matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from tradewind.rayapi.client import ControlError
from tradewind_operator.api_server import ApiServer
from tradewind_operator.credentials import Credentials
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest
from tradewind_operator.errors import OperatorError
from tradewind_operator.kinds import RAY_CLUSTER
from tradewind_operator.planning.groups import config_format, group_names
from tradewind_operator.planning.objects import annotations_of
from tradewind_operator.publish import safe_text
from tradewind_operator.situation import Situation
from tradewind_operator.status.live import Live
from tradewind_operator.tending import Charge

Address = Callable[[str, str], str]
"""URL, by namespace and RayCluster."""


class ClusterTender(Protocol):
    """Sends what is missing to a Ray cluster, and reads what it says; never fails. See `tending.Tender`."""

    async def tend(
        self, charge: Charge, credentials: Credentials, first: Callable[[], Awaitable[None]]
    ) -> Live: ...


class LiveData:
    """Keeps `lives` and `answered` of a memory.

    Args:
        serve_url: of Ray's dashboard.
        gateway_url: of the gateways.
    """

    def __init__(
        self,
        api: ApiServer,
        tender: ClusterTender,
        serve_url: Address,
        gateway_url: Address,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._tender = tender
        self._serve_url = serve_url
        self._gateway_url = gateway_url
        self._clock = clock

    async def send(self, situation: Situation) -> None:
        """Every Ray cluster gets the live data of now, and says how it is. Never fails."""
        memory, clusters = situation.memory, situation.clusters
        credentials = memory.credentials
        if credentials is None:
            memory.lives = {}
            return
        made = [
            self._tender.tend(
                self._charge(situation, there),
                credentials,
                lambda name=name: self._note_configured(situation, name),  # type: ignore[misc]
            )
            for name, there in clusters.items()
        ]
        memory.lives = dict(zip(clusters, await asyncio.gather(*made), strict=True))
        now, before = self._clock(), memory.answered
        memory.answered = {
            name: now if live.gateway is not None else before.get(name, now)
            for name, live in memory.lives.items()
        }

    def _charge(self, situation: Situation, there: Manifest) -> Charge:
        name, namespace = str(there["metadata"]["name"]), situation.key.namespace
        compiled, wanted = situation.decision.compiled, situation.wanted
        readable = config_format(there) == names.CONFIG_FORMAT
        return Charge(
            name=name,
            serve_url=self._serve_url(namespace, name),
            gateway_url=self._gateway_url(namespace, name),
            groups=tuple(group_names(there)),
            wanted=tuple(group_names(wanted)) if wanted is not None else (),
            up=_groups_up(situation, name),
            compiled=compiled if readable and wanted is not None else None,
            retired=names.RETIRED_ANNOTATION in annotations_of(there),
        )

    async def _note_configured(self, situation: Situation, name: str) -> None:
        """Note on a RayCluster, before Serve is given applications, that it may have some.

        Raises:
            ControlError: that could not be written.
        """
        there = situation.observed_cluster(name)
        if there is None or names.CONFIGURED_ANNOTATION in annotations_of(there):
            return
        mark = {"metadata": {"annotations": {names.CONFIGURED_ANNOTATION: "true"}}}
        try:
            written = await self._api.merge_patch(RAY_CLUSTER, situation.key.namespace, name, mark)
        except OperatorError as error:
            raise ControlError(
                f"it could not be noted that Serve is configured: {safe_text(error)}"
            ) from error
        situation.memory.observed[situation.ref(name)] = written


def _groups_up(situation: Situation, cluster: str) -> frozenset[str]:
    """Worker groups of a RayCluster that have pods for all gateways, in which Ray runs."""
    world = situation.world
    if world is None:
        return frozenset()
    started = Counter(
        pod.group
        for pod in situation.memory.pods or ()
        if pod.ray_cluster == cluster and pod.started and not pod.ending
    )
    return frozenset(group for group, count in started.items() if count >= world.gateways)
