"""The custom resource definitions: names, columns of `kubectl get`, subresources, schemas.

As plain data for API servers, and as a template of the Helm chart. A template, because Helm never
upgrades what lies in a chart's `crds/` folder; kept on uninstall, because with a definition go all
resources of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tradewind.api.model import API_VERSION
from tradewind.api.resources import KINDS, plural
from tradewind.api.status import STATUSES
from tradewind.schema.crd_schema import structural_schema
from tradewind.schema.structural import LIST_KEYS, LIST_TYPE, RULES, Schema, refuse_unsound_root

GROUP, VERSION = API_VERSION.split("/")
CATEGORY: Final = "tradewind"
_NOTE: Final = "# Written by `python -m tradewind.schema write`; do not edit.\n"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`. Those of priority 1 are shown by `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def manifest(self) -> dict[str, Any]:
        """As in a definition's `additionalPrinterColumns`."""
        column: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return column | ({"priority": self.priority} if self.priority else {})


@dataclass(frozen=True, slots=True)
class Definition:
    """What a definition has beside its schema."""

    short_name: str
    columns: tuple[Column, ...]
    scalable: bool = False


def _condition(name: str) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{name}")].status')


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")
_DEFINITIONS: Final[Mapping[str, Definition]] = {
    "ServingCluster": Definition(
        "scl",
        (
            _condition("Ready"),
            Column("Endpoint", ".status.endpoint"),
            Column("Gateways", ".status.gatewayReady", "integer"),
            Column("Models", ".status.models", "integer"),
            Column("Wanted Gateways", ".status.gatewayReplicas", "integer", 1),
            Column("Ray Cluster", ".status.rayCluster", priority=1),
            _AGE,
        ),
    ),
    "ModelDeployment": Definition(
        "md",
        (
            Column("State", ".status.state"),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Wanted", ".status.wantedReplicas", "integer"),
            Column("Context", ".status.contextLength", "integer"),
            Column("Pool", ".status.pool"),
            Column("Message", ".status.lastError", priority=1),
            _AGE,
        ),
        scalable=True,
    ),
    "ModelRoute": Definition(
        "mr",
        (
            Column("Model", ".spec.model"),
            Column("Split", ".status.split"),
            _condition("Ready"),
            _AGE,
        ),
    ),
    "Tenant": Definition(
        "tn",
        (_condition("Accepted"), Column("Keys", ".status.keys", "integer"), _AGE),
    ),
}


def kubectl_line(kind: str) -> str:
    """One sentence on how `kubectl get` shows a kind."""
    definition = _DEFINITIONS[kind]
    shown = ", ".join(column.name for column in definition.columns if not column.priority)
    wide = ", ".join(column.name for column in definition.columns if column.priority)
    line = f"`kubectl get {definition.short_name}` shows {shown}"
    line += f"; with `-o wide` {wide} too." if wide else "."
    if definition.scalable:
        line += f" `kubectl scale {definition.short_name}/<name> --replicas=<n>` sets `spec.replicas`."
    return line


def resource_schema(kind: str) -> Schema:
    """The structural schema of a whole resource: spec and status; metadata is Kubernetes' own.

    Raises:
        SchemaError: a model has something that Kubernetes would refuse.
    """
    model = KINDS[kind]
    whole = structural_schema(model)
    name = whole["properties"]["metadata"]["properties"]["name"]
    schema = {
        "description": whole["description"],
        "type": "object",
        "required": [field for field in whole["required"] if field == "spec"],
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 64},
            "kind": {"type": "string", "maxLength": 64},
            "metadata": {"type": "object", "properties": {"name": _without_description(name)}},
            "spec": whole["properties"]["spec"],
            "status": _status_schema(kind),
        },
    }
    if not schema["required"]:
        del schema["required"]
    if RULES in whole:
        schema[RULES] = whole[RULES]
    refuse_unsound_root(schema, kind)
    return schema


def crd(kind: str) -> dict[str, Any]:
    """The definition of one kind, as an API server takes it.

    Raises:
        KeyError: there is no such kind.
        SchemaError: a model has something that Kubernetes would refuse.
    """
    definition, name = _DEFINITIONS[kind], plural(kind)
    subresources: dict[str, Any] = {"status": {}}
    if definition.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{name}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/part-of": "tradewind"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": name,
                "singular": kind.lower(),
                "shortNames": [definition.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [column.manifest() for column in definition.columns],
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": resource_schema(kind)},
                }
            ],
        },
    }


def crd_template(kind: str) -> str:
    """The same as a template of the chart. Whatever looks like a template in it stays as it is written."""
    text = yaml.dump(crd(kind), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    escaped = text.replace("{{", '{{ "{{" }}')
    return f"{_NOTE}{{{{- if .Values.crds.install }}}}\n{escaped}{{{{- end }}}}\n"


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs twice twice: Kubernetes' tools show no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _status_schema(kind: str) -> Schema:
    """Without defaults: what the operator has not said is not there."""
    schema = _without_defaults(structural_schema(STATUSES[kind]))
    schema["properties"]["conditions"] |= {LIST_TYPE: "map", LIST_KEYS: ["type"]}
    if kind == "ModelRoute":
        schema["properties"]["variants"] |= {LIST_TYPE: "map", LIST_KEYS: ["name"]}
    return schema


def _without_defaults(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(field) for name, field in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _without_defaults(kept["items"])
    return kept


def _without_description(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}
