"""Contract of the limits of what is stored."""

import asyncio

import pytest

from parley.core.errors import StorageLimitExceeded
from parley.core.ports import Claim, StorageLimits, Store, TurnEnd, Window
from tests.contract.stores.making import LEASE, Clock, begin, complete, converse, message

SIZE = message("user", "x" * 90).ByteSize()
"""The bytes of each message in these tests."""


def text(role: str = "user") -> str:
    """Returns a text whose message has `SIZE` bytes."""
    return "x" * (90 - len(role) + len("user"))


async def turn(store: Store, session: str, limits: StorageLimits, *, new: bool = False) -> None:
    """Stores a message and an answer of `SIZE` bytes each."""
    begun = await begin(store, session, text(), new=new, storage=limits)
    await complete(store, begun, text("assistant"))


class StorageContract:
    """Contract of the limits of sessions and bytes."""

    async def test_sessions(self, store: Store, second: Store) -> None:
        """Turns and forks create sessions up to the limit; a deletion makes space for another one."""
        limits = StorageLimits(sessions=2)
        await turn(store, "a", limits, new=True)
        await second.fork_session("ada", "a", "b", None, storage=limits)
        with pytest.raises(StorageLimitExceeded, match="may store 2 sessions and has 2"):
            await begin(second, "c", "q", new=True, storage=limits)
        with pytest.raises(StorageLimitExceeded, match="2 sessions"):
            await store.fork_session("ada", "a", "c", None, storage=limits)
        await turn(store, "a", limits)
        await store.delete_session("ada", "b")
        await begin(second, "c", "q", new=True, storage=limits)
        await begin(store, "other", "q", new=True, account="bob", storage=limits)

    async def test_bytes(self, store: Store, second: Store) -> None:
        """Messages, answers and forks count; a turn that does not fit stores nothing."""
        limits = StorageLimits(bytes=5 * SIZE)
        await turn(store, "a", limits, new=True)
        await turn(second, "a", limits)
        with pytest.raises(StorageLimitExceeded, match=f"has {4 * SIZE}, and the request adds {2 * SIZE}"):
            await begin(store, "a", text(), text(), storage=limits)
        with pytest.raises(StorageLimitExceeded, match=f"adds {4 * SIZE}"):
            await store.fork_session("ada", "a", "b", None, storage=limits)
        assert 2 == (await store.get_session("ada", "a")).turn_count
        await turn(store, "b", limits, new=True)
        with pytest.raises(StorageLimitExceeded):
            await begin(second, "a", "q", storage=limits)
        await store.delete_session("ada", "a")
        await turn(second, "b", limits)

    async def test_bytes_of_a_session(self, store: Store) -> None:
        """A session accepts turns up to its limit; its forks have their own."""
        limits = StorageLimits(session_bytes=3 * SIZE)
        with pytest.raises(StorageLimitExceeded, match="begin a new session"):
            await begin(store, "a", *[text()] * 4, new=True, storage=limits)
        await turn(store, "a", limits, new=True)
        await turn(store, "a", limits)
        with pytest.raises(StorageLimitExceeded, match=f"this one has {4 * SIZE}") as rejected:
            await begin(store, "a", "q", storage=limits)
        assert "chatSessionId" == rejected.value.param
        with pytest.raises(StorageLimitExceeded):
            await store.fork_session("ada", "a", "b", None, storage=limits)
        await store.fork_session("ada", "a", "b", 1, storage=limits)
        await begin(store, "b", text(), storage=limits)

    async def test_repeated_messages_do_not_count(self, store: Store) -> None:
        """Of a request that repeats the history only what is new is stored and counts."""
        limits = StorageLimits(bytes=4 * SIZE, session_bytes=4 * SIZE)
        await turn(store, "a", limits, new=True)
        repeated = [message("user", text()), message("assistant", text("assistant")), message("user", text())]
        await complete(store, await begin(store, "a", *repeated, storage=limits), text("assistant"))

    async def test_incomplete_turns_and_system_messages_count(self, store: Store, clock: Clock) -> None:
        """Everything that is stored counts: of failed and crashed turns too, and system messages."""
        limits = StorageLimits(bytes=4 * SIZE)
        system = message("system", text("system"))
        failed = await begin(store, "a", system, new=True, storage=limits)
        await store.end_turn(failed, TurnEnd("incomplete", "failed", [message("assistant", text("assistant"))]))
        await begin(store, "a", text(), storage=limits)
        clock.advance(LEASE)
        await begin(store, "a", text(), storage=limits)
        clock.advance(LEASE)
        with pytest.raises(StorageLimitExceeded):
            await begin(store, "a", "q", storage=limits)

    async def test_a_rejected_fork_keeps_its_key_unused(self, store: Store) -> None:
        """A fork that does not fit does not end the claim of its key."""
        limits = StorageLimits(sessions=1)
        await turn(store, "a", limits, new=True)
        claim = await store.claim("ada", "Fork", "k", b"1", LEASE)
        assert isinstance(claim, Claim)
        with pytest.raises(StorageLimitExceeded):
            await store.fork_session("ada", "a", "b", None, claim, limits)
        await store.delete_session("ada", "a", claim, b"reply")

    async def test_retention_makes_space(self, store: Store, clock: Clock) -> None:
        """Sessions that the reaper deletes no longer count."""
        limits = StorageLimits(sessions=1, bytes=2 * SIZE)
        await turn(store, "a", limits, new=True)
        clock.advance(10)
        await store.reap(session_age=5, claim_age=1e9, limit=9)
        await turn(store, "b", limits, new=True)

    async def test_workers_share_the_space(self, store: Store, second: Store) -> None:
        """Of concurrent turns of several workers as many begin as fit."""
        limits = StorageLimits(sessions=9, bytes=7 * SIZE)
        stores = [store, second] * 10
        begun = [begin(one, f"s{number}", text(), new=True, storage=limits) for number, one in enumerate(stores)]
        done = await asyncio.gather(*begun, return_exceptions=True)
        assert 7 == sum(not isinstance(one, StorageLimitExceeded) for one in done)

    async def test_the_tokens_of_a_history(self, store: Store) -> None:
        """The tokens of the turns within the window, and of all system messages, are added to the next prompt."""
        assert 0 == await store.history_tokens("ada", "a", Window())
        turn = await begin(store, "a", message("system", "s" * 400), "x" * 400, new=True)
        await complete(store, turn, "y" * 800)
        assert 400 <= await store.history_tokens("ada", "a", Window()) <= 420
        await converse(store, "a", "x" * 40, "y" * 40)
        assert 420 <= await store.history_tokens("ada", "a", Window()) <= 450
        for window in (Window(max_messages=2), Window(max_tokens=50)):
            assert 120 <= await store.history_tokens("ada", "a", window) <= 140
        assert 0 == await store.history_tokens("bob", "a", Window())
