"""All resources of one ServingCluster → what is in force, and a verdict on each. Pure.

A resource that is wrong never stops the others. It is judged as it is written; when that is refused, what
was accepted before goes on; when that cannot go on either, it is left out. Whatever is left out may make
others wrong (a route without its deployment), so this is done again until the compiler takes the rest.
Nothing ever goes back up within one decision, so it ends: each resource goes down at most twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from tradewind.api.tenant import Tenant
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.world import CLUSTER
from tradewind_operator.kinds import MODEL_DEPLOYMENT, SERVING_CLUSTER, TENANT
from tradewind_operator.policy.cluster import choose_cluster, deletion_of
from tradewind_operator.policy.decision import Decision, Deletion
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.policy.judges import Bench, Judge, Place
from tradewind_operator.policy.ladder import Ladder
from tradewind_operator.policy.namespace import Entry, Form, Namespace
from tradewind_operator.policy.references import model_names, namespace_models
from tradewind_operator.policy.secrets import SecretValues, hashes
from tradewind_operator.policy.verdict import Finding, Key, Reason


def decide(
    cluster: str,
    namespace: Namespace,
    secrets: SecretValues,
    allowed: AllowedImages,
) -> Decision:
    """Decide about one ServingCluster, which need not exist.

    Args:
        cluster: its name.
        namespace: all its resources.
        secrets: what was read of `wanted_secrets(namespace)`.
        allowed: images that it may ask for.
    """
    return _Deciding(cluster, namespace, secrets).decide(allowed)


class _Deciding:
    """One decision on its way."""

    def __init__(self, cluster: str, namespace: Namespace, secrets: SecretValues) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._secrets = secrets
        self._hashes = hashes(secrets)
        self._ladder = Ladder()
        self._cluster_form: Form | None = None
        self._missing: Finding | None = None
        """Why no deployment can run here."""
        self._known_models = namespace_models(namespace)
        self._elsewhere = namespace.elsewhere(cluster)
        self._open_tenants: Mapping[str, Tenant] = {}
        self._home = {entry.key: entry for entry in namespace.entries() if namespace.home(entry) == cluster}
        self._judged = [
            entry
            for entry in namespace.entries()
            if (entry.key in self._home or entry.kind == TENANT.kind)
            and entry.kind != SERVING_CLUSTER.kind
            and not entry.deleting
        ]
        """Every tenant among them: it opens all clusters, and its home alone speaks about it."""
        self._ladder.enter(self._judged)

    def decide(self, allowed: AllowedImages) -> Decision:
        deletion, holding = self._judge_cluster(allowed)
        compiled, in_force = self._compile()
        home, ladder = self._home, self._ladder
        verdicts = {key: ladder.verdict(entry) for key, entry in home.items() if self._is_judged(entry)}
        guests = [entry for entry in self._judged if entry.key not in home]
        return Decision(
            namespace=self._namespace.name,
            cluster=self._cluster,
            compiled=compiled,
            in_force=in_force,
            verdicts=verdicts,
            entries=home,
            tenants=self._open_tenants if compiled is not None or self._elsewhere else {},
            elsewhere=len(self._elsewhere),
            refused=(
                *(home[key] for key, verdict in verdicts.items() if not verdict.accepted),
                *(entry for entry in guests if not ladder.verdict(entry).accepted),
            ),
            draining=tuple(
                entry.name
                for entry in home.values()
                if entry.kind == MODEL_DEPLOYMENT.kind and entry.deleting
            ),
            deletion=deletion,
            holding=holding,
        )

    def _judge_cluster(self, allowed: AllowedImages) -> tuple[Deletion, tuple[str, ...]]:
        entry = self._namespace.clusters.get(self._cluster)
        if entry is None:
            return Deletion.NONE, ()
        deletion, holding = deletion_of(entry, self._namespace)
        if deletion is Deletion.ALLOWED:
            text = f"spec.cluster: found ServingCluster {self._cluster!r}, which is being deleted"
            self._missing = Finding(Reason.CLUSTER_NOT_FOUND, text)
            return deletion, holding
        form, findings = choose_cluster(entry, self._namespace, self._secrets, allowed)
        self._set_cluster(entry, form, findings)
        return deletion, holding

    def _is_judged(self, entry: Entry) -> bool:
        return not entry.deleting or self._ladder.is_chosen(entry)

    # What can be compiled, and compiling it

    def _compile(self) -> tuple[Compiled | None, dict[Key, Form]]:
        """The compiler's result for what it takes of the resources; None without a cluster."""
        while True:
            in_force = self._resolve()
            if self._cluster_form is None:
                return None, {}
            resources = [form.located() for form in in_force.values()]
            try:
                compiled = compile_resources(resources, platform=CLUSTER, key_hashes=self._hashes)
            except CompileError as error:
                self._blame(error)
            else:
                return compiled, in_force

    def _blame(self, error: CompileError) -> None:
        wrong: dict[str, list[Finding]] = {}
        for diagnostic in error.diagnostics:
            wrong.setdefault(diagnostic.file, []).append(Finding.of(diagnostic))
        for entry in self._judged:
            if (found := wrong.pop(f"{entry.kind}/{entry.name}", None)) is not None:
                self._ladder.refuse(entry, found)
        if wrong:
            # The cluster was compiled alone before, so this is about something that is nobody's.
            findings = [finding for several in wrong.values() for finding in several]
            self._set_cluster(self._namespace.clusters[self._cluster], None, findings)

    def _set_cluster(self, entry: Entry, form: Form | None, findings: list[Finding]) -> None:
        self._cluster_form = form
        self._ladder.tell(entry, findings, form)
        if form is None:
            text = (
                f"spec.cluster: found ServingCluster {self._cluster!r}, which is not accepted; "
                "its own conditions say why"
            )
            self._missing = Finding(Reason.CLUSTER_NOT_ACCEPTED, text)

    def _resolve(self) -> dict[Key, Form]:
        """Everything that may be compiled: each resource in its best form whose references hold."""
        bench = Bench(self._place())
        for judge in bench.judges:
            for entry in judge.in_order([entry for entry in self._judged if entry.kind == judge.kind]):
                self._judge(judge, entry)
        self._open_tenants = bench.open_tenants()
        found: dict[Key, Form] = {}
        if self._cluster_form is not None:
            found[SERVING_CLUSTER.kind, self._cluster] = self._cluster_form
        for key, resource in bench.taken().items():
            found[key] = Form(resource, self._ladder.chosen(key).generation)
        return found

    def _judge(self, judge: Judge, entry: Entry) -> None:
        ladder = self._ladder
        while (form := ladder.form(entry)) is not None:
            findings = judge.judge(entry, form.resource, as_written=ladder.as_written(entry))
            if findings == []:
                ladder.choose(entry, form)
                return
            ladder.refuse(entry, findings or ())

    def _place(self) -> Place:
        return Place(
            self._namespace,
            self._cluster,
            self._secrets,
            self._hashes,
            self._known_models,
            model_names(self._elsewhere),
            self._missing,
        )
