"""The chart as real Helm renders it, for tests and goldens.

KubeRay's chart is not in the repository; a stand-in with one ConfigMap takes its place in a copy of ours.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "tradewind"
HERE = Path(__file__).resolve().parent
CASES = ("default", "minimal", "all")
RELEASE, NAMESPACE = "tradewind", "tw"
Manifest = dict[str, Any]


def values_of(case: str) -> dict[str, Any]:
    """The values of one case."""
    loaded: dict[str, Any] = yaml.safe_load((HERE / "values" / f"{case}.yaml").read_text(encoding="utf-8"))
    return loaded


def render(
    values: dict[str, Any] | None = None, name: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART
) -> dict[str, str]:
    """Rendered text by template, without those that are empty. Values are checked against the schema.

    Raises:
        HelmError: as Helm does.
    """
    with Chart.load(chart) as loaded:
        loaded.validate_schema(values or {})
        texts = loaded.render(values or {}, name=name, namespace=namespace)
    return {path.split("/", 1)[1]: text for path, text in texts.items() if text.strip()}


def manifests(
    values: dict[str, Any] | None = None, name: str = RELEASE, namespace: str = NAMESPACE, chart: Path = CHART
) -> list[Manifest]:
    """Every object that a release makes."""
    texts = render(values, name, namespace, chart)
    return [
        document
        for path, text in texts.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def copy_with_kuberay(destination: Path) -> Path:
    """A copy of the chart that Helm installs: with a stand-in for KubeRay."""
    chart = destination / "tradewind"
    shutil.copytree(CHART, chart)
    stand_in = chart / "charts" / "kuberay-operator"
    (stand_in / "templates").mkdir(parents=True)
    version = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))["dependencies"][0]["version"]
    metadata = {"apiVersion": "v2", "name": "kuberay-operator", "version": version}
    (stand_in / "Chart.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kuberay-stand-in"}}
    (stand_in / "templates" / "configmap.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return chart


def golden(case: str) -> str:
    """The golden text of one case: what is rendered, without definitions and dashboards, which are files."""
    kept = {
        path: text
        for path, text in sorted(render(values_of(case)).items())
        if "/crds/" not in path and not path.endswith("dashboards.yaml")
    }
    return "".join(f"# {path}\n{text.strip()}\n\n" for path, text in kept.items())


def golden_of(case: str) -> Path:
    return HERE / f"{case}.golden"


def rewrite() -> None:
    """Write the golden texts of all cases."""
    for case in CASES:
        golden_of(case).write_text(golden(case), encoding="utf-8")
