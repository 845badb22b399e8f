"""Contract of receipts, which are stored with a turn and shown on one of its messages."""

import pytest

from parley.core.errors import TurnLost
from parley.core.ports import Store, TurnEnd
from parley.v1.receipt_pb2 import Receipt
from tests.contract.stores.making import LEASE, Clock, begin, converse, message


def receipt(number: int) -> Receipt:
    """Returns a receipt of a failed and a completed attempt, with a field unknown to this version."""
    made = Receipt(cost=0.00021, duration_ms=number)
    made.attempts.add(model="m", backend="a", kind="first", outcome="failed", reason="UPSTREAM_UNAVAILABLE")
    made.attempts.add(model="m", backend="b", kind="fallback", outcome="completed", started_ms=7, duration_ms=0)
    made.usage.total_tokens = 134
    return Receipt.FromString(made.SerializeToString() + b"\xfa\x3e\x03new")


async def shown(store: Store, session: str = "s", page_size: int = 100) -> list[tuple[str, Receipt | None]]:
    """Returns the text of every message, and its receipt or None."""
    found = []
    token: str | None = None
    while True:
        page, token = await store.list_messages("ada", session, page_size=page_size, page_token=token)
        found += page
        if token is None:
            break
    return [(one.message.content.string_value, one.receipt if one.HasField("receipt") else None) for one in found]


class ReceiptContract:
    """Contract of receipts, which are written at the end of a turn and read with its messages."""

    async def test_on_the_answer(self, store: Store, second: Store) -> None:
        """The answer message has the complete receipt, even if the answer is incomplete."""
        turn = await begin(store, "s", message("system", "be kind"), "q1", new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a1")], receipt=receipt(1)))
        turn = await begin(store, "s", "q2")
        end = TurnEnd("incomplete", "cancelled", [message("assistant", "a2")], receipt=receipt(2))
        await store.end_turn(turn, end)
        expected = [("be kind", None), ("q1", None), ("a1", receipt(1)), ("q2", None), ("a2", receipt(2))]
        assert expected == await shown(second)

    @pytest.mark.parametrize("page_size", [1, 2, 100])
    async def test_without_an_answer(self, store: Store, page_size: int) -> None:
        """Without an answer, the last message of the turn has the receipt, for any page size."""
        turn = await begin(store, "s", "q1", "and", new=True)
        await store.end_turn(turn, TurnEnd("incomplete", "failed", receipt=receipt(1)))
        turn = await begin(store, "s", "q2")
        await store.end_turn(turn, TurnEnd("completed", receipt=receipt(2)))
        await converse(store, "s", "q3", "a3")
        expected = [("q1", None), ("and", receipt(1)), ("q2", receipt(2)), ("q3", None), ("a3", None)]
        assert expected == await shown(store, page_size=page_size)

    async def test_none_and_empty(self, store: Store) -> None:
        """A turn without a receipt has none; an empty receipt is returned."""
        await converse(store, "s", "q1", "a1", new=True)
        turn = await begin(store, "s", "q2")
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a2")], receipt=Receipt()))
        await begin(store, "s", "q3")
        assert [None, None, None, Receipt(), None] == [kept for _, kept in await shown(store)]

    async def test_a_fork_has_receipts(self, store: Store) -> None:
        """A fork contains the receipts of its turns, even after its origin is deleted."""
        turn = await begin(store, "s", "q1", new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a1")], receipt=receipt(1)))
        await store.fork_session("ada", "s", "f", None)
        await store.delete_session("ada", "s")
        assert [("q1", None), ("a1", receipt(1))] == await shown(store, "f")

    async def test_of_a_lost_turn(self, store: Store, second: Store, clock: Clock) -> None:
        """A worker that has lost its turn writes no receipt."""
        late = await begin(store, "s", "q1", new=True)
        clock.advance(LEASE)
        await begin(second, "s", "q2")
        with pytest.raises(TurnLost):
            await store.end_turn(late, TurnEnd("completed", receipt=receipt(1)))
        assert [("q1", None), ("q2", None)] == await shown(store)
