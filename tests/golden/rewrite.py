"""`python -m tests.golden.rewrite`, from the project's root: write what every example compiles to, and what
the operator makes of every set in `operator/in`.

Look at the difference before it is committed: it is what a running platform will be changed to.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.golden.chart import rendering as chart
from tests.golden.operator import rendering
from tradewind.api.cluster import ServingCluster
from tradewind.api.tenant import Tenant
from tradewind.compiler.compile import compile_resources
from tradewind.compiler.documents import read_documents
from tradewind.compiler.world import CLUSTER

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GOLDENS = ROOT / "tests" / "golden" / "examples"


SOME_HASH = "ab" * 32
"""Stands for what the operator finds in a tenant's Secret."""


def rendered(example: Path) -> str:
    """The example's compilation as JSON text."""
    found = read_documents([(f"examples/{example.name}", example.read_text(encoding="utf-8"))])
    if not any(isinstance(item.resource, ServingCluster) and item.resource.spec.pools for item in found):
        return json.dumps(compile_resources(found).dump(), indent=1) + "\n"
    tenants = [item.resource for item in found if isinstance(item.resource, Tenant)]
    secrets = [key.secret for tenant in tenants for key in tenant.spec.keys if key.secret]
    hashes = {(secret.name, secret.key): SOME_HASH for secret in secrets}
    return json.dumps(compile_resources(found, platform=CLUSTER, key_hashes=hashes).dump(), indent=1) + "\n"


def golden_of(example: Path) -> Path:
    return GOLDENS / f"{example.stem}.json"


def main() -> None:
    _write_examples()
    _write_operator()
    chart.rewrite()


def _write_operator() -> None:
    rendering.GOLDENS.mkdir(parents=True, exist_ok=True)
    sets = sorted(rendering.SETS.glob("*.yaml"))
    for stale in set(rendering.GOLDENS.glob("*")) - {rendering.golden_of(source) for source in sets}:
        stale.unlink()
    for source in sets:
        rendering.golden_of(source).write_text(rendering.rendered(source), encoding="utf-8")


def _write_examples() -> None:
    GOLDENS.mkdir(parents=True, exist_ok=True)
    examples = sorted(EXAMPLES.glob("*.yaml"))
    for stale in set(GOLDENS.glob("*.json")) - {golden_of(example) for example in examples}:
        stale.unlink()
    for example in examples:
        golden_of(example).write_text(rendered(example), encoding="utf-8")


if __name__ == "__main__":
    main()
