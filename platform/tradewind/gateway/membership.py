"""Brings together which deployments a gateway has and where discovery finds their replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tradewind.api.steps import Steps, at_once
from tradewind.api.wire import DeploymentEntry, GatewayConfig
from tradewind.routing.replica import ReplicaAddress


class Address(Protocol):
    """Where one replica listens, as discovery tells it."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def replica(self) -> str:
        """Its name: another replica on the same port has another one."""


Rotate = Callable[[Mapping[DeploymentEntry, Sequence[ReplicaAddress]]], Steps[None]]
"""Takes the replicas of every configured deployment, whole, in steps."""


class Membership:
    """Belongs to the gateway's event loop.

    Args:
        reachable: the address at which a host's replicas are reached.
    """

    def __init__(self, rotate: Rotate, reachable: Callable[[str], str]) -> None:
        self._rotate = rotate
        self._reachable = reachable
        self._config: GatewayConfig | None = None
        self._known: Mapping[str, Sequence[Address]] = {}
        self._joining = False

    def found(self, known: Mapping[str, Sequence[Address]]) -> None:
        """Discovery's whole current picture, by Serve application."""
        self._known = known
        # One that is at it begins anew at its next step: two must not take turns in one directory.
        if self._config is not None and not self._joining:
            at_once(self._join(self._config))

    def configured(self, config: GatewayConfig) -> Steps[None]:
        """A configuration has come into force."""
        self._config = config
        self._joining = True
        try:
            yield from self._join(config)
        finally:
            self._joining = False

    def _join(self, config: GatewayConfig) -> Steps[None]:
        known: Mapping[str, Sequence[Address]] | None = None
        while known is not self._known:
            known = self._known
            for _ in self._rotating(config, known):
                yield
                if known is not self._known:
                    break

    def _rotating(self, config: GatewayConfig, known: Mapping[str, Sequence[Address]]) -> Steps[None]:
        joined: dict[DeploymentEntry, list[ReplicaAddress]] = {}
        for entry in config.deployments:
            joined[entry] = [
                ReplicaAddress(self._reachable(at.host), at.port, at.replica)
                for at in known.get(entry.app, ())
            ]
            yield
        yield from self._rotate(joined)
