"""What a migration does where the API server does not simply take everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tradewind_operator.errors import ApiError, Conflict, Invalid, NotFound, NotMigrated
from tradewind_operator.kinds import DEFINITION, TENANT, Resource
from tradewind_operator.migration import migrate, version_hash

Object = dict[str, Any]
BETA = Resource("tradewind.dev/v1beta1", TENANT.kind, TENANT.plural)


class Server:
    """Tenants, and their definition in two versions of which the second is stored."""

    def __init__(self, *names: str, stored: tuple[str, ...] = ("v1alpha1", "v1beta1")) -> None:
        self.calls: list[str] = []
        self.names = names
        self.versions = [{"name": "v1alpha1", "storage": False}, {"name": "v1beta1", "storage": True}]
        self.stored = list(stored)
        self.refusals: dict[str, list[ApiError]] = {}
        self.behind = 0
        """How often discovery tells of the version of before."""

    def _refuse(self, what: str) -> None:
        self.calls.append(what)
        if refusals := self.refusals.get(what):
            raise refusals.pop(0)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        assert (resource, namespace, name) == (DEFINITION, "", TENANT.full_name)
        self._refuse("get")
        return {
            "metadata": {"uid": "u", "resourceVersion": "7"},
            "spec": {"versions": self.versions},
            "status": {"conditions": ["kept"], "storedVersions": list(self.stored)},
        }

    async def served(self, root: str) -> Mapping[str, str]:
        assert root == BETA.root
        self.calls.append("served")
        self.behind -= 1
        return {TENANT.plural: version_hash(TENANT if self.behind >= 0 else BETA)}

    async def list(self, resource: Resource, namespace: str, selector: str = "") -> list[Object]:
        assert (resource, namespace) == (BETA, "")
        self._refuse("list")
        return [
            {"metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": "1"}}
            for name in self.names
        ]

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> Object:
        assert (resource, namespace) == (BETA, "ns")
        assert patch == {"metadata": {"uid": f"u-{name}", "resourceVersion": "1"}}
        self._refuse(name)
        return {}

    async def put_status(
        self, resource: Resource, namespace: str, name: str, uid: str, version: str, status: Mapping[str, Any]
    ) -> Object:
        assert (resource, namespace, name, uid, version) == (DEFINITION, "", TENANT.full_name, "u", "7")
        self._refuse("status")
        assert status["conditions"] == ["kept"]
        self.stored = status["storedVersions"]
        return {}


async def no_sleep(_: float) -> None:
    return None


async def test_everything_is_written_before_the_list_is_cut() -> None:
    server = Server("a", "b")
    done = await migrate(server, TENANT, sleep=no_sleep)
    assert server.calls == ["get", "served", "list", "a", "b", "get", "status"]
    assert server.stored == ["v1beta1"]
    assert str(done) == "Tenant: 2 stored as v1beta1 now; no more v1alpha1"


async def test_where_one_version_is_stored_nothing_is_done() -> None:
    server = Server("a", stored=("v1beta1",))
    assert str(await migrate(server, TENANT)) == "Tenant: everything is stored as v1beta1"
    assert server.calls == ["get"]


async def test_it_waits_for_a_server_that_does_not_know_yet() -> None:
    server = Server("a")
    server.behind = 2
    await migrate(server, TENANT, sleep=no_sleep)
    assert server.calls[:5] == ["get", "served", "served", "served", "list"]


async def test_a_server_that_never_knows_is_given_nothing() -> None:
    server = Server("a")
    server.behind = 1_000
    with pytest.raises(NotMigrated, match="does not store v1beta1 yet"):
        await migrate(server, TENANT, sleep=no_sleep)
    assert set(server.calls) == {"get", "served"}


async def test_what_somebody_else_wrote_or_deleted_needs_no_writing() -> None:
    server = Server("a", "b", "c")
    server.refusals = {"a": [Conflict("patch", 409)], "b": [NotFound("patch", 404)]}
    assert (await migrate(server, TENANT, sleep=no_sleep)).written == 1
    assert server.stored == ["v1beta1"]


async def test_a_resource_that_is_refused_keeps_the_list_as_it_is() -> None:
    server = Server("a", "b", "c")
    server.refusals["b"] = [Invalid("patch Tenant ns/b", 422, "Invalid", "spec.keys: Required value")]
    with pytest.raises(NotMigrated, match=r"1 resources break .*Tenant ns/b: spec\.keys: Required value"):
        await migrate(server, TENANT, sleep=no_sleep)
    assert server.calls[-1] == "c"
    assert server.stored == ["v1alpha1", "v1beta1"]


async def test_a_definition_that_somebody_writes_is_read_again() -> None:
    server = Server()
    server.refusals["status"] = [Conflict("put status", 409)]
    await migrate(server, TENANT, sleep=no_sleep)
    assert server.calls[-4:] == ["get", "status", "get", "status"]
    assert server.stored == ["v1beta1"]


async def test_a_definition_that_goes_back_meanwhile_is_left_alone() -> None:
    server = Server("a")
    taken_back = server.list

    async def listed(resource: Resource, namespace: str, selector: str = "") -> list[Object]:
        server.versions = [{"name": "v1alpha1", "storage": True}]
        return await taken_back(resource, namespace, selector)

    server.list = listed  # type: ignore[method-assign]
    with pytest.raises(NotMigrated, match="was changed meanwhile"):
        await migrate(server, TENANT, sleep=no_sleep)
    assert server.stored == ["v1alpha1", "v1beta1"]
