"""Secrets of a cluster: made once, never changed, never someone else's, and never shown."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.operator.fake_api import FakeApi
from tradewind.api.key_hash import key_hash
from tradewind.compiler.secret_names import SecretUse
from tradewind_operator.credentials import ClusterSecrets, digest_values, read_secrets
from tradewind_operator.errors import NotOurs
from tradewind_operator.kinds import SECRET
from tradewind_operator.policy.secrets import SecretValue, State, WantedSecret

KEY = "tw-0123456789abcdef0123"


def store(api: FakeApi) -> ClusterSecrets:
    return ClusterSecrets(api, "ns", "chat", "uid-1")


def secret(name: str, labels: Mapping[str, str] | None = None, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": name, "namespace": "ns", "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


async def test_credentials_are_made_once_and_read_ever_after() -> None:
    api = FakeApi()
    first = await store(api).ensure()
    second = await store(api).ensure()
    assert first.created
    assert not second.created
    assert (first.auth_token, first.internal_token, first.hash_key) == (
        second.auth_token,
        second.internal_token,
        second.hash_key,
    )
    assert len({first.auth_token, first.internal_token, first.hash_key.decode()}) == 3
    assert len(first.hash_key) == 64
    assert first.auth_token not in repr(first)
    made = api.find(SECRET, "ns", "chat-auth")
    assert made is not None
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert api.made("create") == [("secrets", "chat-auth")]


async def test_a_key_that_is_missing_is_added_and_the_others_stay() -> None:
    api = FakeApi()
    first = await store(api).ensure()
    found = api.find(SECRET, "ns", "chat-auth")
    assert found is not None
    del found["data"]["hash-key"]
    api.put(found)
    second = await store(api).ensure()
    assert second.created
    assert second.auth_token == first.auth_token
    assert second.hash_key != first.hash_key


async def test_a_secret_of_someone_else_is_refused() -> None:
    api = FakeApi()
    api.put(secret("chat-auth", password="theirs"))
    with pytest.raises(NotOurs, match="Secret ns/chat-auth belongs to someone else"):
        await store(api).ensure()
    api.put(secret("chat-tokens", password="theirs"))
    with pytest.raises(NotOurs):
        await store(api).put_tokens([SecretUse("f", "hub", "token")], {"hub": {"token": b"x"}})
    assert api.made("apply") == []


async def test_exactly_the_tokens_in_use_are_copied() -> None:
    api = FakeApi()
    uses = [SecretUse("f1", "hub", "token"), SecretUse("f2", "gone", "token")]
    await store(api).put_tokens(uses, {"hub": {"token": b"hf_x", "other": b"y"}, "gone": None})
    made = api.find(SECRET, "ns", "chat-tokens")
    assert made is not None
    assert made["data"] == {"f1": base64.b64encode(b"hf_x").decode()}
    await store(api).put_tokens(uses, {"hub": {"token": b"hf_x"}})
    assert len(api.made("apply")) == 1
    await store(api).put_tokens([], {})
    emptied = api.find(SECRET, "ns", "chat-tokens")
    assert emptied is not None
    assert emptied["data"] == {}
    assert api.made("delete") == []


async def test_without_tokens_no_secret_is_made() -> None:
    api = FakeApi()
    await store(api).put_tokens([], {})
    assert api.objects == {}


async def test_what_may_be_known_of_peoples_secrets() -> None:
    api = FakeApi()
    api.put(secret("keys", acme=f" {KEY}\n", weak="short"))
    wanted = {("keys", "acme"), ("keys", "weak"), ("keys", "none"), ("gone", "acme")}
    items = [WantedSecret(name, key, "API_KEY") for name, key in wanted]
    values = await read_secrets(api, "ns", [item.name for item in items])
    assert len(api.made("get")) == 2
    found = digest_values(items, values, b"k" * 32)
    assert found["keys", "acme"] == SecretValue(State.PRESENT, key_hash(KEY, b"k" * 32))
    assert found["keys", "weak"].state is State.UNUSABLE
    assert found["keys", "none"].state is State.NO_KEY
    assert found["gone", "acme"].state is State.NO_SECRET
    assert KEY not in str(found)
