"""Who may reach what: blocks of addresses and selectors of pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tradewind.api.model import ApiModel, Fault
from tradewind.api.values import CIDR_PATTERN, PATTERN_MEANING, Labels

Cidr = Annotated[str, Field(pattern=CIDR_PATTERN, max_length=49)]


def cidr_faults(blocks: Iterable[str], at: str) -> Iterable[Fault]:
    """Those of the blocks in the list `at` that are none."""
    for position, block in enumerate(blocks):
        if (fault := _cidr_fault(block)) is not None:
            yield Fault((at, position), fault)


def _cidr_fault(block: str) -> str | None:
    try:
        ipaddress.ip_network(block)
    except ValueError:
        return f"found {block!r}; allowed: {PATTERN_MEANING[CIDR_PATTERN]}"
    return None


class PeerSelector(ApiModel):
    """Who may call the endpoint: pods that fit both selectors, or a block of addresses."""

    namespace_selector: Labels | None = None
    """Labels of their namespace. Absent: the ServingCluster's own."""
    pod_selector: Labels | None = None
    """Labels of the pods. Absent: all."""
    ip_block: Cidr | None = None
    """Addresses instead of pods: of callers outside or, where a load balancer hides them, of the nodes."""

    def faults(self) -> Iterable[Fault]:
        pods = self.namespace_selector is not None or self.pod_selector is not None
        if pods == (self.ip_block is not None):
            found = "ipBlock beside selectors" if pods else "none"
            yield Fault(
                (), f"found {found}; allowed: at least one of namespaceSelector, podSelector, or ipBlock"
            )
        if self.ip_block is not None and (fault := _cidr_fault(self.ip_block)) is not None:
            yield Fault(("ipBlock",), fault)
