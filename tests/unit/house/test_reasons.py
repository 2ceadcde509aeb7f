"""Every reason of a condition or an Event is in the page that people open when a model does not start."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tradewind_operator.planning.clusters import UpgradeState
from tradewind_operator.policy.verdict import Reason

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "when-a-model-does-not-start.md"
SAYS = {"Said": 1, "EventNote": 3, "emit": 2}
"""Calls that carry a reason, and its position among their arguments."""
PASSED_ON = {"Starting", "PodsNotReady"}
"""Of `status/raycluster.py`, which passes on KubeRay's own reasons else."""


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def constants(tree: ast.Module) -> dict[str, str]:
    """Strings that a module names at its top."""
    return {
        node.target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def said(path: Path) -> Iterator[str]:
    """Reasons that a module writes out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = constants(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or (place := SAYS.get(called(node))) is None:
            continue
        match node.args[place] if len(node.args) > place else None:
            case ast.Constant(value=str(reason)):
                yield reason
            case ast.Name(id=name) if name in named:
                yield named[name]


def reasons() -> set[str]:
    modules = (ROOT / "operators" / "tradewind_operator").rglob("*.py")
    written = {reason for module in modules for reason in said(module)}
    return written | {one.value for one in (*Reason, *UpgradeState)} | PASSED_ON


def on_the_page() -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE.read_text(encoding="utf-8")))


def test_every_reason_is_on_the_page() -> None:
    assert reasons() - on_the_page() == set()


def test_reasons_of_every_kind_are_looked_for() -> None:
    kinds = {"SecretNotFound", "NoReplica", "Configuring", "HeadLost", "MoveFailed", "Held"}
    events = {"ReconcileError", "RayServiceOfEarlierRelease", "CredentialsRecreated", "ReleaseNotApplied"}
    assert kinds | events <= reasons()


def test_no_table_names_a_reason_that_is_gone() -> None:
    """The tables of steps 2, 3, 5 and 6; in step 4 Kubernetes speaks."""
    text = PAGE.read_text(encoding="utf-8")
    cluster = text[text.index("## In a cluster") : text.index("## On one machine")]
    pods = cluster.index("**4. The pods.**")
    ours = cluster[:pods] + cluster[cluster.index("**5. The ServingCluster.**") :]
    first_cells = re.findall(
        r"^\| (`[A-Z].*?|(?:Ready|HeadReady|PodsCurrent|ClusterUpgrade) .*?) \|", ours, re.M
    )
    named = {name for cell in first_cells for name in re.findall(r"`([A-Z][A-Za-z]+)`", cell)}
    states = {"STATE", "Pending", "Running"}
    kuberay = {"HeadPodNotFound", "RayClusterPodsProvisioning"}
    assert named - reasons() - states - kuberay == set()
    assert len(named) > 40
