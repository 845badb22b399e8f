"""Contract of idempotency keys."""

import asyncio

import pytest

from parley.core.errors import KeyInUse, KeyReused, ReplyDeleted, SessionBusy, SessionNotFound, TurnLost
from parley.core.ports import Claim, Store, TurnEnd
from tests.contract.stores.making import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    message,
    settlement,
)

ONE, OTHER = b"\1" * 32, b"\2" * 32


async def claim(store: Store, digest: bytes = ONE, *, account: str = "ada", method: str = "m", key: str = "k") -> Claim:
    """Claims a free key."""
    got = await store.claim(account, method, key, digest, LEASE)
    assert isinstance(got, Claim)
    return got


async def answer(store: Store, session: str, lease: Claim, reply: bytes, *, new: bool = True) -> None:
    """Completes a turn that stores its reply."""
    turn = await begin(store, session, "q", new=new)
    await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a")], claim=lease, reply=reply))


class ClaimContract:
    """Contract of claims: one call at a time per key, and the same reply for repeated calls."""

    async def test_in_use(self, store: Store, second: Store) -> None:
        """While a call holds a key, no other call of any worker can claim it."""
        lease = await claim(store)
        assert ("ada", "m", "k") == (lease.account, lease.method, lease.key)
        for worker in (store, second):
            with pytest.raises(KeyInUse):
                await claim(worker)

    async def test_racing_claims(self, store: Store, second: Store) -> None:
        """Of many concurrent calls with a key exactly one claims it."""
        results = await asyncio.gather(*[claim(one) for one in [store, second] * 25], return_exceptions=True)
        assert 1 == sum(isinstance(result, Claim) for result in results)
        assert 49 == sum(isinstance(result, KeyInUse) for result in results)

    async def test_replay(self, store: Store, second: Store, clock: Clock) -> None:
        """After the turn is completed, the same request gets the same reply from every worker."""
        await answer(store, "s", await claim(store), b"the \0 reply")
        clock.advance(100 * LEASE)
        for worker in (store, second, store):
            assert b"the \0 reply" == await worker.claim("ada", "m", "k", ONE, LEASE)

    async def test_reused(self, store: Store, clock: Clock) -> None:
        """A different request with the key is rejected: while it is held, after its lease, and after the reply."""
        lease = await claim(store)
        with pytest.raises(KeyReused):
            await claim(store, OTHER)
        clock.advance(LEASE)
        with pytest.raises(KeyReused):
            await claim(store, OTHER)
        await answer(store, "s", lease, b"reply")
        with pytest.raises(KeyReused):
            await claim(store, OTHER)
        assert b"reply" == await store.claim("ada", "m", "k", ONE, LEASE)

    async def test_keys_are_independent(self, store: Store) -> None:
        """Keys of different accounts, methods or texts are independent."""
        await answer(store, "s", await claim(store), b"reply")
        others = [
            await claim(store, OTHER, account="bob"),
            await claim(store, OTHER, method="n"),
            await claim(store, OTHER, key="l"),
        ]
        await store.end_claim(others[0], b"of bob")
        await store.end_claim(others[1], None)
        assert b"reply" == await store.claim("ada", "m", "k", ONE, LEASE)
        assert b"of bob" == await store.claim("bob", "m", "k", OTHER, LEASE)
        with pytest.raises(KeyInUse):
            await claim(store, OTHER, key="l")

    async def test_a_lease_that_ran_out(self, store: Store, second: Store, clock: Clock) -> None:
        """The key of a crashed worker can be claimed again by the same request, with a higher fence."""
        first = await claim(store)
        clock.advance(LEASE - 0.01)
        with pytest.raises(KeyInUse) as rejected:
            await claim(second)
        assert pytest.approx(0.01) == rejected.value.retry_after
        clock.advance(0.01)
        assert (await claim(second)).fence > first.fence

    async def test_late_worker_cannot_write(self, store: Store, second: Store, clock: Clock) -> None:
        """A worker that has lost its key to another can end neither the turn nor the key, and writes nothing."""
        late = await claim(store)
        turn = await begin(store, "s", "q", new=True)
        clock.advance(LEASE)
        lease = await claim(second)
        messages = [message("assistant", "too late")]
        ends = [
            TurnEnd("completed", answer=messages, claim=late, reply=b"late", settlement=settlement((charge(0), 9))),
            TurnEnd("incomplete", "failed", messages, claim=late, settlement=settlement((charge(0), 9))),
        ]
        for end in ends:
            with pytest.raises(TurnLost):
                await store.end_turn(turn, end)
        for reply in (b"late", None):
            with pytest.raises(TurnLost):
                await store.end_claim(late, reply)
        assert [("q", 1, "in_progress", None)] == await all_messages(store, "s")
        assert (60,) == (await store.reserve([charge(0)])).remaining
        await answer(second, "t", lease, b"in time")
        with pytest.raises(TurnLost):
            await store.end_turn(turn, ends[0])
        assert b"in time" == await store.claim("ada", "m", "k", ONE, LEASE)

    async def test_late_end_without_another_turn(self, store: Store, clock: Clock) -> None:
        """A worker that slept past its lease keeps its key if no other call has claimed it."""
        lease = await claim(store)
        clock.advance(10 * LEASE)
        await store.end_claim(lease, b"reply")
        assert b"reply" == await store.claim("ada", "m", "k", ONE, LEASE)

    async def test_lost_turn_keeps_the_key_held(self, store: Store, second: Store, clock: Clock) -> None:
        """A lost turn does not store a reply under its key."""
        turn = await begin(store, "s", "q", new=True)
        clock.advance(LEASE)
        lease = await claim(store)
        await begin(second, "s", "q2")
        with pytest.raises(TurnLost):
            await store.end_turn(turn, TurnEnd("completed", claim=lease, reply=b"reply"))
        with pytest.raises(KeyInUse):
            await claim(store)

    async def test_an_incomplete_turn_releases_the_key(self, store: Store) -> None:
        """An incomplete turn releases its key."""
        turn = await begin(store, "s", "q", new=True)
        lease = await claim(store)
        await store.end_turn(turn, TurnEnd("incomplete", "failed", claim=lease, reply=b"not kept"))
        assert isinstance(await claim(store, OTHER), Claim)

    async def test_a_fence_is_not_reused(self, store: Store, second: Store, clock: Clock) -> None:
        """A worker that has lost its key cannot end it even after it was released and claimed again."""
        late = await claim(store)
        clock.advance(LEASE)
        await second.end_claim(await claim(second), None)
        lease = await claim(second)
        with pytest.raises(TurnLost):
            await store.end_claim(late, b"late")
        with pytest.raises(TurnLost):
            await store.end_claim(late, None)
        await second.end_claim(lease, b"in time")
        assert b"in time" == await store.claim("ada", "m", "k", ONE, LEASE)

    async def test_without_a_session(self, store: Store, second: Store) -> None:
        """A call without a session can store its reply, or release its key."""
        await store.end_claim(await claim(store), None)
        await store.end_claim(await claim(store, OTHER), b"reply")
        assert b"reply" == await second.claim("ada", "m", "k", OTHER, LEASE)

    async def test_a_key_ends_once(self, store: Store) -> None:
        """A key with a stored reply, or a released key, cannot be ended again."""
        answered, freed = await claim(store), await claim(store, key="l")
        await store.end_claim(answered, b"reply")
        await store.end_claim(freed, None)
        for lease in (answered, freed):
            for reply in (b"again", None):
                with pytest.raises(TurnLost):
                    await store.end_claim(lease, reply)
        assert b"reply" == await store.claim("ada", "m", "k", ONE, LEASE)

    async def test_replies_are_deleted_with_their_session(self, store: Store, second: Store) -> None:
        """Deleting a session deletes the replies of its turns and no others; their keys remain used."""
        await answer(store, "s", await claim(store, key="1"), b"1")
        await answer(store, "s", await claim(store, key="2"), b"2", new=False)
        await answer(store, "t", await claim(store, key="3"), b"3")
        await store.end_claim(await claim(store, key="4"), b"4")
        await second.delete_session("ada", "s")
        for gone in "12":
            for worker in (store, second):
                with pytest.raises(ReplyDeleted):
                    await worker.claim("ada", "m", gone, ONE, LEASE)
                with pytest.raises(KeyReused):
                    await worker.claim("ada", "m", gone, OTHER, LEASE)
        for kept in "34":
            assert kept.encode() == await store.claim("ada", "m", kept, ONE, LEASE)

    async def test_keys_of_expired_sessions(self, store: Store, clock: Clock) -> None:
        """Retention deletes the reply with the session, and the key a day after its reply."""
        await answer(store, "s", await claim(store), b"reply")
        clock.advance(60)
        await store.reap(session_age=30, claim_age=3600, limit=10)
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")
        with pytest.raises(ReplyDeleted):
            await store.claim("ada", "m", "k", ONE, LEASE)
        await store.reap(session_age=None, claim_age=30, limit=10)
        await claim(store, OTHER)

    async def test_a_fork_stores_its_reply(self, store: Store, second: Store) -> None:
        """A fork and the reply of its key are stored together; deleting the fork deletes the reply."""
        await answer(store, "s", await claim(store), b"reply")
        made = await store.fork_session("ada", "s", "f", None, await claim(store, key="fork"))
        assert made.SerializeToString() == await second.claim("ada", "m", "fork", ONE, LEASE)
        await store.delete_session("ada", "s")
        assert made.SerializeToString() == await second.claim("ada", "m", "fork", ONE, LEASE)
        await second.delete_session("ada", "f")
        with pytest.raises(ReplyDeleted):
            await store.claim("ada", "m", "fork", ONE, LEASE)

    async def test_a_deletion_stores_its_reply(self, store: Store, second: Store) -> None:
        """A deletion and the reply of its key are stored together."""
        await answer(store, "s", await claim(store), b"reply")
        await store.delete_session("ada", "s", await claim(store, key="delete"), b"deleted")
        assert b"deleted" == await second.claim("ada", "m", "delete", ONE, LEASE)
        with pytest.raises(SessionNotFound):
            await second.get_session("ada", "s")

    async def test_without_the_claim_nothing_is_written(self, store: Store, second: Store, clock: Clock) -> None:
        """A fork or deletion whose key another worker has claimed changes nothing."""
        await answer(store, "s", await claim(store), b"reply")
        late = await claim(store, key="late")
        clock.advance(LEASE)
        lease = await claim(second, key="late")
        with pytest.raises(TurnLost):
            await store.fork_session("ada", "s", "f", None, late)
        with pytest.raises(TurnLost):
            await store.delete_session("ada", "s", late, b"deleted")
        assert 1 == (await store.get_session("ada", "s")).turn_count
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "f")
        assert b"reply" == await store.claim("ada", "m", "k", ONE, LEASE)
        await second.end_claim(lease, b"in time")

    async def test_rejected_writes_do_not_end_the_claim(self, store: Store) -> None:
        """A fork or deletion of an unknown session does not end its claim."""
        lease = await claim(store)
        with pytest.raises(SessionNotFound):
            await store.fork_session("ada", "s", "f", None, lease)
        with pytest.raises(SessionNotFound):
            await store.delete_session("ada", "s", lease, b"deleted")
        await store.end_claim(lease, None)
        await claim(store, OTHER)

    async def test_renewed(self, store: Store, second: Store, clock: Clock) -> None:
        """A renewed lease of a key counts from its renewal, with a turn or alone."""
        turn, lease = await begin(store, "s", "q", new=True), [await claim(store, key=key) for key in "12"]
        clock.advance(LEASE - 1)
        await store.renew_leases([turn], lease[:1], LEASE)
        await store.renew_leases([], lease[1:], LEASE)
        clock.advance(LEASE - 1)
        for key in "12":
            with pytest.raises(KeyInUse):
                await claim(second, key=key)
        with pytest.raises(SessionBusy):
            await begin(second, "s", "q2")
        clock.advance(1)
        for key in "12":
            await claim(second, key=key)

    async def test_renewing_lost_leases(self, store: Store, second: Store, clock: Clock) -> None:
        """A renewal does not change the claim of another worker, or ended claims."""
        lost, answered, freed = [await claim(store, key=key) for key in "123"]
        await store.end_claim(answered, b"reply")
        await store.end_claim(freed, None)
        clock.advance(LEASE)
        await claim(second, key="1")
        await store.renew_leases([], [lost, answered, freed], 100 * LEASE)
        clock.advance(LEASE)
        await claim(store, key="1")
        assert b"reply" == await store.claim("ada", "m", "2", ONE, LEASE)
        await claim(store, OTHER, key="3")
