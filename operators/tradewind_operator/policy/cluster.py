"""Which spec of a ServingCluster is in force, and whether it may be deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tradewind.api.cluster import ServingCluster
from tradewind.api.deployment import ModelDeployment
from tradewind.compiler.compile import compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.world import CLUSTER
from tradewind_operator.policy.decision import Deletion
from tradewind_operator.policy.images import AllowedImages, images_of
from tradewind_operator.policy.namespace import Entry, Form, Namespace
from tradewind_operator.policy.secrets import SecretValues, secret_findings
from tradewind_operator.policy.verdict import Finding, Reason

DELETE_MODELS: Final = "tradewind.dev/delete-models"
"""Annotation: `"true"` lets a ServingCluster be deleted together with what it serves."""


def choose_cluster(
    entry: Entry, namespace: Namespace, secrets: SecretValues, allowed: AllowedImages
) -> tuple[Form | None, list[Finding]]:
    """The form in force, and what is wrong with the ServingCluster as it is written."""
    findings = list(entry.findings)
    if entry.current is not None:
        findings += _of_form(entry.current, allowed)
        findings += secret_findings(entry.current.resource, secrets, namespace.name)
        findings += _pools_in_use(entry, namespace)
        if not findings:
            return entry.current, []
    if entry.accepted is not None and not list(_of_form(entry.accepted, allowed)):
        return entry.accepted, findings
    return None, findings


def deletion_of(entry: Entry, namespace: Namespace) -> tuple[Deletion, tuple[str, ...]]:
    """What becomes of its deletion, and the models that stand in the way."""
    if not entry.deleting:
        return Deletion.NONE, ()
    models = tuple(name for name, home in namespace.deployment_homes.items() if home == entry.name)
    annotations = entry.document["metadata"].get("annotations") or {}
    if models and annotations.get(DELETE_MODELS) != "true":
        return Deletion.REFUSED, models
    return Deletion.ALLOWED, ()


def _of_form(form: Form, allowed: AllowedImages) -> Iterable[Finding]:
    cluster, located = form.resource, form.located()
    assert isinstance(cluster, ServingCluster)
    for path, image in images_of(cluster.spec):
        if not allowed.allows(image):
            message = f"found {image!r}, which the operator does not allow; allowed: {allowed}"
            yield Finding.of(located.at(path, message), Reason.IMAGE_NOT_ALLOWED)
    try:
        compile_resources([located], platform=CLUSTER)
    except CompileError as error:
        yield from map(Finding.of, error.diagnostics)


def _pools_in_use(entry: Entry, namespace: Namespace) -> Iterable[Finding]:
    """Pools that this change would take from under models that ask for them by name."""
    if entry.accepted is None or entry.current is None:
        return
    old, new = entry.accepted.resource, entry.current.resource
    assert isinstance(old, ServingCluster)
    assert isinstance(new, ServingCluster)
    removed = set(old.spec.pools) - set(new.spec.pools)
    for pool in sorted(removed):
        users = [
            name
            for name, home in namespace.deployment_homes.items()
            if home == entry.name and _asks_for(namespace.deployments[name], pool)
        ]
        if users:
            some = ", ".join(users[:10]) + (", ..." if len(users) > 10 else "")
            message = f"pool {pool!r} is gone, but ModelDeployments ask for it ({some})"
            diagnostic = entry.current.located().at(("spec", "pools"), message, "move them first")
            yield Finding.of(diagnostic, Reason.POOL_IN_USE)


def _asks_for(entry: Entry, pool: str) -> bool:
    form = next(iter(entry.forms()), None)
    return (
        not entry.deleting
        and form is not None
        and isinstance(form.resource, ModelDeployment)
        and form.resource.spec.resources.pool == pool
    )
