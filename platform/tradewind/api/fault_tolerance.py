"""Where Ray's state is kept, so that losing the head loses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from tradewind.api.model import ApiModel, Fault
from tradewind.api.secrets import SecretKeyRef
from tradewind.api.values import ADDRESS_PATTERN, Between, Quantity, SecretName


class GcsStorage(ApiModel):
    """The volume of the head, one for each Ray cluster. It goes with the Ray cluster."""

    size: Annotated[Quantity, Between("1Gi", "1Ti")] = Quantity(2**30)
    """Room on it; Ray's state is some 30 MB."""
    storage_class_name: SecretName | None = None
    """StorageClass. Absent: the default one."""


class GcsRedis(ApiModel):
    """A Redis of yours."""

    address: Annotated[str, Field(pattern=ADDRESS_PATTERN, max_length=268)]
    """`<host>:<port>`, `redis://<host>:<port>` or, with TLS, `rediss://<host>:<port>`."""
    username: SecretKeyRef | None = None
    """User name."""
    password: SecretKeyRef | None = None
    """Password."""

    @property
    def port(self) -> int:
        """TCP port of the address."""
        return redis_port(self.address)

    def faults(self) -> Iterable[Fault]:
        if self.username is not None and self.password is None:
            yield Fault(("password",), "missing; a username needs one")


class GcsFaultTolerance(ApiModel):
    """Keeps Ray's state outside the head pod, so that losing the head costs no request."""

    backend: Literal["auto", "rocksdb", "redis", "none"] = "auto"
    """`rocksdb` writes to a volume of the head, `redis` to a Redis of yours, `none` nowhere: then a lost head
    is an outage of minutes. `auto`: `rocksdb` where a StorageClass is named or one is the default, else
    `none`; a running Ray cluster keeps what it has."""
    storage: GcsStorage = Field(default_factory=GcsStorage)
    """The volume of `rocksdb`."""
    redis: GcsRedis | None = None
    """With backend `redis` only."""

    def faults(self) -> Iterable[Fault]:
        if self.backend == "redis" and self.redis is None:
            yield Fault(("redis",), "missing; backend redis needs one")
        if self.backend != "redis" and self.redis is not None:
            yield Fault(("redis",), f"found with backend {self.backend!r}; allowed with backend redis only")


def redis_port(address: str) -> int:
    """TCP port of `<host>:<port>`, whatever scheme is before it."""
    return int(address.rpartition(":")[2])
