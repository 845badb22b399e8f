"""Contract of the deletion of sessions that are too large for one transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from parley.core.errors import ReplyDeleted, SessionBusy, SessionNotFound, TurnLost
from parley.core.ports import Caller, Claim, Reaped, SessionFilter, Store, TurnEnd
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.core.session_ids import chosen_key
from parley.core.sessions import account_export, export
from parley.core.sessions.account_import import Counts, import_sessions
from tests.contract.stores.making import LEASE, Clock, all_messages, begin, complete, converse, message

Rows: TypeAlias = Callable[[], int]
"""Counts the remaining messages of deleted sessions."""
HIDDEN = """
SELECT count(*) FROM {0}messages WHERE session_id NOT IN (SELECT id FROM {0}sessions WHERE deleted IS NULL)
"""
"""SQL for that number, with a placeholder for the schema's name and a dot."""
MANY = 5000
"""More messages than two batches remove."""


async def fill(store: Store, session: str = "s", *, claim: Claim | None = None) -> None:
    """Creates a session with many messages in one turn, and one more turn."""
    turn = await begin(store, session, *["q"] * MANY, new=True)
    await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a")], claim=claim, reply=b"reply"))
    await converse(store, session, "q2", "a2")


async def count(store: Store, session: str) -> int:
    """Counts the messages of a session by an export."""
    return sum([1 async for _ in export.messages(store, "ada", session)])


async def purge(store: Store) -> None:
    """Removes all rows of deleted sessions."""
    while await store.purge():
        pass


class DeletionContract:
    """A session is hidden when its deletion is acknowledged; `marking` leaves all of its rows to `purge`."""

    async def test_deleted_immediately(self, store: Store, marking: Store, hidden_rows: Rows) -> None:
        """No method of any worker finds a deleted session, even while all its rows exist."""
        await fill(store)
        await converse(store, "other", "q", "a", new=True)
        await marking.delete_session("ada", "s")
        assert hidden_rows(), "rows to be hidden"
        calls: list[Awaitable[object]] = [
            store.get_session("ada", "s"),
            store.list_messages("ada", "s", page_size=9, page_token=None),
            store.fork_session("ada", "s", "f", None),
            store.fork_session("ada", "s", "f", 1),
            store.delete_session("ada", "s"),
            begin(store, "s", "q3"),
            begin(store, "s", "q3", model="another"),
        ]
        for call in calls:
            with pytest.raises(SessionNotFound):
                await call
        await store.wait_for_release("s", 5)
        page, _ = await store.list_sessions("ada", SessionFilter(), page_size=9, page_token=None)
        assert ["other"] == [one.id for one in page]
        assert Reaped(sessions=1) == await store.reap(session_age=-1, claim_age=3600, limit=9), "the other one alone"

    async def test_an_import_of_a_deleted_session(self, store: Store, marking: Store) -> None:
        """A session whose rows are being removed is not skipped by an import as one that the account has."""
        await converse(store, "s", "q", "a", new=True)
        exported = [line async for line in account_export.lines(store, "ada", SessionFilter())]
        counts, caller = Counts(), Caller("ada", "key")
        for deleted in ("s", chosen_key("ada", "s")):
            await marking.delete_session("ada", deleted)
            if deleted != "s":
                with pytest.raises(SessionBusy):
                    await import_sessions(store, caller, exported, UNLIMITED_STORAGE, counts)
                await purge(store)
            await import_sessions(store, caller, exported, UNLIMITED_STORAGE, counts)
        assert (2, 0) == (counts.imported, counts.skipped)

    async def test_no_page_of_a_deleted_session(self, store: Store, marking: Store) -> None:
        """A deletion between two pages raises SessionNotFound instead of returning an incomplete page."""
        await fill(store)
        _, token = await store.list_messages("ada", "s", page_size=9, page_token=None)
        await marking.delete_session("ada", "s")
        for _ in range(2):
            with pytest.raises(SessionNotFound):
                await store.list_messages("ada", "s", page_size=9, page_token=token)
            await store.purge()

    async def test_readers_meanwhile(self, store: Store, second: Store, hidden_rows: Rows) -> None:
        """A reader during a deletion gets the complete first page, or SessionNotFound."""
        await fill(store)
        deletion = asyncio.create_task(second.delete_session("ada", "s"))
        seen: set[int | str] = set()
        while "gone" not in seen:
            try:
                page, _ = await store.list_messages("ada", "s", page_size=100, page_token=None)
                seen.add(len(page))
            except SessionNotFound:
                seen.add("gone")
        assert {"gone", 100} >= seen
        await deletion
        assert not hidden_rows()

    async def test_turns_meanwhile(self, store: Store, second: Store) -> None:
        """Of a concurrent turn and deletion one is rejected; a rejected deletion removes nothing."""
        for number in range(10):
            session = f"s{number}"
            await converse(store, session, "q", "a", new=True)
            turn, deleted = await asyncio.gather(
                begin(store, session, "q2"), second.delete_session("ada", session), return_exceptions=True
            )
            if isinstance(turn, SessionNotFound):
                assert deleted is None
                continue
            assert not isinstance(turn, BaseException)
            assert isinstance(deleted, SessionBusy)
            assert ["q", "a"] == [one.content.string_value for one in turn.history]
            await complete(store, turn, "a2")
            assert 4 == len(await all_messages(store, session))

    async def test_a_running_turn_loses_nothing(self, store: Store) -> None:
        """A deletion that is rejected because of a running turn removes no message."""
        await fill(store)
        turn = await begin(store, "s", "q3")
        with pytest.raises(SessionBusy):
            await store.delete_session("ada", "s")
        await complete(store, turn, "a3")
        assert MANY + 5 == await count(store, "s")

    async def test_a_worker_that_slept(self, store: Store, marking: Store, clock: Clock) -> None:
        """A turn whose lease expired before the deletion of its session writes nothing, before and after the purge."""
        await fill(store)
        turn = await begin(store, "s", "q3")
        clock.advance(LEASE)
        await marking.delete_session("ada", "s")
        for _ in range(2):
            with pytest.raises(TurnLost):
                await complete(store, turn, "a3")
            await store.renew_leases([turn], [], LEASE)
            await purge(store)

    async def test_stored_replies(self, store: Store, marking: Store) -> None:
        """Replies of a deleted session are no longer returned, and their keys remain used."""
        lease = await store.claim("ada", "m", "k", b"1", LEASE)
        assert isinstance(lease, Claim)
        await fill(store, claim=lease)
        assert b"reply" == await store.claim("ada", "m", "k", b"1", LEASE)
        await marking.delete_session("ada", "s")
        for _ in range(2):
            with pytest.raises(ReplyDeleted):
                await store.claim("ada", "m", "k", b"1", LEASE)
            await purge(store)

    async def test_the_purge(self, store: Store, second: Store, marking: Store, hidden_rows: Rows) -> None:
        """Several concurrent workers remove all rows of deleted sessions and no others."""
        for number in range(4):
            await fill(store, f"s{number}")
        await fill(store, "kept")
        for number in range(4):
            await marking.delete_session("ada", f"s{number}")
        while hidden_rows():
            await asyncio.gather(store.purge(), second.purge(), marking.purge())
        assert not await store.purge()
        assert MANY + 3 == await count(second, "kept")

    async def test_expired_sessions(self, store: Store, clock: Clock, hidden_rows: Rows) -> None:
        """Sessions past their retention are hidden immediately, and the purge removes their rows."""
        await fill(store, "old")
        clock.advance(60)
        await fill(store, "new")
        assert Reaped(sessions=1) == await store.reap(session_age=30, claim_age=3600, limit=9)
        assert Reaped() == await store.reap(session_age=30, claim_age=3600, limit=9)
        with pytest.raises(SessionNotFound):
            await all_messages(store, "old")
        await purge(store)
        assert not hidden_rows()
        assert MANY + 3 == await count(store, "new")

    async def test_forks_keep_their_messages(self, store: Store, marking: Store) -> None:
        """A fork of a deleted session keeps all its messages."""
        await fill(store)
        await store.fork_session("ada", "s", "f", None)
        await marking.delete_session("ada", "s")
        await purge(store)
        assert MANY + 3 == await count(store, "f")
