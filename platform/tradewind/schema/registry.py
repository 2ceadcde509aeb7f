"""Which files are generated, and by what. Everything that documents code is written from it.

Paths are relative to the project's root. To add a file, add a line to `GENERATED`; a generator takes
no argument and returns the whole text.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tradewind.api.resources import KINDS, plural
from tradewind.schema.crds import crd_template
from tradewind.schema.json_schemas import json_schema_text
from tradewind.schema.pages import arguments_page, errors_page, resources_page
from tradewind.schema.values import values_page, values_schema_text
from tradewind.schema.vllm_arguments import vllm_table
from tradewind.telemetry.reference import metrics_reference


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated file. Where the module `needs` is missing, the committed file stays as it is."""

    write: Callable[[], str]
    needs: str | None = None

    @property
    def possible(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def _above(name: str) -> str:
    """What the function `package.module:function` of a layer above this one, or of the operator, returns.

    By name, because importing it would turn the layers around: the command line prints schemas, and the
    operator is built on all of this.
    """
    made = pkgutil.resolve_name(name)()
    return made if isinstance(made, str) else json.dumps(made, indent=2, ensure_ascii=False) + "\n"


GENERATED: Final[Mapping[str, Generated]] = {
    # First: the page of engine arguments is written from this table.
    "platform/tradewind/compiler/vllm_arguments.json": Generated(vllm_table, needs="vllm"),
    "docs/reference/resources.md": Generated(resources_page),
    "docs/reference/values.md": Generated(values_page),
    "deploy/helm/tradewind/values.schema.json": Generated(values_schema_text),
    "docs/reference/errors.md": Generated(errors_page),
    "docs/reference/engine-arguments.md": Generated(arguments_page),
    "docs/reference/metrics.md": Generated(metrics_reference),
    "docs/reference/operator-metrics.md": Generated(
        partial(_above, "tradewind_operator.reference:operator_metrics_reference")
    ),
    "docs/reference/cli.md": Generated(partial(_above, "tradewind.cli.reference:cli_reference")),
    "docs/reference/openapi.json": Generated(partial(_above, "tradewind.gateway.openapi:openapi_document")),
    **{
        f"docs/reference/schema/{kind.lower()}.json": Generated(partial(json_schema_text, kind))
        for kind in KINDS
    },
    **{
        f"deploy/helm/tradewind/templates/crds/{plural(kind)}.yaml": Generated(partial(crd_template, kind))
        for kind in KINDS
    },
}


def write_all(root: Path, generated: Mapping[str, Generated] = GENERATED) -> list[str]:
    """Write every file that can be generated here; the paths whose content changed."""
    changed = []
    for name, entry in generated.items():
        if not entry.possible:
            continue
        path, text = root / name, entry.write()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


def check_all(root: Path, generated: Mapping[str, Generated] = GENERATED) -> list[str]:
    """For every file that is missing or old, its path and the first lines that differ."""
    wrong = []
    for name, entry in generated.items():
        if not entry.possible:
            continue
        path = root / name
        if not path.exists():
            wrong.append(f"{name}: missing")
            continue
        old, new = path.read_text(encoding="utf-8"), entry.write()
        if old != new:
            difference = difflib.unified_diff(
                old.splitlines(), new.splitlines(), "committed", "generated", "", "", 0
            )
            shown = [line[:200] for line in difference][2:14]
            wrong.append("\n  ".join([f"{name}: not what the code says", *shown]))
    return wrong
