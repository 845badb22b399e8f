"""API keys: authentication and its cache, with a fake store and a settable clock."""

import hashlib
from dataclasses import replace

import pytest

from parley.auth.api_keys import ApiKeys
from parley.core.errors import InvalidApiKey, PlanRequired, StoreUnavailable, Unauthenticated
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

    async def add_key(self, key: ApiKey) -> ApiKey:
        """Adds a key."""
        self.keys.append(key)
        return key

    async def find_account(self, name: str) -> Account | None:
        """Finds an account."""
        return next((account for account in await self.list_accounts() if account.name == name), None)

    async def list_accounts(self) -> list[Account]:
        """Lists the accounts."""
        return list({key.account.name: key.account for key in self.keys}.values())

    async def set_plan(self, account: str, plan: str) -> bool:
        """Changes a plan."""
        self.keys = [
            replace(key, account=replace(key.account, plan=plan)) if key.account.name == account else key
            for key in self.keys
        ]
        return await self.find_account(account) is not None

    async def list_keys(self) -> list[ApiKey]:
        """Lists the keys."""
        return list(self.keys)

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """Revokes a key."""
        for index, key in enumerate(self.keys):
            if key.id == key_id:
                self.keys[index] = replace(key, revoked=key.revoked or now)
                return self.keys[index]
        return None


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


async def test_a_created_key_authenticates(keys: ApiKeys) -> None:
    """The secret of a created key authenticates as its account, key id and models."""
    key, secret = await keys.create("ada's", "acme", "pro", ["m1", "m2"])
    expected = Caller("acme", key.id, frozenset({"m1", "m2"}))
    assert expected == await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_the_format_of_a_created_key(keys: ApiKeys, store: FakeKeyStore) -> None:
    """A secret is `sk-` and 32 random bytes; the store gets only its SHA-256; ids are short and unique."""
    key, secret = await keys.create("n", "acme", "pro", expires=1_800_000_000)
    other, other_secret = await keys.create("n", "acme", "pro")
    assert ("sk-", 3 + 43) == (secret[:3], len(secret))
    assert hashlib.sha256(secret.encode()).digest() == key.digest == store.keys[0].digest
    assert secret not in repr(store.keys)
    assert ("n", Account("acme", "pro"), (), 1_700_000_000, 1_800_000_000, None) == (
        *(key.name, key.account, key.models),
        *(key.created, key.expires, key.revoked),
    )
    assert ("key_", 16) == (key.id[:4], len(key.id))
    assert key.id != other.id
    assert secret != other_secret


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
async def test_an_invalid_key(keys: ApiKeys, authorization: str) -> None:
    """Anything but the secret of a key is an invalid key."""
    await keys.create("n", "acme", "pro")
    with pytest.raises(InvalidApiKey, match="Invalid API key"):
        await keys.authenticate(Credentials(authorization))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_case_insensitive(keys: ApiKeys, scheme: str) -> None:
    """The scheme is case-insensitive and may be followed by more than one space."""
    key, secret = await keys.create("n", "acme", "pro")
    assert key.id == (await keys.authenticate(Credentials(f"{scheme} {secret}"))).key_id


async def test_the_secret_is_case_sensitive(keys: ApiKeys) -> None:
    """A secret is case-sensitive."""
    _, secret = await keys.create("n", "acme", "pro")
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer sk-{secret[3:].swapcase()}"))


async def test_a_free_plan_is_rejected(keys: ApiKeys) -> None:
    """Each call with a key of a free account is rejected for its plan."""
    _, secret = await keys.create("n", "acme", "free")
    for _ in range(2):
        with pytest.raises(PlanRequired):
            await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_a_key_expires(keys: ApiKeys, clock: Clock) -> None:
    """A cached key is valid until the second in which it expires."""
    _, secret = await keys.create("n", "acme", "pro", expires=1_700_000_010)
    clock.now += 9.9
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.1
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_an_expired_key_of_a_free_account(keys: ApiKeys) -> None:
    """An expired key is invalid, whatever its plan."""
    _, secret = await keys.create("n", "acme", "free", expires=1_700_000_000)
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_a_revocation_in_this_worker(keys: ApiKeys) -> None:
    """A revocation takes effect immediately in the worker that makes it."""
    key, secret = await keys.create("n", "acme", "pro")
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    revoked = await keys.revoke(key.id)
    assert revoked is not None
    assert 1_700_000_000 == revoked.revoked
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_a_revocation_in_another_worker(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A revocation in another worker takes effect within half a second, under continuous calls."""
    key, secret = await keys.create("n", "acme", "pro")
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    await ApiKeys(store, clock=clock).revoke(key.id)
    for _ in range(3):
        clock.now += 0.125
        await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.125
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_clock_set_back(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A clock that is set back does not keep a revoked key valid."""
    key, secret = await keys.create("n", "acme", "pro")
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    await store.revoke_key(key.id, 1)
    clock.now -= 3600
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_keys_are_cached(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """A key is read once in half a second, however many calls it makes."""
    _, secret = await keys.create("n", "acme", "pro")
    for _ in range(100):
        await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert 1 == store.reads
    clock.now += 0.5
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    assert 2 == store.reads


async def test_unknown_keys_are_not_cached(keys: ApiKeys, store: FakeKeyStore) -> None:
    """Unknown keys are not cached: a key that is created later is valid immediately, and guesses evict no key."""
    _, secret = await keys.create("n", "acme", "pro")
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
    _, secret = await keys.create("n", "acme", "pro")
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    store.away = True
    await keys.authenticate(Credentials(f"Bearer {secret}"))
    clock.now += 0.5
    for value in (secret, "sk-unknown"):
        with pytest.raises(StoreUnavailable):
            await keys.authenticate(Credentials(f"Bearer {value}"))
    store.away = False
    await keys.authenticate(Credentials(f"Bearer {secret}"))


async def test_list_and_revoke(keys: ApiKeys) -> None:
    """Keys are listed in the order of the store; revoking an unknown key returns None."""
    first, _ = await keys.create("n", "acme", "pro")
    second, _ = await keys.create("m", "acme", "pro")
    assert [first, second] == await keys.list()
    assert None is await keys.revoke("key_none")


async def test_previous_secret(keys: ApiKeys, store: FakeKeyStore, clock: Clock) -> None:
    """The secret before a rotation is valid until its time; the new one stays valid."""
    key, secret = await keys.create("n", "acme", "pro")
    new = replace(key, digest=hashlib.sha256(b"sk-new").digest())
    store.keys = [replace(new, previous_digest=key.digest, previous_expires=1_700_000_010)]
    clock.now += 9.9
    for value in (secret, "sk-new"):
        assert key.id == (await keys.authenticate(Credentials(f"Bearer {value}"))).key_id
    clock.now += 0.1
    assert key.id == (await keys.authenticate(Credentials("Bearer sk-new"))).key_id
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(Credentials(f"Bearer {secret}"))
