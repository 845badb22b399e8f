"""Contract of reading, listing and deleting sessions."""

import asyncio

import pytest

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound, TurnLost
from parley.core.ports import SessionFilter, Store
from tests.contract.stores.making import (
    LEASE,
    Clock,
    all_messages,
    begin,
    complete,
    converse,
    end_incomplete,
    message,
)

# The token [9223372036854775808,1], whose number exceeds 64 bits.
_HUGE = "WzkyMjMzNzIwMzY4NTQ3NzU4MDgsMV0"
# The token [1.5,"a\u0000"], whose text PostgreSQL cannot store.
_ZERO = "WzEuNSwiYVx1MDAwMCJd"


class SessionContract:
    """Contract of reading, listing and deleting sessions."""

    async def test_fields(self, store: Store, clock: Clock) -> None:
        """A session has its model, its creation time, the start of its latest turn and the number of its turns."""
        await converse(store, "s", "one", "first", new=True)
        clock.advance(60)
        turn = await begin(store, "s", "two")
        clock.advance(5)
        await end_incomplete(store, turn, "failed")
        session = await store.get_session("ada", "s")
        assert ("s", "chat.session", "m") == (session.id, session.object, session.model)
        assert (1_700_000_000, 1_700_000_060, 2) == (session.created, session.updated, session.turn_count)

    async def test_foreign_session_is_hidden(self, store: Store) -> None:
        """Another account can neither read, list nor delete a session."""
        await converse(store, "s", "one", "first", new=True)
        with pytest.raises(SessionNotFound):
            await store.get_session("bob", "s")
        with pytest.raises(SessionNotFound):
            await store.list_messages("bob", "s", page_size=10, page_token=None)
        with pytest.raises(SessionNotFound):
            await store.delete_session("bob", "s")
        assert ([], None) == await store.list_sessions("bob", SessionFilter(), page_size=10, page_token=None)
        assert 2 == len(await all_messages(store, "s"))

    async def test_the_latest_messages(self, store: Store) -> None:
        """The latest messages of completed turns are read up to a number and a size, and only by their account."""
        for number in range(3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
        await end_incomplete(store, await begin(store, "s", "lost"), "failed", "partly")

        async def latest(count: int, max_bytes: int = 10_000, account: str = "ada", session: str = "s") -> list[str]:
            found = await store.latest_messages(account, session, count, max_bytes)
            return [one.content.string_value for one in found]

        size = len(message("assistant", "a2").SerializeToString())
        assert ["a1", "q2", "a2"] == await latest(3)
        assert ["q0", "a0", "q1", "a1", "q2", "a2"] == await latest(1000)
        assert (["a2"], []) == (await latest(3, size), await latest(3, size - 1))
        assert [] == await latest(3, account="bob")
        assert [] == await latest(3, session="no\0ne")
        await store.delete_session("ada", "s")
        assert [] == await latest(3)

    async def test_list_pages(self, store: Store, clock: Clock) -> None:
        """Pages continue without gap or repetition, latest turn first, even with equal times."""
        for number in range(7):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(number % 2)
        assert ["s6", "s5", "s4", "s3", "s2", "s1", "s0"] == await self._listed(store, page_size=100)
        for size in (1, 2, 3, 7):
            assert ["s6", "s5", "s4", "s3", "s2", "s1", "s0"] == await self._listed(store, page_size=size)

    async def test_a_turn_moves_a_session_up(self, store: Store, clock: Clock) -> None:
        """A new turn moves its session to the front, and no later page repeats the session."""
        for number in range(4):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(1)
        page, token = await store.list_sessions("ada", SessionFilter(), page_size=2, page_token=None)
        await begin(store, "s3", "again")
        rest, end = await store.list_sessions("ada", SessionFilter(), page_size=2, page_token=token)
        assert (["s3", "s2"], ["s1", "s0"], None) == ([one.id for one in page], [one.id for one in rest], end)
        clock.advance(1)
        await begin(store, "s0", "again")
        assert "s0" == (await self._listed(store, page_size=1))[0]

    async def test_list_by_model(self, store: Store, clock: Clock) -> None:
        """The list can be filtered by models, across pages."""
        for number in range(6):
            turn = await begin(store, f"s{number}", "q", new=True, model=f"m{number % 2}")
            await complete(store, turn)
            clock.advance(1)
        assert ["s5", "s3", "s1"] == await self._listed(store, page_size=2, models={"m1"})
        assert ["s5", "s4", "s3", "s2", "s1", "s0"] == await self._listed(store, page_size=2, models={"m0", "m1", "\0"})
        assert [] == await self._listed(store, page_size=2, models={"m2"})
        assert [] == await self._listed(store, page_size=2, models=set())

    async def test_list_by_the_beginning_of_the_model(self, store: Store, clock: Clock) -> None:
        """A model that ends with `*` selects all that begin with the rest, in which no other character is special."""
        for number, model in enumerate(("a/x", "a/y/z", "ab", "%/x", "é/x", "a/*")):
            await complete(store, await begin(store, f"s{number}", "q", new=True, model=model))
            clock.advance(1)
        for models, expected in (
            ({"a/*"}, "510"),
            ({"a/*", "ab"}, "5210"),
            ({"%/*"}, "3"),
            ({"_*"}, ""),
            ({"é*"}, "4"),
            ({"*"}, "543210"),
            ({"\0*"}, ""),
        ):
            assert [f"s{number}" for number in expected] == await self._listed(store, page_size=2, models=models)

    async def test_list_by_time(self, store: Store, clock: Clock) -> None:
        """The list can be filtered by time, start inclusive and end exclusive, across pages."""
        clock.now = 1_700_000_000
        for number in range(8):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(0.5)
        # Two sessions each second.
        for size in (1, 2, 3, 100):
            spans: dict[tuple[int | None, int | None], str] = {
                (None, None): "76543210",
                (1, None): "765432",
                (None, 3): "543210",
                (1, 3): "5432",
                (1, 1): "",
                (3, 1): "",
                (4, None): "",
                (None, 0): "",
            }
            for (after, before), expected in spans.items():
                oldest, newest = (None if at is None else 1_700_000_000 + at for at in (after, before))
                chosen = SessionFilter(None, oldest, newest)
                assert [f"s{number}" for number in expected] == await self._chosen(store, chosen, size)

    async def test_list_by_the_latest_turn(self, store: Store, clock: Clock) -> None:
        """The filter applies to the time of the latest turn, and all filters can be combined."""
        for number in range(4):
            await complete(store, await begin(store, f"s{number}", "q", new=True, model=f"m{number % 2}"))
        clock.advance(10)
        for number in (1, 2):
            await complete(store, await begin(store, f"s{number}", "again", model=f"m{number % 2}"))
        now = int(clock.now)
        assert ["s2", "s1"] == await self._chosen(store, SessionFilter(updated_after=now), 1)
        assert ["s3", "s0"] == await self._chosen(store, SessionFilter(updated_before=now), 1)
        assert ["s1"] == await self._chosen(store, SessionFilter(frozenset({"m1"}), updated_after=now), 1)
        assert ["s0"] == await self._chosen(store, SessionFilter(frozenset({"m0"}), updated_before=now), 1)

    async def test_a_filter_and_a_token(self, store: Store, clock: Clock) -> None:
        """A page token can be combined with a filter that ends before it."""
        for number in range(6):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(1)
        _, token = await store.list_sessions("ada", SessionFilter(), page_size=1, page_token=None)
        chosen = SessionFilter(updated_after=1_700_000_001, updated_before=1_700_000_003)
        page, _ = await store.list_sessions("ada", chosen, page_size=9, page_token=token)
        assert ["s2", "s1"] == [one.id for one in page]

    async def test_message_pages(self, store: Store) -> None:
        """Pages of messages continue without gap or repetition, oldest first."""
        for number in range(3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
        for size in (1, 2, 4, 6):
            found: list[str] = []
            token = None
            while True:
                page, token = await store.list_messages("ada", "s", page_size=size, page_token=token)
                assert len(page) <= size
                found += [one.message.content.string_value for one in page]
                if token is None:
                    break
            assert ["q0", "a0", "q1", "a1", "q2", "a2"] == found

    async def test_messages_after_a_turn(self, store: Store) -> None:
        """The messages of later turns are read alone, in pages too; a turn that is still to come has none."""
        for number in range(3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)

        async def texts(after: int, token: str | None = None) -> tuple[list[str], str | None]:
            page, more = await store.list_messages("ada", "s", page_size=3, page_token=token, after_turn=after)
            return [one.message.content.string_value for one in page], more

        assert (["a2"], None) == (await texts(1, (await texts(1))[1]))
        assert (["q2", "a2"], None) == await texts(2)
        assert ([], None) == await texts(3)
        assert ([], None) == await texts(2**32 - 1)
        assert 3 == len((await texts(0))[0])

    async def test_a_page_shows_one_state_of_a_turn(self, store: Store, second: Store) -> None:
        """A read that races with the end of a turn returns the complete turn either before or after its end."""
        for number in range(1, 41):
            turn = await begin(store, "s", "q", new=number == 1)
            (page, token), _ = await asyncio.gather(
                second.list_messages("ada", "s", page_size=1000, page_token=None), complete(store, turn, "a")
            )
            last = [(one.state, one.message.role) for one in page if one.turn == number]
            non_streaming = [("completed", "user"), ("completed", "assistant")]
            assert (last, token) in (([("in_progress", "user")], None), (non_streaming, None))

    @pytest.mark.parametrize(
        "token",
        ["x", "!!", "WzFd", "bnVsbA", "WzEsImEiLDJd", "W251bGwsbnVsbF0", "WzFlOTk5LDFd", "A" * 9999, "é", _HUGE, _ZERO],
    )
    async def test_bad_page_token(self, store: Store, token: str) -> None:
        """An invalid page token is rejected."""
        await converse(store, "s", "q", "a", new=True)
        with pytest.raises(InvalidRequest) as rejected:
            await store.list_sessions("ada", SessionFilter(), page_size=2, page_token=token)
        assert "page_token" == rejected.value.param
        with pytest.raises(InvalidRequest) as rejected:
            await store.list_messages("ada", "s", page_size=2, page_token=token)
        assert "page_token" == rejected.value.param

    async def test_tokens_do_not_cross(self, store: Store) -> None:
        """A token of one list is rejected by the other."""
        for session in ("s", "t"):
            await converse(store, session, "q", "a", new=True)
        _, of_sessions = await store.list_sessions("ada", SessionFilter(), page_size=1, page_token=None)
        _, of_messages = await store.list_messages("ada", "s", page_size=1, page_token=None)
        with pytest.raises(InvalidRequest):
            await store.list_messages("ada", "s", page_size=1, page_token=of_sessions)
        with pytest.raises(InvalidRequest):
            await store.list_sessions("ada", SessionFilter(), page_size=1, page_token=of_messages)

    async def test_delete(self, store: Store, second: Store) -> None:
        """A deleted session and its messages are removed for all workers, and its id can be used again."""
        await converse(store, "s", "one", "first", new=True)
        await converse(store, "t", "other", "kept", new=True)
        await store.delete_session("ada", "s")
        with pytest.raises(SessionNotFound):
            await second.get_session("ada", "s")
        with pytest.raises(SessionNotFound):
            await second.list_messages("ada", "s", page_size=10, page_token=None)
        with pytest.raises(SessionNotFound):
            await begin(second, "s", "two")
        with pytest.raises(SessionNotFound):
            await store.delete_session("ada", "s")
        await begin(store, "s", "fresh", new=True)
        assert [("fresh", 1, "in_progress", None)] == await all_messages(store, "s")
        assert 2 == len(await all_messages(store, "t"))

    async def test_delete_while_busy(self, store: Store, second: Store, clock: Clock) -> None:
        """A session with a running turn is not deleted; after the lease expires, it can be."""
        turn = await begin(store, "s", "one", new=True)
        with pytest.raises(SessionBusy):
            await second.delete_session("ada", "s")
        clock.advance(LEASE)
        await second.delete_session("ada", "s")
        with pytest.raises(TurnLost):
            await complete(store, turn, "too late")

    async def _listed(self, store: Store, *, page_size: int, models: set[str] | None = None) -> list[str]:
        """Reads every page of the list."""
        return await self._chosen(store, SessionFilter(None if models is None else frozenset(models)), page_size)

    @staticmethod
    async def _chosen(store: Store, chosen: SessionFilter, page_size: int) -> list[str]:
        """Reads every page of the filtered sessions."""
        found: list[str] = []
        token = None
        while True:
            page, token = await store.list_sessions("ada", chosen, page_size=page_size, page_token=token)
            assert len(page) <= page_size
            found += [one.id for one in page]
            if token is None:
                return found
