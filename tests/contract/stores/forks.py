"""Contract of forks."""

import pytest

from parley.core.errors import InvalidRequest, SessionNotFound
from parley.core.ports import Store, TurnEnd, Window
from parley.v1.message_pb2 import Usage
from parley.v1.sessions_pb2 import Session, SessionMessage
from tests.contract.stores.making import (
    Clock,
    all_messages,
    begin,
    complete,
    converse,
    end_incomplete,
    message,
    texts,
)


async def fork(store: Store, session: str = "s", new: str = "f", through: int | None = None) -> Session:
    """Forks a session of the account `ada`."""
    return await store.fork_session("ada", session, new, through)


class ForkContract:
    """Contract of forks: independent copies of completed turns."""

    async def test_fields(self, store: Store, second: Store, clock: Clock) -> None:
        """A fork is a new session of the same account and model, with the id of its origin."""
        await converse(store, "s", "q1", "a1", new=True)
        await converse(store, "s", "q2", "a2")
        clock.advance(60)
        made = await fork(store)
        assert made == await second.get_session("ada", "f")
        assert ("f", "chat.session", "m", "s") == (made.id, made.object, made.model, made.forked_from)
        assert (1_700_000_060, 1_700_000_060, 2) == (made.created, made.updated, made.turn_count)
        assert not (await store.get_session("ada", "s")).HasField("forked_from")

    async def test_all_fields_are_copied(self, store: Store) -> None:
        """Messages keep the numbers, times, metadata and usage of their turns."""
        turn = await begin(store, "s", "q1", new=True, metadata={"team": "π"})
        await store.end_turn(
            turn, TurnEnd("completed", answer=[message("assistant", "a1")], usage=Usage(total_tokens=7))
        )
        await converse(store, "s", "q2", "a2")
        await fork(store)
        assert await self._messages(store, "s") == await self._messages(store, "f")

    async def test_fork_and_origin_are_independent(self, store: Store, second: Store) -> None:
        """New turns of a fork and its origin are independent."""
        await converse(store, "s", "q1", "a1", new=True)
        await fork(store)
        await converse(second, "f", "left", "to the left")
        await converse(store, "s", "right", "to the right")
        assert ["q1", "a1", "left", "to the left"] == texts((await begin(store, "f", "?")).history)
        assert ["q1", "a1", "right", "to the right"] == texts((await begin(store, "s", "?")).history)

    async def test_deleting_one_keeps_the_other(self, store: Store) -> None:
        """A fork remains after its origin is deleted, and the reverse."""
        await converse(store, "s", "q1", "a1", new=True)
        await fork(store, "s", "f")
        await fork(store, "s", "g")
        await store.delete_session("ada", "f")
        assert 2 == len(await all_messages(store, "s"))
        await store.delete_session("ada", "s")
        assert 2 == len(await all_messages(store, "g"))
        assert "s" == (await store.get_session("ada", "g")).forked_from

    async def test_incomplete_turns_are_left_out(self, store: Store) -> None:
        """Only completed turns are copied; the turn count is the last number, and the next turn follows it."""
        await end_incomplete(store, await begin(store, "s", "q1", new=True), "failed", "half")
        await converse(store, "s", "q2", "a2")
        await end_incomplete(store, await begin(store, "s", "q3"), "cancelled")
        assert 2 == (await fork(store)).turn_count
        assert [("q2", 2, "completed", None), ("a2", 2, "completed", None)] == await all_messages(store, "f")
        turn = await begin(store, "f", "q")
        assert (3, ["q2", "a2"]) == (turn.number, texts(turn.history))

    async def test_nothing_completed(self, store: Store) -> None:
        """A fork of a session without completed turns is empty and usable."""
        await end_incomplete(store, await begin(store, "s", "q1", new=True), "failed")
        assert 0 == (await fork(store)).turn_count
        assert 1 == (await begin(store, "f", "q")).number

    async def test_while_a_turn_runs(self, store: Store) -> None:
        """A turn in progress is neither copied nor affected, and the fork is free."""
        await converse(store, "s", "q1", "a1", new=True)
        turn = await begin(store, "s", "q2")
        await fork(store)
        assert 2 == (await begin(store, "f", "other")).number
        await complete(store, turn, "a2")
        assert 2 == len([text for text, *_ in await all_messages(store, "f") if text in {"q1", "a1"}])
        assert 3 == len(await all_messages(store, "f"))

    @pytest.mark.parametrize(("through", "last"), [(1, 1), (2, 1), (3, 3), (4, 3), (None, 3)])
    async def test_through_turn(self, store: Store, through: int | None, last: int) -> None:
        """Only turns up to the given number are copied, which may be that of an incomplete turn."""
        await converse(store, "s", "q1", "a1", new=True)
        await end_incomplete(store, await begin(store, "s", "q2"), "failed")
        await converse(store, "s", "q3", "a3")
        await end_incomplete(store, await begin(store, "s", "q4"), "failed")
        assert last == (await fork(store, through=through)).turn_count
        assert {1, last} == {turn for _, turn, *_ in await all_messages(store, "f")}

    @pytest.mark.parametrize("through", [-1, 0, 2, 2**31, 2**32 - 1])
    async def test_no_such_turn(self, store: Store, through: int) -> None:
        """A turn number that the session does not have is rejected, and no session is created."""
        await converse(store, "s", "q1", "a1", new=True)
        with pytest.raises(InvalidRequest) as rejected:
            await fork(store, through=through)
        assert "through_turn" == rejected.value.param
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "f")

    async def test_foreign_session(self, store: Store) -> None:
        """A session of another account cannot be forked, and a fork is hidden from other accounts."""
        await converse(store, "s", "q1", "a1", new=True)
        for session in ("s", "t"):
            for through in (None, 1, 9):
                with pytest.raises(SessionNotFound):
                    await store.fork_session("bob", session, "f", through)
        await fork(store)
        with pytest.raises(SessionNotFound):
            await store.get_session("bob", "f")

    async def test_fork_of_a_fork(self, store: Store) -> None:
        """A fork can be forked, and names its direct origin."""
        await converse(store, "s", "q1", "a1", new=True)
        await fork(store, "s", "f")
        await converse(store, "f", "q2", "a2")
        assert ("f", 2) == ((made := await fork(store, "f", "g")).forked_from, made.turn_count)
        assert ["q1", "a1", "q2", "a2"] == texts((await begin(store, "g", "?")).history)

    async def test_windows_apply_to_forks(self, store: Store) -> None:
        """Windows apply to forks, including system messages and tool calls."""
        turn = await begin(store, "s", message("system", "be kind"), "q1", new=True)
        await complete(store, turn, "a1")
        await converse(store, "s", "q2", "a2")
        turn = await begin(store, "s", message("tool", "found"))
        await complete(store, turn, "a3")
        await fork(store)
        for most, expected in ((3, ["be kind"]), (4, ["be kind", "q2", "a2", "found", "a3"])):
            turn = await begin(store, "f", "now", window=Window(max_messages=most))
            assert expected == texts(turn.history)
            await end_incomplete(store, turn, "failed")

    async def test_a_resent_history_is_recognized_in_forks(self, store: Store) -> None:
        """A resent history is recognized in a fork."""
        await converse(store, "s", "q1", "a1", new=True)
        await converse(store, "s", "q2", "a2")
        await fork(store, through=1)
        turn = await begin(store, "f", "q1", message("assistant", "a1"), "q3")
        assert (["q3"], ["q1", "a1"]) == (texts(turn.messages), texts(turn.history))

    @staticmethod
    async def _messages(store: Store, session: str) -> list[SessionMessage]:
        found, _ = await store.list_messages("ada", session, page_size=100, page_token=None)
        return found
