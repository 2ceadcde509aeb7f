"""One configuration made ready to decide by. Immutable: a request keeps the one it began with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from tradewind.api.reading import LeftOut
from tradewind.api.steps import Steps
from tradewind.api.wire import GatewayConfig, RequestLimits
from tradewind.gateway.auth import ANONYMOUS, KeyIndex, SecretReader
from tradewind.gateway.cors import Cors
from tradewind.gateway.prepare import tenant_salt
from tradewind.gateway.problems import ConfigRefused
from tradewind.routing.table import InvalidTableError, RouteTable
from tradewind.telemetry.metrics import Labels


@dataclass(frozen=True, slots=True)
class State:
    """What a request is decided by."""

    config: GatewayConfig
    table: RouteTable
    keys: KeyIndex
    limits: RequestLimits
    salts: Mapping[str, msgspec.Raw]
    """Tenant to its `cache_salt`."""
    cors: Cors | None
    """None: no page of another origin may call."""

    @classmethod
    def building(
        cls,
        config: GatewayConfig,
        read_secret: SecretReader,
        salt_key: bytes,
        hash_key: bytes | None,
        withheld: Collection[str] = (),
    ) -> Steps[State]:
        """Raises ConfigRefused when anything in `config` is missing or contradicts itself.

        Args:
            withheld: names that no deployment answers for, as `RouteTable.building` has them.
        """
        try:
            table = yield from RouteTable.building(config, withheld)
        except InvalidTableError as error:
            raise ConfigRefused(str(error)) from error
        names = [entry.name for entry in config.tenants]
        if len(set(names)) != len(names):
            raise ConfigRefused("two tenants have the same name")
        if ANONYMOUS in names:
            raise ConfigRefused(f"a tenant must not be called {ANONYMOUS}")
        keys = yield from KeyIndex.building(config, read_secret, hash_key)
        salts: dict[str, msgspec.Raw] = {}
        for name in (*names, ANONYMOUS):
            salts[name] = tenant_salt(salt_key, name)
            yield
        return cls(
            config=config,
            table=table,
            keys=keys,
            limits=config.limits,
            salts=salts,
            cors=Cors(config.cors_origins) if config.cors_origins else None,
        )

    def labels(self) -> Steps[Labels]:
        """The label values there are."""
        routes: dict[str, frozenset[str]] = {}
        for name, route in self.table.routes.items():
            routes[name] = frozenset(variant.name for variant in route.variants)
            yield
        tenants = frozenset((*(entry.name for entry in self.config.tenants), ANONYMOUS))
        return Labels(routes, frozenset(self.table.deployments), tenants)


class Prepared(NamedTuple):
    """A configuration that only has to be brought into force."""

    state: State
    labels: Labels
    left_out: tuple[LeftOut, ...]
    """Of the configuration, because it could not be read."""
