"""Contract of turns: leases, order and fencing."""

import asyncio

import pytest

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound, TurnLost
from parley.core.ports import Store, Turn, TurnEnd
from parley.v1.message_pb2 import Message, Usage
from tests.contract.stores.making import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    end_incomplete,
    hold,
    message,
    settlement,
    texts,
)


class TurnContract:
    """Contract of turns: leases, history and fencing."""

    async def test_first_turn_has_no_history(self, store: Store) -> None:
        """A new session starts with turn 1 and an empty history."""
        turn = await begin(store, "s", "hi", new=True)
        assert ("s", 1, []) == (turn.session_id, turn.number, turn.history)

    async def test_history_is_completed_turns(self, store: Store) -> None:
        """A turn gets the messages of the preceding completed turns, oldest first, without its own."""
        await converse(store, "s", "my name is Ada", "hello Ada", new=True)
        await converse(store, "s", "I am 36", "noted")
        turn = await begin(store, "s", "who am I?")
        assert ["my name is Ada", "hello Ada", "I am 36", "noted"] == texts(turn.history)
        assert ["user", "assistant", "user", "assistant"] == [one.role for one in turn.history]
        assert 3 == turn.number

    async def test_another_worker_continues(self, store: Store, second: Store) -> None:
        """A turn at one worker gets the completed turns of another."""
        for number in range(1, 21):
            here, there = (store, second) if number % 2 else (second, store)
            await converse(here, "s", f"q{number}", f"a{number}", new=number == 1)
            found, _ = await there.list_messages("ada", "s", page_size=1000, page_token=None)
            assert (2 * number, f"a{number}") == (len(found), found[-1].message.content.string_value)

    async def test_all_fields_of_messages_are_stored(self, store: Store) -> None:
        """Every field of a message is preserved, including fields unknown to this version."""
        rich = message("assistant", "π \0 é")
        rich.tool_calls.add(id="call_1", type="function").function.name = "look"
        rich.content.list_value.values.add().struct_value["type"] = "text"
        strange = Message.FromString(rich.SerializeToString() + b"\xfa\x3e\x03new")
        turn = await begin(store, "s", "look", new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[strange]))
        assert strange == (await begin(store, "s", "and?")).history[1]

    async def test_no_messages_at_all(self, store: Store) -> None:
        """A turn may have no messages and no answer."""
        turn = await begin(store, "s", new=True)
        await complete(store, turn)
        assert [] == (await begin(store, "s", "hi")).history

    async def test_a_second_turn_is_rejected(self, store: Store, second: Store) -> None:
        """While a turn is in progress, a second turn is rejected at any worker without a change."""
        turn = await begin(store, "s", "one", new=True)
        for other in (store, second):
            with pytest.raises(SessionBusy):
                await begin(other, "s", "two")
        await complete(store, turn, "done")
        assert [("one", 1, "completed", None), ("done", 1, "completed", None)] == await all_messages(store, "s")
        assert 2 == (await begin(second, "s", "two")).number

    async def test_a_rejected_turn_has_the_remaining_time_of_the_lease(
        self, store: Store, second: Store, clock: Clock
    ) -> None:
        """The delay of a rejected turn ends with the lease, which may be that of a crashed worker."""
        await begin(store, "s", "one", new=True)
        clock.advance(LEASE - 2.5)
        for attempt in (begin(second, "s", "two"), second.delete_session("ada", "s")):
            with pytest.raises(SessionBusy) as rejected:
                await attempt
            assert pytest.approx(2.5) == rejected.value.retry_after
        clock.advance(2.5)
        assert 2 == (await begin(second, "s", "two")).number

    async def test_racing_turns(self, store: Store, second: Store) -> None:
        """Of many concurrent turns of a session exactly one begins."""
        await converse(store, "s", "hi", "ho", new=True)
        stores = [store, second] * 25
        results = await asyncio.gather(*[begin(one, "s", "me!") for one in stores], return_exceptions=True)
        assert [2] == [turn.number for turn in results if isinstance(turn, Turn)]
        assert 49 == sum(isinstance(result, SessionBusy) for result in results)

    async def test_unknown_session(self, store: Store) -> None:
        """An unknown session cannot be continued, and the attempt does not create it."""
        with pytest.raises(SessionNotFound):
            await begin(store, "s", "hi")
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")

    async def test_foreign_session_is_unknown(self, store: Store) -> None:
        """A session of another account is treated as unknown, busy or not."""
        turn = await begin(store, "s", "secret", new=True)
        with pytest.raises(SessionNotFound):
            await begin(store, "s", "hi", account="bob")
        await complete(store, turn)
        with pytest.raises(SessionNotFound) as rejected:
            await begin(store, "s", "hi", account="bob")
        with pytest.raises(SessionNotFound) as missing:
            await begin(store, "t", "hi", account="bob")
        assert str(missing.value).replace('"t"', '"s"') == str(rejected.value)

    async def test_session_of_another_model(self, store: Store) -> None:
        """A session belongs to its first model; the error for another model names it."""
        turn = await begin(store, "s", "hi", new=True)
        await complete(store, turn)
        with pytest.raises(InvalidRequest, match=r'belongs to the model "m"; name that model') as rejected:
            await begin(store, "s", "hi", model="other")
        assert "model" == rejected.value.param
        assert 1 == (await store.get_session("ada", "s")).turn_count

    async def test_abandoned_turn(self, store: Store) -> None:
        """An incomplete turn is readable with its reason, and not part of the history."""
        turn = await begin(store, "s", "one", new=True)
        await end_incomplete(store, turn, "cancelled", "half an")
        expected = [("one", 1, "incomplete", "cancelled"), ("half an", 1, "incomplete", "cancelled")]
        assert expected == await all_messages(store, "s")
        following = await begin(store, "s", "two")
        assert (2, []) == (following.number, following.history)

    async def test_in_progress_is_readable(self, store: Store, second: Store) -> None:
        """The messages of a turn are stored when it begins."""
        await begin(store, "s", "one", "two", new=True)
        expected = [("one", 1, "in_progress", None), ("two", 1, "in_progress", None)]
        assert expected == await all_messages(second, "s")

    async def test_crashed_turn(self, store: Store, second: Store, clock: Clock) -> None:
        """After its lease expires, the turn of a crashed worker is marked and a new one can begin."""
        await converse(store, "s", "one", "first", new=True)
        await begin(store, "s", "two")
        clock.advance(LEASE - 0.01)
        with pytest.raises(SessionBusy):
            await begin(second, "s", "three")
        clock.advance(0.01)
        turn = await begin(second, "s", "three")
        assert (3, ["one", "first"]) == (turn.number, texts(turn.history))
        states = [(text, state, reason) for text, _, state, reason in await all_messages(store, "s")]
        assert ("two", "incomplete", "crashed") == states[2]
        assert ("three", "in_progress", None) == states[3]

    async def test_late_worker_cannot_write(self, store: Store, second: Store, clock: Clock) -> None:
        """A worker that slept past its lease cannot end its turn once another turn has begun."""
        late = await begin(store, "s", "one", new=True)
        clock.advance(LEASE)
        turn = await begin(second, "s", "two")
        with pytest.raises(TurnLost):
            await complete(store, late, "too late")
        with pytest.raises(TurnLost):
            await end_incomplete(store, late, "failed", "too late")
        await complete(second, turn, "in time")
        with pytest.raises(TurnLost):
            await complete(store, late, "too late")
        expected = [("one", "incomplete"), ("two", "completed"), ("in time", "completed")]
        assert expected == [(text, state) for text, _, state, _ in await all_messages(store, "s")]

    async def test_late_end_without_another_turn(self, store: Store, clock: Clock) -> None:
        """A worker that slept past its lease can end its turn if no other turn has begun."""
        turn = await begin(store, "s", "one", new=True)
        clock.advance(10 * LEASE)
        await complete(store, turn, "done")
        assert ["one", "done"] == texts((await begin(store, "s", "two")).history)

    async def test_turn_ends_once(self, store: Store) -> None:
        """A turn that has ended cannot end again."""
        turn = await begin(store, "s", "one", new=True)
        await complete(store, turn, "done")
        with pytest.raises(TurnLost):
            await complete(store, turn, "again")
        with pytest.raises(TurnLost):
            await end_incomplete(store, turn, "failed")
        assert 2 == len(await all_messages(store, "s"))

    async def test_renewed_lease(self, store: Store, second: Store, clock: Clock) -> None:
        """A renewed lease counts from its renewal."""
        turns = [await begin(store, session, "one", new=True) for session in ("s", "t")]
        clock.advance(LEASE - 1)
        await store.renew_leases(turns, [], LEASE)
        clock.advance(LEASE - 1)
        for session in ("s", "t"):
            with pytest.raises(SessionBusy):
                await begin(second, session, "two")
        clock.advance(1)
        assert 2 == (await begin(second, "s", "two")).number

    async def test_renewing_lost_leases(self, store: Store, second: Store, clock: Clock) -> None:
        """A renewal does not change the lease of another worker, or ended turns."""
        lost = await begin(store, "s", "one", new=True)
        ended = await begin(store, "t", "one", new=True)
        await complete(store, ended)
        clock.advance(LEASE)
        await begin(second, "s", "two")
        await store.renew_leases([lost, ended], [], 100 * LEASE)
        await store.renew_leases([], [], LEASE)
        assert 2 == (await begin(store, "t", "two")).number
        clock.advance(LEASE)
        assert 3 == (await begin(store, "s", "three")).number

    async def test_the_end_settles_limits(self, store: Store, second: Store, clock: Clock) -> None:
        """The end of a turn settles its charges, completed or not; a lost turn settles nothing."""
        both = charge(50), charge(50, subject="account:a")
        await hold(store, *both)
        turn = await begin(store, "s", "one", new=True)
        await store.end_turn(turn, TurnEnd("completed", settlement=settlement((both[0], 10), (both[1], 55))))
        assert (50, 5) == (await second.reserve([charge(0), charge(0, subject="account:a")])).remaining
        turn = await begin(store, "s", "two")
        await store.end_turn(turn, TurnEnd("incomplete", "failed", settlement=settlement((charge(0), 20))))
        assert (30,) == (await second.reserve([charge(0)])).remaining
        with pytest.raises(TurnLost):
            await store.end_turn(turn, TurnEnd("completed", settlement=settlement((charge(0), 20))))
        assert (30,) == (await second.reserve([charge(0)])).remaining

    async def test_metadata_and_usage_are_stored(self, store: Store) -> None:
        """Every message of a turn has the metadata; the answer has the usage."""
        usage = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
        usage.prompt_tokens_details.cached_tokens = 3
        labels = {"team": "π \0", "": "empty"}
        turn = await begin(store, "s", message("system", "be kind"), "q1", new=True, metadata=labels)
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a1")], usage=usage))
        turn = await begin(store, "s", "q2")
        await store.end_turn(turn, TurnEnd("incomplete", "cancelled", [message("assistant", "a2")], Usage()))
        await converse(store, "s", "q3", "a3")
        found, _ = await store.list_messages("ada", "s", page_size=100, page_token=None)
        assert [labels] * 3 + [{}] * 4 == [dict(one.metadata) for one in found]
        costs = [one.usage if one.HasField("usage") else None for one in found]
        assert [None, None, usage, None, Usage(), None, None] == costs

    async def test_metadata_of_a_running_turn(self, store: Store) -> None:
        """The metadata of a turn is readable as soon as it begins."""
        await begin(store, "s", "q", new=True, metadata={"team": "blue"})
        found, _ = await store.list_messages("ada", "s", page_size=1, page_token=None)
        assert {"team": "blue"} == dict(found[0].metadata)

    async def test_a_turn_object_is_independent_of_the_store(self, store: Store) -> None:
        """Changing the messages of a turn object does not change the session."""
        question = message("user", "one")
        turn = await begin(store, "s", question, new=True)
        await complete(store, turn, "first")
        following = await begin(store, "s", "two")
        following.history[0].content.string_value = following.messages[0].content.string_value = "changed"
        await complete(store, following, "second")
        assert ["one", "first", "two", "second"] == [text for text, *_ in await all_messages(store, "s")]
