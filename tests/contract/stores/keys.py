"""Contract of API keys and accounts."""

from parley.config import Limits
from parley.core.ports import Account, Store
from tests.contract.stores.making import (
    key,
)


class KeyContract:
    """Contract of API keys and accounts."""

    async def test_all_fields_of_a_key_are_stored(self, store: Store, second: Store) -> None:
        """Every worker finds a key by its digest, with all fields."""
        await store.add_key(key(1, expires=1_800_000_000))
        assert key(1, expires=1_800_000_000) == await second.find_key(bytes([1]) * 32)
        assert None is await second.find_key(bytes([2]) * 32)

    async def test_keys_are_listed(self, store: Store) -> None:
        """Keys are listed oldest first, those of one second in order of creation."""
        made = [key(number) for number in (5, 3, 4)]
        for one in made:
            await store.add_key(one)
        assert made == await store.list_keys()

    async def test_the_plan_belongs_to_the_account(self, store: Store) -> None:
        """The first key of an account sets its plan; later keys do not change it."""
        added = [
            await store.add_key(key(1, plan="free")),
            await store.add_key(key(2, plan="pro")),
            await store.add_key(key(3, plan="pro", account="bob")),
        ]
        assert ["free", "free", "pro"] == [one.account.plan for one in added]
        assert added == await store.list_keys()

    async def test_plan_is_changed(self, store: Store, second: Store) -> None:
        """A changed plan applies to all keys of the account and to no other; an unknown account is reported."""
        await store.add_key(key(1, plan="pro"))
        await store.add_key(key(2, plan="pro", account="bob"))
        await store.add_key(key(3, plan="pro"))
        assert await store.set_plan("ada", "free")
        assert not await store.set_plan("nobody", "free")
        assert [Account("ada", "free"), Account("bob", "pro")] == await second.list_accounts()
        assert ["free", "pro", "free"] == [one.account.plan for one in await second.list_keys()]

    async def test_an_account_without_keys(self, store: Store, second: Store) -> None:
        """An account is added once, and found with its fields; a later one of the same name changes nothing."""
        assert None is await second.find_account("https://login.example.com#ada")
        account = Account("https://login.example.com#ada", "pro", Limits(requests_per_minute=5))
        assert account == await store.add_account(account)
        assert account == await second.add_account(Account(account.name, "free", suspended=1))
        assert account == await second.find_account(account.name)

    async def test_revoked_once(self, store: Store, second: Store) -> None:
        """A revoked key remains, with the time of its first revocation."""
        await store.add_key(key(1))
        await store.add_key(key(2))
        revoked = await store.revoke_key("key_1", 1_700_000_100)
        again = await second.revoke_key("key_1", 1_700_000_200)
        assert revoked == again == await second.find_key(bytes([1]) * 32)
        assert [1_700_000_100, None] == [one.revoked for one in await store.list_keys()]

    async def test_unknown_key_is_not_revoked(self, store: Store) -> None:
        """Revoking an unknown key returns None."""
        assert None is await store.revoke_key("key_9", 1)
