"""What the documents tell people to paste: every manifest compiles, every command and option exists.

A block that names an `apiVersion` is a manifest. One that begins with a comment of nothing but a kind, as in
`# ModelRoute`, is a part of such a resource and is completed with the least that the kind needs. What a
manifest refers to and does not hold itself (a deployment, a route, a tenant) is filled in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tradewind.api.model import API_VERSION
from tradewind.api.resources import KINDS
from tradewind.cli.main import app
from tradewind.compiler.compile import Compiled, compile_resources
from tradewind.compiler.documents import read_documents
from tradewind.compiler.world import CLUSTER
from tradewind.routing.table import RouteTable, Subject
from tradewind_operator.policy.secrets import references_of

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(?P<language>yaml|console)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
PART = re.compile(rf"# ({'|'.join(KINDS)})\n")
APPLIED = re.compile(r"kubectl [^\n]*apply -f (examples/[\w.-]+\.yaml)")
COMMAND = re.compile(r"(?:^|[\s/])tradewind (?P<words>[a-z-][^|;&#>\n]*)")
MODEL_SOURCE = {"uri": "hf://example/model"}
LEAST: dict[str, dict[str, Any]] = {
    "ServingCluster": {},
    "ModelDeployment": {"source": MODEL_SOURCE},
    "ModelRoute": {"model": "chat", "variants": [{"name": "only", "deployment": "llama-8b"}]},
    "Tenant": {"keys": [{"env": "KEY"}]},
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(document and line, text) of every block of a language."""
    for document in DOCUMENTS:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start()) + 1
                yield f"{document.relative_to(ROOT)}:{line}", match["text"]


def manifests() -> dict[str, str]:
    """Every block that holds resources, by its place; parts of a resource completed."""
    found = {}
    for place, text in blocks("yaml"):
        if part := PART.match(text):
            spec = LEAST[part[1]] | yaml.safe_load(text)["spec"]
            found[place] = yaml.safe_dump(resource(part[1], "example", spec))
        elif "apiVersion" in text:
            found[place] = text
    return found


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def missing(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The least of everything that `resources` name and do not hold."""
    specs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for item in resources:
        specs[item["kind"]].append(item.get("spec", {}))
    routes = specs["ModelRoute"]
    uses = [use for route in routes for use in [*route["variants"], *route.get("fallback", [])]]
    deployments = {use["deployment"] for use in uses}
    tenants = {
        tenant
        for route in routes
        for rule in route.get("rules", [])
        for tenant in rule["match"].get("tenants", [])
    }
    models = {model for tenant in specs["Tenant"] for model in tenant.get("models", [])} - {"*"}
    models -= {route["model"] for route in routes}
    held = {(item["kind"], item["metadata"]["name"]) for item in resources}
    wanted = [resource("ModelDeployment", name, {"source": MODEL_SOURCE}) for name in deployments | models]
    wanted += [resource("Tenant", name, {"keys": [{"env": "A_KEY"}]}) for name in tenants]
    host = [cluster.get("gateway", {}).get("endpoint", {}).get("host") for cluster in specs["ServingCluster"]]
    if any(host) and not specs["Tenant"]:
        wanted.append(resource("Tenant", "someone", LEAST["Tenant"]))
    return [item for item in wanted if (item["kind"], item["metadata"]["name"]) not in held]


def pools_of(resources: list[dict[str, Any]]) -> list[str]:
    """Pools that resources name: they are for a cluster."""
    specs = [item.get("spec", {}) for item in resources]
    return [pool for spec in specs if (pool := spec.get("resources", {}).get("pool"))]


def is_for_kubernetes(resources: list[dict[str, Any]]) -> bool:
    """Whether something in them exists in a cluster only."""
    specs = [item.get("spec", {}) for item in resources]
    keys = [key for spec in specs for key in spec.get("keys", [])]
    only_secrets = any("secret" in key and not {"env", "file"} & key.keys() for key in keys)
    return bool(pools_of(resources)) or only_secrets or any("pools" in spec for spec in specs)


def compiled_for_kubernetes(place: str, resources: list[dict[str, Any]]) -> Compiled:
    """With pools of every name, and every Secret in its place."""
    if not any(item["kind"] == "ServingCluster" for item in resources):
        shapes = [(name, 8) for name in dict.fromkeys(pools_of(resources))] or [("cpu", 0), ("gpu", 8)]
        pools = {n: {"gpus": g, "cpus": 64, "memory": "1Ti", "maxNodes": 1} for n, g in shapes}
        resources = [*resources, resource("ServingCluster", "default", {"pools": pools})]
    keys = [key for item in resources for key in item.get("spec", {}).get("keys", [])]
    for key in keys:
        key.setdefault("secret", {"name": "some", "key": "key"})
    hashes = {(key["secret"]["name"], key["secret"]["key"]): "ab" * 32 for key in keys}
    text = yaml.safe_dump_all(resources)
    return compile_resources(read_documents([(place, text)]), platform=CLUSTER, key_hashes=hashes)


@pytest.mark.parametrize("place", manifests())
def test_a_manifest_compiles(place: str) -> None:
    text = manifests()[place]
    resources = list(yaml.safe_load_all(text))
    if is_for_kubernetes(resources):
        found = compiled_for_kubernetes(place, [*resources, *missing(resources)])
    else:
        filled_in = yaml.safe_dump_all(missing(resources))
        found = compile_resources(read_documents([(place, text), ("filled in", filled_in)]))
    assert found.serve_config["applications"]


def command_lines() -> list[tuple[str, str]]:
    """(place, arguments) of every `tradewind` command in a console block; of prompts only, not of output."""
    return [
        (place, match["words"].strip())
        for place, text in blocks("console")
        for line in text.splitlines()
        if line.startswith("$ ")
        for match in COMMAND.finditer(line)
    ]


@pytest.mark.parametrize(("place", "words"), command_lines())
def test_a_command_and_its_options_exist(place: str, words: str) -> None:
    group = typer.main.get_command(app)
    name, *rest = shlex.split(words)
    command = group.commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"} <= known


@pytest.mark.parametrize(
    ("weights", "variants"),
    [((80, 20), "control control control candidate"), ((50, 50), "control candidate candidate candidate")],
)
def test_the_tutorials_four_users_are_where_it_says(weights: tuple[int, int], variants: str) -> None:
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    changed = text.replace("weight: 80", f"weight: {weights[0]}").replace(
        "weight: 20", f"weight: {weights[1]}"
    )
    table = RouteTable.build(compile_resources(read_documents([("quickstart", changed)])).gateway)
    subjects = (
        Subject({"x-user-id": user}, user=None, session=None, tenant="quickstart", request_id="")
        for user in ("ada", "grace", "alan", "user-1")
    )
    assert [table.resolve("chat", subject).variant.name for subject in subjects] == variants.split()


def applied_examples() -> list[tuple[str, str]]:
    """(document, example) of every example that a document tells people to apply to a cluster."""
    return [
        (str(document.relative_to(ROOT)), example)
        for document in [*DOCUMENTS, *sorted(ROOT.glob("examples/*.yaml"))]
        for example in dict.fromkeys(APPLIED.findall(document.read_text()))
    ]


@pytest.mark.parametrize(("document", "example"), applied_examples())
def test_who_applies_an_example_is_told_to_make_its_secrets(document: str, example: str) -> None:
    text = (ROOT / document).read_text()
    resources = [found.resource for found in read_documents([(example, (ROOT / example).read_text())])]
    secrets = {(use.name, use.key) for found in resources for _, use, _ in references_of(found)}
    assert secrets
    made = set(re.findall(r"create secret generic (\S+) --from-literal=([\w.-]+)=", text))
    assert secrets - made == set()


def test_there_is_something_to_check() -> None:
    assert {document for document, _ in applied_examples()} >= {"README.md", "examples/cluster-gpu.yaml"}
    assert len(manifests()) > 8
    assert len(command_lines()) > 12
