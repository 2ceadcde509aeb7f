"""Users of pods as OpenShift's restricted security context constraint gives them: the namespace's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.site import Data, Site

USER = 1_000_650_000
"""Nobody knows it: no image has an entry for it in /etc/passwd."""
NAME = "tradewind-e2e-chosen-users"
API = "admissionregistration.k8s.io/v1"
NAME_OF_KIND = "MutatingAdmissionPolicyBinding"
CHOSEN = f"securityContext: Object.spec.securityContext{{runAsUser: {USER}, fsGroup: {USER}}}"


def policy(namespace: str) -> list[Data]:
    """Pods of `namespace` that name no user get one, and a group for their volumes."""
    none_named = "!has(object.spec.securityContext) || !has(object.spec.securityContext.runAsUser)"
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ],
        },
        "matchConditions": [{"name": "names-no-user", "expression": none_named}],
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": f"Object{{spec: Object.spec{{{CHOSEN}}}}}"},
            }
        ],
    }
    metadata = {"name": NAME}
    return [
        {"apiVersion": API, "kind": "MutatingAdmissionPolicy", "metadata": metadata, "spec": spec},
        {
            "apiVersion": API,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": NAME},
        },
    ]


@contextmanager
def users_are_chosen(site: Site, namespace: str) -> Iterator[int | None]:
    """The cluster chooses users within; yields that of `namespace`, or None before Kubernetes 1.36."""
    if NAME_OF_KIND not in site.kubectl("api-resources", f"--api-group={API.partition('/')[0]}"):
        yield None
        return
    kinds = "mutatingadmissionpolicybinding,mutatingadmissionpolicy"
    site.kubectl.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": policy(namespace)}))
    try:
        yield USER
    finally:
        site.kubectl("delete", kinds, NAME, "--ignore-not-found")
