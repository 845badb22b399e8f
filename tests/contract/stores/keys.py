"""Contract of API keys, accounts and the audit log."""

from dataclasses import replace
from typing import Any

import pytest

from parley.config import Limits
from parley.core.administration import Accounts, AccountSettings, Keys, KeySettings, LimitChange
from parley.core.errors import InvalidRequest, KeyRevoked
from parley.core.ports import Account, ApiKey, AuditEvent, AuditFilter, Store
from tests.contract.stores.making import Clock, key
from tests.keys import ORIGIN, event, rules

NOW = 1_700_000_000
CHANGED: dict[str, Any] = {
    "name": "other",
    "models": ("m3",),
    "scopes": ("chat", "models"),
    "limits": Limits(requests_per_minute=5),
    "expires": 1_800_000_000,
    "revoked": 1_700_000_100,
    "digest": bytes([9]) * 32,
    "previous_digest": bytes([1]) * 32,
    "previous_expires": 1_700_000_200,
}


async def _events(store: Store, chosen: AuditFilter | None = None) -> list[AuditEvent]:
    """Returns the audit log, read in pages of two, the oldest event first."""
    found: list[AuditEvent] = []
    token: str | None = None
    while True:
        page, token = await store.list_audit_events(chosen or AuditFilter(), page_size=2, page_token=token)
        found += page
        if token is None:
            return found[::-1]


class KeyContract:
    """Contract of API keys, accounts and the audit log."""

    async def test_all_fields_of_a_key_are_stored(self, store: Store, second: Store) -> None:
        """Every worker finds a key by its digest, with all fields."""
        await store.add_key(key(1, expires=1_800_000_000), event)
        assert key(1, expires=1_800_000_000) == await second.find_key(bytes([1]) * 32)
        assert key(1, expires=1_800_000_000) == await second.get_key("key_1")
        assert None is await second.find_key(bytes([2]) * 32)
        assert None is await second.get_key("key_2")

    async def test_keys_are_listed(self, store: Store) -> None:
        """Keys are listed in pages, oldest first, those of one second in order of creation."""
        made = [key(5), key(3, account="bob"), key(4)]
        for one in made:
            await store.add_key(one, event)
        first, token = await store.list_keys(page_size=2)
        rest, end = await store.list_keys(page_size=2, page_token=token)
        assert (made, None) == (first + rest, end)
        assert (made[1:2], None) == await store.list_keys("bob", page_size=1)
        assert ([], None) == await store.list_keys("bob\0", page_size=1)
        with pytest.raises(InvalidRequest):
            await store.list_keys(page_size=2, page_token="x")

    async def test_the_plan_belongs_to_the_account(self, store: Store) -> None:
        """The first key of an account sets its plan; later keys do not change it."""
        added = [
            await store.add_key(key(1, plan="free"), event),
            await store.add_key(key(2, plan="pro"), event),
            await store.add_key(key(3, plan="pro", account="bob"), event),
        ]
        assert ["free", "free", "pro"] == [one.account.plan for one in added]
        assert added == (await store.list_keys(page_size=9))[0]

    async def test_every_field_of_a_key_is_changed(self, store: Store, second: Store) -> None:
        """A changed key has all its new values in every worker, and is found by both digests; other keys stay."""
        await store.add_key(key(1), event)
        await store.add_key(key(2), event)
        changed = await store.update_key("key_1", lambda old: replace(old, **CHANGED), event)
        assert replace(key(1), **CHANGED) == changed
        for digest in (CHANGED["digest"], CHANGED["previous_digest"]):
            assert changed == await second.find_key(digest)
        assert [changed, key(2)] == (await second.list_keys(page_size=9))[0]
        for unknown in ("key_9", "key_1\0"):
            assert None is await store.get_key(unknown)
            assert None is await store.update_key(unknown, lambda old: old, event)

    async def test_an_account_without_keys(self, store: Store, second: Store) -> None:
        """An account is added once, and found with its fields; a later one of the same name changes nothing."""
        assert None is await second.find_account("https://login.example.com#ada")
        account = Account("https://login.example.com#ada", "pro", Limits(requests_per_minute=5))
        assert (account, True) == await store.add_account(account, event)
        assert (account, False) == await second.add_account(Account(account.name, "free", suspended=1), event)
        assert account == await second.find_account(account.name)
        assert 1 == len(await _events(store))

    async def test_a_refused_change_changes_nothing(self, store: Store) -> None:
        """An error of the change leaves the key and the audit log as they are."""
        await store.add_key(key(1), event)

        def refuse(_: ApiKey) -> ApiKey:
            raise KeyRevoked("key_1")

        with pytest.raises(KeyRevoked):
            await store.update_key("key_1", refuse, event)
        assert [key(1)] == (await store.list_keys(page_size=9))[0]
        assert 1 == len(await _events(store))

    async def test_accounts_are_changed(self, store: Store, second: Store) -> None:
        """A changed account applies to all its keys and to no other; an unknown one is reported."""
        await store.add_key(key(1), event)
        await store.add_key(key(2, account="bob"), event)
        new = Account("ada", "free", Limits(tokens_per_minute=7), 1_700_000_300)
        assert new == await store.update_account("ada", lambda old: replace(old, **_fields(new)), event)
        assert [new, Account("bob", "pro")] == [one.account for one in (await second.list_keys(page_size=9))[0]]
        for unknown in ("eve", "ada\0"):
            assert None is await store.find_account(unknown)
            assert None is await store.update_account(unknown, lambda old: old, event)

    async def test_accounts_are_listed(self, store: Store) -> None:
        """Accounts are added once, and listed in pages in the order of their names."""
        made = [Account(name, "pro", Limits(requests_per_minute=1)) for name in ("bob", "ada", "eve")]
        assert [(one, True) for one in made] == [await store.add_account(one, event) for one in made]
        first, token = await store.list_accounts(page_size=2)
        rest, end = await store.list_accounts(page_size=2, page_token=token)
        assert ([made[1], made[0], made[2]], None) == (first + rest, end)
        assert 3 == len(await _events(store))

    async def test_several_are_read_at_once(self, store: Store) -> None:
        """Keys are found by present and previous digests, and accounts by names; unknown ones are left out."""
        await store.add_key(replace(key(1), previous_digest=bytes([7]) * 32), event)
        await store.add_key(key(2, account="bob"), event)
        await store.add_key(key(3), event)
        found = await store.find_keys([bytes([number]) * 32 for number in (7, 2, 9)])
        assert ["key_1", "key_2"] == sorted(one.id for one in found)
        assert ["ada", "bob"] == sorted(one.name for one in await store.find_accounts(["bob", "ada", "eve"]))

    async def test_every_change_is_in_the_audit_log(self, store: Store, second: Store, clock: Clock) -> None:
        """Each change adds one event with its origin and the values before and after, without secrets."""
        keys, accounts = Keys(store, rules(["m1"]), clock), Accounts(store, rules(), clock)
        made, secret = await keys.create(KeySettings("ada", "acme", models=["m1"], scopes=["chat"]), ORIGIN)
        await keys.update(made.id, {"name": "eve", "limits": LimitChange({"requests_per_minute": 5.0})}, ORIGIN)
        rotated, new_secret = await keys.rotate(made.id, 60, ORIGIN)
        await keys.revoke(made.id, ORIGIN)
        await keys.revoke(made.id, ORIGIN)
        await accounts.create(AccountSettings("bob", "free"), ORIGIN)
        await accounts.update("bob", ORIGIN, plan="pro", limits=LimitChange({"tokens_per_minute": 9}))
        await accounts.suspend("bob", ORIGIN)
        await accounts.resume("bob", ORIGIN)
        subject, limits = f"key:{made.id}", {"requests_per_minute": 5}
        created = {"name": (None, "ada"), "account": (None, "acme"), "models": (None, ["m1"])}
        expected = [
            ("CreateKey", subject, {**created, "scopes": (None, ["chat"]), "plan": (None, "pro")}),
            ("UpdateKey", subject, {"name": ("ada", "eve"), "limits": (None, limits)}),
            ("RotateKey", subject, {"previous_expires": (None, NOW + 60)}),
            ("RevokeKey", subject, {"revoked": (None, NOW)}),
            ("RevokeKey", subject, {}),
            ("CreateAccount", "account:bob", {"plan": (None, "free")}),
            ("UpdateAccount", "account:bob", {"plan": ("free", "pro"), "limits": (None, {"tokens_per_minute": 9})}),
            ("SuspendAccount", "account:bob", {"suspended": (None, NOW)}),
            ("ResumeAccount", "account:bob", {"suspended": (NOW, None)}),
        ]
        events = await _events(second)
        assert expected == [(one.method, one.subject, one.changes) for one in events]
        assert {(NOW, ORIGIN.actor, ORIGIN.source)} == {(one.time, one.actor, one.source) for one in events}
        for hidden in (secret, new_secret, made.digest.hex(), rotated.digest.hex(), str(made.digest)):
            assert hidden not in str(events)

    async def test_the_audit_log_is_filtered(self, store: Store, clock: Clock) -> None:
        """Events are selected by subject and by time, inclusive."""
        accounts = Accounts(store, rules(), clock)
        for name in ("ada", "bob"):
            await accounts.create(AccountSettings(name), ORIGIN)
            clock.advance(10)
        await accounts.suspend("ada", ORIGIN)
        methods = [
            [one.method for one in await _events(store, chosen)]
            for chosen in (AuditFilter(subject="account:ada"), AuditFilter(since=NOW + 10), AuditFilter(NOW + 21))
        ]
        assert [["CreateAccount", "SuspendAccount"], ["CreateAccount", "SuspendAccount"], []] == methods
        assert ([], None) == await store.list_audit_events(AuditFilter(subject="\0"), page_size=1, page_token=None)
        with pytest.raises(InvalidRequest):
            await store.list_audit_events(AuditFilter(), page_size=1, page_token="x")


def _fields(account: Account) -> dict[str, Any]:
    return {"plan": account.plan, "limits": account.limits, "suspended": account.suspended}
