"""The end of a turn: the stored answer and reply, and the settlement of limits."""

import asyncio

import pytest

from parley.core.errors import StoreUnavailable, TurnLost
from parley.core.ports import Charge, Settlement
from parley.core.sessions.call_lease import CallLease
from parley.core.usage.admission import Admission
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.message_pb2 import Usage
from tests.unit.sessions.recording_store import RecordingStore, begin_turn, cancel_during_write, claim_key, new_turns


async def test_a_commit_continues_after_cancellation(store: RecordingStore) -> None:
    """A commit continues after the cancellation of its call, and `close` waits for it."""
    turns = new_turns(store)
    lease = await begin_turn(turns, "a")
    store.gate.clear()
    await cancel_during_write(asyncio.create_task(turns.commit(lease, ChatCompletion())))
    store.gate.set()
    await turns.close()
    assert [("completed", "a", None)] == store.log


async def test_a_turn_that_is_lost_after_a_cancellation_releases_its_key(store: RecordingStore) -> None:
    """The end of a commit is handled also if its call was cancelled meanwhile."""
    turns = new_turns(store)
    lease = await begin_turn(turns, "a", await claim_key(turns))
    store.errors["end"] = [TurnLost()]
    store.gate.clear()
    await cancel_during_write(asyncio.create_task(turns.commit(lease, ChatCompletion())))
    assert 1 == turns.held, "its lease is renewed until the write has ended"
    store.gate.set()
    await turns.close()
    assert (("released", "k"), 1, 0) == (store.log[-1], turns.leases_lost, turns.held)


async def test_turn_and_key_end_together(store: RecordingStore) -> None:
    """The message, the usage and the reply of the key are stored in one write."""
    turns = new_turns(store)
    lease = await begin_turn(turns, "a", await claim_key(turns))
    answer = ChatCompletion(id="x", usage=Usage(total_tokens=5))
    answer.choices.add().message.content.string_value = "Hello"
    answer.choices[0].message.role = "assistant"
    await turns.commit(lease, answer)
    (end,) = store.ends
    assert ([answer.choices[0].message], answer.usage) == (end.answer, end.usage)
    assert (lease.claim, answer) == (end.claim, ChatCompletion.FromString(end.reply))


async def test_without_a_key_no_reply_is_stored(store: RecordingStore) -> None:
    """A call without an idempotency key stores no reply."""
    turns = new_turns(store)
    await turns.commit(await begin_turn(turns, "a"), ChatCompletion(id="x"))
    assert (None, b"") == (store.ends[0].claim, store.ends[0].reply)


@pytest.mark.parametrize(("is_complete", "expected"), [(True, "kept"), (False, "released")])
async def test_a_key_ends_without_a_turn(store: RecordingStore, is_complete: bool, expected: str) -> None:
    """Without a session, the reply of a complete call is stored, and the key of an incomplete call is released."""
    turns = new_turns(store)
    lease = await claim_key(turns)
    if is_complete:
        await turns.commit(lease, ChatCompletion())
    else:
        turns.abandon(lease, "failed", None)
    await turns.close()
    assert (expected, "k") == store.log[-1]


async def test_a_call_without_turn_and_key_writes_nothing(store: RecordingStore) -> None:
    """A call without a turn and a key writes nothing."""
    turns = new_turns(store)
    await turns.commit(CallLease(), ChatCompletion())
    turns.abandon(CallLease(), "failed", None)
    await turns.close()
    assert [] == store.log


async def test_a_lost_turn_releases_its_key(store: RecordingStore) -> None:
    """A lost turn raises TurnLost and releases the key, so that the call can be repeated with it."""
    turns = new_turns(store)
    for end in ("commit", "abandon"):
        store.log.clear()
        store.errors["end"] = [TurnLost()]
        lease = await begin_turn(turns, "a", await claim_key(turns))
        if end == "commit":
            with pytest.raises(TurnLost):
                await turns.commit(lease, ChatCompletion())
        else:
            turns.abandon(lease, "failed", None)
        await turns.close()
        assert ("released", "k") == store.log[-1]


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_a_failed_call_waits_for_the_release(store: RecordingStore, is_awaited: bool) -> None:
    """With `wait`, `fail` returns after the session and the key are released; otherwise it returns immediately."""
    turns = new_turns(store)
    lease = await begin_turn(turns, "a", await claim_key(turns))
    store.gate.clear()
    failing = asyncio.create_task(turns.fail(lease, "failed", None, wait=is_awaited))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (not is_awaited, []) == (failing.done(), store.ends)
    store.gate.set()
    await failing
    assert is_awaited == (("incomplete", "a", "failed") in store.log)
    await turns.close()


async def test_a_hanging_store_does_not_block_the_caller(store: RecordingStore) -> None:
    """`fail` returns within its timeout while the store hangs, and the turn is ended later."""
    turns = new_turns(store)
    lease = await begin_turn(turns, "a")
    store.gate.clear()
    await turns.fail(lease, "failed", None, wait=True)
    assert [] == store.ends
    store.gate.set()
    await turns.close()
    assert 1 == len(store.ends)


SETTLEMENT = Settlement("call", [Charge("key:1", "tokens", 100, 3, 10)])


def _admitted(settled: list[Settlement]) -> Admission:
    """Returns an admission with ten reserved and three used tokens."""

    def write(settlement: Settlement) -> asyncio.Task[None]:
        settled.append(settlement)
        return asyncio.create_task(asyncio.sleep(0))

    admission = Admission().hold("call", [Charge("key:1", "tokens", 100, 10)], 0, write, lambda _: None)
    admission.record_answer(ChatCompletion(usage=Usage(total_tokens=3)))
    return admission


@pytest.mark.parametrize("is_complete", [True, False])
async def test_the_limits_are_settled_with_the_turn(store: RecordingStore, is_complete: bool) -> None:
    """The limits are settled only in the write that ends the turn, completed or incomplete."""
    turns, settled = new_turns(store), list[Settlement]()
    lease = await begin_turn(turns, "a", CallLease(admission=_admitted(settled)))
    if is_complete:
        await turns.commit(lease, ChatCompletion())
    else:
        turns.abandon(lease, "failed", None)
        await turns.close()
    assert lease.admission.settle() is None
    assert (SETTLEMENT, []) == (store.ends[0].settlement, settled)


async def test_without_a_turn_the_admission_settles_the_limits(store: RecordingStore) -> None:
    """Without a turn, the admission settles the limits itself."""
    turns, settled = new_turns(store), list[Settlement]()
    lease = await claim_key(turns)
    lease.admission = _admitted(settled)
    await turns.commit(lease, ChatCompletion())
    lease.admission.settle()
    assert [SETTLEMENT] == settled


async def test_a_lost_turn_still_settles_the_limits(store: RecordingStore) -> None:
    """A lost turn settles the limits in a write of its own."""
    turns = new_turns(store)
    store.errors["end"] = [TurnLost()]
    with pytest.raises(TurnLost):
        await turns.commit(await begin_turn(turns, "a", CallLease(admission=_admitted([]))), ChatCompletion())
    assert [("settled", SETTLEMENT)] == store.log


async def test_an_unavailable_store_at_the_end_affects_no_other_call(store: RecordingStore) -> None:
    """If the store is unavailable at the end, the error is logged and the leases expire."""
    turns = new_turns(store)
    store.errors = {"end": [StoreUnavailable("away")], "end_claim": [StoreUnavailable("away")]}
    turns.abandon(await begin_turn(turns, "a", await claim_key(turns)), "failed", None)
    await turns.close()
    assert [] == store.ends
