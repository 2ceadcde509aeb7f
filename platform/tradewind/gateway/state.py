"""One configuration made ready to decide by. Immutable: a request keeps the one it began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tradewind.api.wire import GatewayConfig, RequestLimits
from tradewind.gateway.auth import ANONYMOUS, KeyIndex, SecretReader
from tradewind.gateway.cors import Cors
from tradewind.gateway.prepare import tenant_salt
from tradewind.gateway.problems import ConfigRefused
from tradewind.routing.table import InvalidTableError, RouteTable


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
    def build(
        cls, config: GatewayConfig, read_secret: SecretReader, salt_key: bytes, hash_key: bytes | None
    ) -> State:
        """Raises ConfigRefused when anything in `config` is missing or contradicts itself."""
        try:
            table = RouteTable.build(config)
        except InvalidTableError as error:
            raise ConfigRefused(str(error)) from error
        names = [entry.name for entry in config.tenants]
        if len(set(names)) != len(names):
            raise ConfigRefused("two tenants have the same name")
        if ANONYMOUS in names:
            raise ConfigRefused(f"a tenant must not be called {ANONYMOUS}")
        return cls(
            config=config,
            table=table,
            keys=KeyIndex.build(config, read_secret, hash_key),
            limits=config.limits,
            salts={name: tenant_salt(salt_key, name) for name in (*names, ANONYMOUS)},
            cors=Cors(config.cors_origins) if config.cors_origins else None,
        )

    def known_names(self) -> tuple[dict[str, set[str]], set[str], set[str]]:
        """Routes with their variants, deployments and tenants: the label values there are."""
        routes = {name: {v.name for v in route.variants} for name, route in self.table.routes.items()}
        return routes, set(self.table.deployments), {*(t.name for t in self.config.tenants), ANONYMOUS}
