"""API keys: authentication and its cache, with a fake store and a settable clock."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from parley.auth.access import AccessChecker
from parley.auth.api_keys import ApiKeys
from parley.auth.callers import Callers
from parley.core.administration.secrets import digest, new_key_id, new_secret
from parley.core.errors import (
    AccessRevoked,
    AccountSuspended,
    InvalidApiKey,
    PlanRequired,
    StoreUnavailable,
    Unauthenticated,
)
from parley.core.ports import Account, ApiKey, Caller, Credentials


class FakeKeyStore:
    """Keys in memory. Counts its reads and can be unavailable."""

    def __init__(self) -> None:
        self.keys: list[ApiKey] = []
        self.reads = 0
        self.away = False

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Finds a key."""
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return next((key for key in self.keys if digest in (key.digest, key.previous_digest)), None)

    async def find_keys(self, digests: Collection[bytes]) -> list[ApiKey]:
        """Finds keys."""
        self.reads += 1
        return [key for key in self.keys if {key.digest, key.previous_digest} & set(digests)]

    async def find_account(self, name: str) -> Account | None:
        """Finds an account."""
        return next(iter(await self.find_accounts([name])), None)

    async def find_accounts(self, names: Collection[str]) -> list[Account]:
        """Finds accounts."""
        self.reads += 1
        accounts = {key.account.name: key.account for key in self.keys}
        return [account for name, account in accounts.items() if name in names]

    def create(self, plan: str = "pro", **fields: Any) -> tuple[ApiKey, str]:
        """Adds a key of the account `acme`; returns it and its secret."""
        secret = new_secret()
        key = ApiKey(new_key_id(), "n", Account("acme", plan), digest(secret), (), 1_700_000_000, **fields)
        self.keys.append(key)
        return key, secret

    def change(self, key: ApiKey, **fields: Any) -> None:
        """Changes a key."""
        self.keys = [replace(one, **fields) if one.id == key.id else one for one in self.keys]


class Clock:
    """A settable clock in Unix seconds."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now


@pytest.fixture
def store() -> FakeKeyStore:
    """An empty store."""
    return FakeKeyStore()


@pytest.fixture
def clock() -> Clock:
    """The clock."""
    return Clock()


@pytest.fixture
def keys(store: FakeKeyStore, clock: Clock) -> ApiKeys:
    """The keys under test."""
    return ApiKeys(store, clock=clock)


async def test_a_key_authenticates(keys: ApiKeys, store: FakeKeyStore) -> None:
    """The secret of a key authenticates the caller, with its account, models and scopes."""
    key, secret = store.create(scopes=("chat",))
    caller = await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert Caller("acme", key.id, scopes=frozenset({"chat"})) == caller


@pytest.mark.parametrize("authorization", [None, ""])
async def test_a_missing_key(keys: ApiKeys, authorization: str | None) -> None:
    """Without an authorization header the key is missing."""
    with pytest.raises(Unauthenticated, match="Missing API key"):
        await keys.authenticate(Credentials(authorization))


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Bearer sk-",
        "Bearer sk-unknown",
        "Bearer x",
        "Basic c2s6",
        "sk-x",
        "Bearer\tsk-x",
        "Bearer sk-\xe9\udcff",
    ],
)
async def test_an_invalid_key(keys: ApiKeys, authorization: str, store: FakeKeyStore) -> None:
    """Anything but the secret of a key is an invalid key."""
    store.create()
    with pytest.raises(InvalidApiKey, match="Invalid API key"):
        await keys.authenticate(Credentials(authorization))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_case_insensitive(keys: ApiKeys, scheme: str, store: FakeKeyStore) -> None:
    """The scheme is case-insensitive and may be followed by more than one space."""
    key, secret = store.create()
    assert key.id == (await keys.authenticate(Credentials(f"{scheme} {secret}"))).key_id


async def test_the_secret_is_case_sensitive(keys: ApiKeys, store: FakeKeyStore) -> None:
    """A secret is case-sensitive."""
    _, secret = store.create()
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer sk-{secret[3:].swapcase()}"))


async def test_a_free_plan_is_rejected(keys: ApiKeys, store: FakeKeyStore) -> None:
    """Each call with a key of a free account is rejected for its plan."""
    _, secret = store.create("free")
    for _ in range(2):
        with pytest.raises(PlanRequired):
            await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_a_key_expires(keys: ApiKeys, clock: Clock, store: FakeKeyStore) -> None:
    """A cached key is valid until the second in which it expires."""
    _, secret = store.create("pro", expires=1_700_000_010)
    clock.now += 9.9
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.1
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_an_expired_key_of_a_free_account(keys: ApiKeys, store: FakeKeyStore) -> None:
    """An expired key is invalid, whatever its plan."""
    _, secret = store.create("free", expires=1_700_000_000)
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_a_revocation_in_another_worker(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A revocation in another worker takes effect within half a second, under continuous calls."""
    key, secret = store.create()
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    store.change(key, revoked=1)
    for _ in range(3):
        clock.now += 0.125
        await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.125
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_clock_set_back(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A clock that is set back does not keep a revoked key valid."""
    key, secret = store.create()
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    store.change(key, revoked=1)
    clock.now -= 3600
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_keys_are_cached(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A key is read once in half a second, however many calls it makes."""
    _, secret = store.create()
    for _ in range(100):
        await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert 1 == store.reads
    clock.now += 0.5
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert 2 == store.reads


async def test_unknown_keys_are_not_cached(keys: ApiKeys, store: FakeKeyStore) -> None:
    """Unknown keys are not cached: a key that is created later is valid immediately, and guesses evict no key."""
    _, secret = store.create()
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    hidden, store.keys = store.keys, []
    for number in range(11_000):
        with pytest.raises(InvalidApiKey):
            await keys.authenticate(Credentials(f"Bearer sk-{number}"))
    reads = store.reads
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert reads == store.reads
    store.keys = [*hidden, replace(hidden[0], id="late", digest=hashlib.sha256(b"sk-7").digest())]
    assert "late" == (await keys.authenticate(Credentials("Bearer sk-7"))).key_id


class EveryKey(FakeKeyStore):
    """A store in which every key exists."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns a generated key."""
        self.reads += 1
        return ApiKey(digest.hex(), "n", Account("acme", "pro"), digest, (), 1)


async def test_the_cache_is_bounded(clock: Clock) -> None:
    """The cache is bounded; beyond its size the oldest keys are read again."""
    store = EveryKey()
    keys = ApiKeys(store, clock=clock)
    for number in range(10_001):
        await keys.authenticate(Credentials(f"Bearer sk-{number}"))
    await keys.authenticate(Credentials("Bearer sk-10000"))
    assert 10_001 == store.reads
    await keys.authenticate(Credentials("Bearer sk-0"))
    assert 10_002 == store.reads


async def test_the_store_is_unavailable(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """While the store is unavailable no key is reported invalid, and cached keys stay valid for their half second."""
    _, secret = store.create()
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    store.away = True
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.5
    for value in (secret, "sk-unknown"):
        with pytest.raises(StoreUnavailable):
            await keys.authenticate(Credentials(f"Bearer {value}"))
    store.away = False
    await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_previous_secret(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """The secret before a rotation is valid until its time; the new one stays valid."""
    key, secret = store.create()
    new = replace(key, digest=hashlib.sha256(b"sk-new").digest())
    store.keys = [replace(new, previous_digest=key.digest, previous_expires=1_700_000_010)]
    clock.now += 9.9
    for value in (secret, "sk-new"):
        assert key.id == (await keys.authenticate(Credentials(f"Bearer {value}"))).key_id
    clock.now += 0.1
    assert key.id == (await keys.authenticate(Credentials("Bearer sk-new"))).key_id
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


class TestRunningCalls:
    """The check of running calls, whose credentials may have lost their access since they began."""

    @pytest.fixture
    def checker(self, store: FakeKeyStore, clock: Clock) -> AccessChecker:
        """The checker under test."""
        return AccessChecker(store, Callers(), clock)

    async def test_calls_with_access_go_on(self, checker: AccessChecker, store: FakeKeyStore) -> None:
        """Valid keys, and callers with other credentials, keep their access; each kind is read in one query."""
        secrets = [store.create()[1] for _ in range(3)]
        running = {Credentials(f"Bearer {secret}"): Caller("acme", "k") for secret in (*secrets, "eyJ.token")}
        assert {} == await checker.find_revoked(running)
        assert 2 == store.reads

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"revoked": 1}, AccessRevoked),
            ({"expires": 1_700_000_000}, AccessRevoked),
            ({"digest": b"new"}, AccessRevoked),
            ({"account": Account("acme", "pro", suspended=1)}, AccountSuspended),
            ({"account": Account("acme", "free")}, PlanRequired),
        ],
    )
    async def test_lost_access(
        self, checker: AccessChecker, store: FakeKeyStore, change: dict[str, Any], error: type[Exception]
    ) -> None:
        """A revoked, expired or rotated key, and one whose account has no access, are found; other keys are not."""
        (key, secret), (_, other) = store.create(), store.create()
        store.change(key, **change)
        running = {Credentials(f"Bearer {one}"): Caller("acme", "k") for one in (secret, other)}
        found = await checker.find_revoked(running)
        assert {Credentials(f"Bearer {secret}"): error} == {one: type(reason) for one, reason in found.items()}

    async def test_a_suspended_account_without_keys(self, checker: AccessChecker, store: FakeKeyStore) -> None:
        """A caller with other credentials than a key loses access by the suspension of its account."""
        store.create()
        store.keys = [replace(store.keys[0], account=Account("acme", "pro", suspended=1))]
        running = {Credentials(token): Caller(name, "k") for token, name in (("Bearer eyJ", "acme"), ("Bearer x", "b"))}
        assert [Credentials("Bearer eyJ")] == list(await checker.find_revoked(running))
