"""All resources of one ServingCluster → what is in force, and a verdict on each. Pure.

A resource that is wrong never stops the others. It is judged as it is written; when that is refused, what
was accepted before goes on; when that cannot go on either, it is left out. Whatever is left out may make
others wrong (a route without its deployment), so this is done again until the compiler takes the rest.
Nothing ever goes back up within one decision, so it ends: each resource goes down at most twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tradewind.api.deployment import ModelDeployment
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.diagnostics import CompileError
from tradewind.compiler.documents import Located
from tradewind.compiler.world import CLUSTER, unknown
from tradewind_operator.policy.cluster import choose_cluster, deletion_of
from tradewind_operator.policy.decision import Decision, Deletion
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.policy.ladder import Ladder
from tradewind_operator.policy.namespace import Entry, Form, Namespace
from tradewind_operator.policy.references import (
    References,
    callable_models,
    namespace_models,
    reduced_tenant,
    with_tenants,
    without_revoked,
)
from tradewind_operator.policy.secrets import SecretValues, hashes, references_of, secret_findings
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
        live = [entry for entry in self._home() if not entry.deleting]
        self._deployments = [entry for entry in live if entry.kind == "ModelDeployment"]
        self._routes = [entry for entry in live if entry.kind == "ModelRoute"]
        self._tenants = [entry for entry in namespace.tenants.values() if not entry.deleting]
        self._ladder.enter((*self._deployments, *self._routes, *self._tenants))

    def _home(self) -> Iterable[Entry]:
        """Everything that this cluster speaks about, but for itself."""
        names = self._namespace
        for name, entry in names.deployments.items():
            if names.deployment_homes[name] == self._cluster:
                yield entry
        for entry in names.routes.values():
            if names.route_home(entry) == self._cluster:
                yield entry
        if names.speaker == self._cluster:
            yield from names.tenants.values()

    def decide(self, allowed: AllowedImages) -> Decision:
        deletion, holding = self._judge_cluster(allowed)
        compiled, in_force = self._compile()
        home = {entry.key: entry for entry in self._home()}
        if (own := self._namespace.clusters.get(self._cluster)) is not None:
            home[own.key] = own
        return Decision(
            namespace=self._namespace.name,
            cluster=self._cluster,
            compiled=compiled,
            in_force=in_force,
            verdicts={
                key: self._ladder.verdict(entry) for key, entry in home.items() if self._is_judged(entry)
            },
            entries=home,
            draining=tuple(
                name for kind, name in home if kind == "ModelDeployment" and home[kind, name].deleting
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
        for entry in (*self._deployments, *self._routes, *self._tenants):
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
        found: dict[Key, Form] = {}
        if self._cluster_form is not None:
            found["ServingCluster", self._cluster] = self._cluster_form
        deployments = self._resolve_deployments(found)
        routes = self._resolve_routes(found, deployments)
        tenants = self._resolve_tenants(found, callable_models(deployments.values(), routes.values()))
        for name, route in routes.items():
            form = found["ModelRoute", name]
            found["ModelRoute", name] = Form(with_tenants(route, tenants), form.generation)
        return found

    def _resolve_deployments(self, found: dict[Key, Form]) -> dict[str, ModelDeployment]:
        taken: dict[str, ModelDeployment] = {}
        for entry in self._deployments:
            while (form := self._ladder.form(entry)) is not None:
                deployment = form.resource
                assert isinstance(deployment, ModelDeployment)
                if findings := list(self._deployment_findings(entry, deployment)):
                    self._ladder.refuse(entry, findings)
                    continue
                taken[entry.name] = deployment
                found[entry.key] = form
                self._ladder.choose(entry, form)
                break
        return taken

    def _deployment_findings(self, entry: Entry, deployment: ModelDeployment) -> Iterable[Finding]:
        wanted = deployment.spec.cluster
        if wanted != self._cluster or (self._missing is None and self._cluster_form is None):
            clusters = list(self._namespace.clusters)
            path = ("spec", "cluster")
            diagnostic = unknown(Located.bare(deployment), path, "ServingCluster", wanted, clusters)
            yield Finding.of(diagnostic, Reason.CLUSTER_NOT_FOUND)
        elif self._missing is not None:
            yield self._missing
        elif self._ladder.as_written(entry):
            # An engine that runs has its weights: a token that is gone since then is no reason to end it.
            yield from secret_findings(deployment, self._secrets, self._namespace.name)

    def _resolve_routes(
        self, found: dict[Key, Form], deployments: Mapping[str, ModelDeployment]
    ) -> dict[str, ModelRoute]:
        references = References(self._namespace, self._cluster, deployments)
        holders: dict[str, str] = {}
        taken: dict[str, ModelRoute] = {}
        for entry in sorted(self._routes, key=_route_precedence):
            while (form := self._ladder.form(entry)) is not None:
                route = form.resource
                assert isinstance(route, ModelRoute)
                findings = _taken(route, holders)
                if self._ladder.as_written(entry):
                    findings += references.route_findings(route)
                    left: ModelRoute | None = route
                else:
                    left = references.reduced_route(route)
                if findings or left is None:
                    self._ladder.refuse(entry, findings)
                    continue
                holders[route.spec.model] = entry.name
                taken[entry.name] = left
                found[entry.key] = Form(left, form.generation)
                self._ladder.choose(entry, form)
                break
        return taken

    def _resolve_tenants(self, found: dict[Key, Form], models: frozenset[str]) -> dict[str, Tenant]:
        owners: dict[str, str] = {}
        taken: dict[str, Tenant] = {}
        for entry in sorted(self._tenants, key=lambda entry: entry.precedence):
            while (form := self._ladder.form(entry)) is not None:
                tenant = form.resource
                assert isinstance(tenant, Tenant)
                if findings := self._tenant_findings(entry, tenant, owners):
                    self._ladder.refuse(entry, findings)
                    continue
                if not self._ladder.as_written(entry):
                    tenant = without_revoked(tenant, entry.document)
                left = reduced_tenant(tenant, self._secrets, self._known_models)
                if left is None:
                    self._ladder.refuse(entry, ())
                    continue
                owners |= dict.fromkeys(self._key_hashes(left), entry.name)
                self._ladder.choose(entry, form)
                # Which of its models are served is this cluster's affair, and nothing wrong with the tenant.
                if (here := reduced_tenant(left, self._secrets, models)) is not None:
                    taken[entry.name] = here
                    found[entry.key] = Form(here, form.generation)
                break
        return taken

    def _tenant_findings(self, entry: Entry, tenant: Tenant, owners: Mapping[str, str]) -> list[Finding]:
        findings = [
            Finding(
                Reason.KEY_IN_USE,
                f"spec.keys: found a key that Tenant {owners[digest]!r} has; allowed: keys of its own",
            )
            for digest in self._key_hashes(tenant)
            if owners.get(digest, entry.name) != entry.name
        ]
        if not self._ladder.as_written(entry):
            return findings
        references = References(self._namespace, self._cluster)
        findings += secret_findings(tenant, self._secrets, self._namespace.name)
        return findings + references.tenant_findings(tenant, self._known_models)

    def _key_hashes(self, tenant: Tenant) -> list[str]:
        places = [(reference.name, reference.key) for _, reference, _ in references_of(tenant)]
        return [self._hashes[place] for place in places if place in self._hashes]


def _route_precedence(entry: Entry) -> tuple[bool, tuple[bool, str, str]]:
    """First the routes that go on serving the model name that they were accepted with."""
    models = [form.resource.spec.model for form in entry.forms() if isinstance(form.resource, ModelRoute)]
    keeps = entry.accepted is not None and len(set(models)) == 1
    return not keeps, entry.precedence


def _taken(route: ModelRoute, holders: Mapping[str, str]) -> list[Finding]:
    if (holder := holders.get(route.spec.model)) is None:
        return []
    message = f"found {route.spec.model!r}, which ModelRoute {holder!r} serves; allowed: one route per model"
    diagnostic = Located.bare(route).at(("spec", "model"), message)
    return [Finding.of(diagnostic, Reason.MODEL_TAKEN)]
