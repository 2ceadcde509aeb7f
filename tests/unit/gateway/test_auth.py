"""Keys: who gets in, who does not, and what is kept of a key."""

from __future__ import annotations

import gc
import hashlib
import hmac
from typing import Any

import pytest

from tests.unit.gateway.asgi import (
    HOST,
    KEY,
    OTHER_KEY,
    SECRETS,
    Header,
    bearer,
    config,
    deployment,
    make_gateway,
    read_secret,
    route,
    stage,
    tenant,
)
from tradewind.api.key_hash import key_hash
from tradewind.api.wire import GatewayConfig, SecretRef, TenantEntry
from tradewind.gateway import auth
from tradewind.gateway.auth import KeyIndex
from tradewind.gateway.head import Head
from tradewind.gateway.problems import ConfigRefused, Refused

GOOD: dict[str, list[Header]] = {
    "bearer": [bearer(KEY)],
    "lower-case scheme": [(b"authorization", b"bearer " + KEY.encode())],
    "x-api-key": [(b"x-api-key", KEY.encode())],
    "both, the same": [bearer(KEY), (b"x-api-key", KEY.encode())],
}

BAD: dict[str, list[Header]] = {
    "no key": [],
    "an empty key": [(b"authorization", b"Bearer ")],
    "an empty x-api-key": [(b"x-api-key", b"")],
    "a wrong key": [bearer("tw-wrong-key-0123456789abcdef")],
    "a key and a bit": [bearer(KEY + "0")],
    "the beginning of a key": [bearer(KEY[:-1])],
    "another case": [bearer(KEY.upper())],
    "basic": [(b"authorization", b"Basic " + KEY.encode())],
    "no scheme": [(b"authorization", KEY.encode())],
    "two different keys": [bearer(KEY), (b"x-api-key", OTHER_KEY.encode())],
    "a good key behind a wrong one": [bearer("tw-wrong-key-0123456789abcdef"), (b"x-api-key", KEY.encode())],
    "a huge key": [bearer("k" * 20_000)],
    "bytes": [(b"x-api-key", bytes(range(128, 160)))],
    "the key's plain hash": [bearer(hashlib.blake2b(KEY.encode(), digest_size=32).hexdigest())],
    "the key's sha256": [bearer(hashlib.sha256(KEY.encode()).hexdigest())],
    "the engine's token": [bearer("e" * 64)],
    "the engine's token in its header": [(b"x-tradewind-token", b"e" * 64)],
}


@pytest.mark.parametrize("case", GOOD)
async def test_a_good_key_gets_in(case: str) -> None:
    async with stage() as s:
        s.client.headers = [HOST, *GOOD[case]]
        assert (await s.client.chat()).status == 200
        assert (await s.client.get("/v1/models")).status == 200
        assert {record.tenant for record in s.records.items} <= {"acme", ""}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_key_stays_out(case: str) -> None:
    async with stage() as s:
        s.client.headers = [HOST, *BAD[case]]
        for reply in (
            await s.client.chat(),
            await s.client.get("/v1/models"),
            await s.client.get("/v1/models/x"),
        ):
            assert (reply.status, reply.code) == (401, "invalid_api_key")
            assert reply.header("www-authenticate") == "Bearer"
            assert KEY not in reply.body.decode()
        assert s.seen() == 0


async def test_row_6_a_digest_from_memory_is_no_credential() -> None:
    async with stage() as s:
        state = s.gateway._state
        assert state is not None
        digests = list(state.keys._digests)
        assert len(digests) == 1
        for digest in digests:
            for sent in (digest.hex().encode(), digest):
                s.client.headers = [HOST, (b"x-api-key", sent)]
                assert (await s.client.chat()).status == 401


async def test_row_6_keys_are_kept_only_as_peppered_digests() -> None:
    key = "tw-canary-" + "k" * 30
    settings = config(tenants=[TenantEntry(name="acme", keys=(SecretRef(env="X"),))])
    index = KeyIndex.build(settings, lambda _: key)
    again = KeyIndex.build(settings, lambda _: key)
    assert set(index._digests) != set(again._digests), "each index has a pepper of its own"
    held: list[Any] = [index]
    for _ in range(6):
        held.extend(gc.get_referents(*held))
    assert not any(value in (key, key.encode()) for value in held if isinstance(value, str | bytes))


async def test_row_6_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Watched:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(auth, "hmac", Watched)
    index = KeyIndex.build(config(), read_secret)
    assert index.authenticate(Head({b"x-api-key": KEY.encode()})).name == "acme"
    assert len(compared) == 1
    assert len(compared[0][0]) == 32


async def test_row_7_a_key_is_found_by_its_full_digest_only() -> None:
    index = KeyIndex.build(config(), read_secret)
    (digest,) = index._digests
    assert len(digest) == 32
    # A collision in the look-up table alone does not let anybody in.
    wrong = b"tw-wrong-key-0123456789abcdef"
    forged = auth.key_digest(wrong, index._pepper)
    index._digests[forged] = index._digests[digest]
    with pytest.raises(Refused):
        index.authenticate(Head({b"x-api-key": wrong}))


async def test_each_tenant_has_its_own_models() -> None:
    settings = config(
        deployments=[deployment(), deployment("mistral")],
        tenants=[tenant(models=("chat",)), tenant("other", "OTHER_KEY", models=("mistral", "gone"))],
    )
    async with stage(settings) as s:
        assert (await s.client.chat()).status == 200
        listed = [card["id"] for card in (await s.client.get("/v1/models")).json["data"]]
        assert listed == ["chat"]
        s.client.headers = [HOST, bearer(OTHER_KEY)]
        assert (await s.client.chat(model="mistral")).status == 200
        assert [card["id"] for card in (await s.client.get("/v1/models")).json["data"]] == ["mistral"]


async def test_a_model_that_is_not_mine_looks_like_one_that_is_not_there() -> None:
    async with stage(config(tenants=[tenant(models=("chat",))])) as s:
        there = await s.client.chat(model="llama")
        nowhere = await s.client.chat(model="nowhere")
        assert there.status == nowhere.status == 403
        assert there.body == nowhere.body
        assert (await s.client.get("/v1/models/llama")).body == (
            await s.client.get("/v1/models/nowhere")
        ).body
        assert s.seen() == 0


async def test_my_model_that_is_not_there_is_not_found() -> None:
    async with stage(config(tenants=[tenant(models=("chat", "gone"))])) as s:
        assert (await s.client.chat(model="gone")).status == 404


async def test_names_that_are_not_mine_are_not_suggested() -> None:
    settings = config(
        routes=[route("secret-project"), route("chat")], tenants=[tenant(models=("chat", "secret-projects"))]
    )
    async with stage(settings) as s:
        reply = await s.client.chat(model="secret-projects")
        assert reply.status == 404
        assert "secret-project " not in reply.json["error"]["message"]
    async with stage(config()) as s:
        assert "chat" in (await s.client.chat(model="chatt")).json["error"]["message"]


async def test_anonymous_callers_are_let_in_where_the_configuration_says_so() -> None:
    async with stage(config(tenants=[], anonymous=True)) as s:
        for headers in ([HOST], [HOST, bearer("EMPTY")], [HOST, (b"x-api-key", b"none")]):
            s.client.headers = headers
            assert (await s.client.chat()).status == 200
            assert s.records.last.tenant == "anonymous"


async def test_callers_without_a_key_are_not_one_unit_of_a_route_that_is_sticky_by_tenant() -> None:
    async with stage(config(tenants=[], anonymous=True)) as s:
        s.client.headers = [HOST]
        await s.client.chat()
        assert s.records.last.assignment == "request"
    async with stage(config()) as s:
        await s.client.chat()
        assert s.records.last.assignment == "sticky"


async def test_beside_tenants_anonymous_means_no_key_not_any_key() -> None:
    async with stage(config(anonymous=True)) as s:
        s.client.headers = [HOST]
        assert (await s.client.chat()).status == 200
        s.client.headers = [HOST, bearer("tw-wrong-key-0123456789abcdef")]
        assert (await s.client.chat()).status == 401
        s.client.headers = [HOST, bearer(KEY)]
        assert (await s.client.chat()).status == 200
        assert s.records.last.tenant == "acme"


async def test_without_tenants_and_anonymous_nobody_gets_in() -> None:
    async with stage(config(tenants=[])) as s:
        assert (await s.client.chat()).status == 401


@pytest.mark.parametrize(
    "key", ["", "short", "with space in the middle", "x" * 513, "ключ" * 10, "a" * 20 + "\n" + "b"]
)
async def test_a_key_that_is_no_key_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(ConfigRefused, match="tenant acme") as caught:
        KeyIndex.build(config(), lambda _: key)
    assert not key or key not in str(caught.value)


async def test_two_tenants_cannot_share_a_key() -> None:
    with pytest.raises(ConfigRefused, match="acme and other"):
        KeyIndex.build(config(tenants=[tenant(), tenant("other")]), read_secret)


@pytest.mark.parametrize("error", [OSError, KeyError, ValueError, RuntimeError])
async def test_a_key_that_cannot_be_read_names_its_place_only(error: type[Exception]) -> None:
    def fail(reference: SecretRef) -> str:
        raise error(KEY)

    with pytest.raises(ConfigRefused, match="environment variable ACME_KEY") as caught:
        KeyIndex.build(config(), fail)
    assert KEY not in str(caught.value)


async def test_keys_are_read_again_at_each_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as s:
        monkeypatch.setitem(SECRETS, "ACME_KEY", "tw-rotated-key-0123456789")
        assert (await s.client.chat()).status == 200
        s.gateway.configure(s.config)
        assert (await s.client.chat()).status == 401
        s.client.headers = [HOST, bearer("tw-rotated-key-0123456789")]
        assert (await s.client.chat()).status == 200


HASH_KEY = b"5f" * 32


async def test_a_key_that_came_as_a_hash_opens_the_same_door() -> None:
    hashed = TenantEntry(name="acme", key_hashes=(key_hash(f" {KEY}\n", HASH_KEY),))
    index = KeyIndex.build(config(tenants=[hashed]), read_secret, HASH_KEY)
    assert index.authenticate(Head({b"x-api-key": KEY.encode()})).name == "acme"
    for wrong in (hashed.key_hashes[0].encode(), b"tw-wrong-key-0123456789abcdef"):
        with pytest.raises(Refused):
            index.authenticate(Head({b"x-api-key": wrong}))


@pytest.mark.parametrize(
    ("hashes", "hash_key", "says"),
    [
        (("ab" * 32,), None, "has no hash key"),
        (("xy" * 32,), HASH_KEY, "not hexadecimal"),
        (("ab" * 31,), HASH_KEY, "must have 32 bytes"),
    ],
)
async def test_a_hash_that_is_none_is_refused(
    hashes: tuple[str, ...], hash_key: bytes | None, says: str
) -> None:
    entry = TenantEntry(name="acme", key_hashes=hashes)
    with pytest.raises(ConfigRefused, match=says):
        KeyIndex.build(config(tenants=[entry]), read_secret, hash_key)


REFUSED: dict[str, tuple[GatewayConfig, str]] = {
    "a route to nowhere": (config(routes=[route(fallback=("gone",))]), "gone"),
    "a tenant's key missing": (config(tenants=[tenant(env="GONE")]), "GONE"),
    "two tenants of one name": (config(tenants=[tenant(), tenant(env="OTHER_KEY")]), "same name"),
    "a tenant called anonymous": (config(tenants=[tenant("anonymous")]), "anonymous"),
    "two deployments of one name": (config(deployments=[deployment(), deployment()]), "same name"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_bad_configuration_leaves_the_old_one_in_force(case: str) -> None:
    bad, why = REFUSED[case]
    async with stage() as s:
        before = s.gateway._state
        with pytest.raises(ConfigRefused, match=why):
            s.gateway.configure(bad)
        assert s.gateway._state is before
        assert s.gateway.revision == "r"
        assert (await s.client.chat()).status == 200


async def test_a_first_configuration_that_is_bad_leaves_the_gateway_closed() -> None:
    gateway, *_, upstream = make_gateway()
    with pytest.raises(ConfigRefused):
        gateway.configure(config(tenants=[tenant(env="GONE")]))
    assert gateway.revision is None
    await upstream.close()
