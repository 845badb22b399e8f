"""Contract of sessions that exceed what a turn may load."""

import pytest

from parley.core.errors import InvalidRequest, SessionNotFound
from parley.core.ports import Store, TurnEnd, Window
from parley.v1.message_pb2 import Message
from tests.contract.stores.making import begin, complete, converse, message, texts

MEGABYTE = 1024 * 1024


class LongContract:
    """A turn of a long session costs as much as its window, and is rejected if that is too much."""

    @pytest.mark.parametrize("window", [Window(load_messages=9), Window(load_bytes=4 * MEGABYTE)])
    async def test_too_long_a_history_is_rejected(self, store: Store, window: Window) -> None:
        """The error names `history`, nothing is written, and the session is free."""
        for number in range(5):
            await converse(store, "s", "q" * MEGABYTE, "a", new=number == 0)
        for _ in range(2):
            with pytest.raises(InvalidRequest) as rejected:
                await begin(store, "s", "and?", window=window)
            assert "`history`" in rejected.value.message
        assert 5 == (await store.get_session("ada", "s")).turn_count
        turn = await begin(store, "s", "and?", window=Window(max_messages=4, load_messages=9, load_bytes=4 * MEGABYTE))
        assert 4 == len(turn.history)

    async def test_a_history_up_to_the_limit(self, store: Store) -> None:
        """A long history is complete and in order, although it is read in pieces."""
        expected = []
        for number in range(8):
            await converse(store, "s", f"q{number}" + "x" * (MEGABYTE // 3), f"a{number}", new=number == 0)
            expected += [f"q{number}", f"a{number}"]
        turn = await begin(store, "s", message("system", "be kind"), "and?", window=Window(load_messages=16))
        assert expected == [text.rstrip("x") for text in texts(turn.history)]
        await complete(store, turn, "a8")
        turn = await begin(store, "s", "and?", window=Window(max_messages=4))
        assert ["be kind", "q7", "a7", "and?", "a8"] == [text.rstrip("x") for text in texts(turn.history)]

    @pytest.mark.parametrize("count", [499, 500, 900, 1001])
    async def test_many_messages(self, store: Store, count: int) -> None:
        """Many small messages are written together and read in pieces."""
        questions = [f"{number}" for number in range(count)]
        turn = await begin(store, "s", *questions, new=True)
        await complete(store, turn, "a")
        await converse(store, "s", "q", "a2")
        turn = await begin(store, "s", "and?", window=Window(load_messages=count + 3))
        assert [*questions, "a", "q", "a2"] == texts(turn.history)

    async def test_system_messages_count(self, store: Store) -> None:
        """Too many system messages are rejected, because they cannot be trimmed."""
        for number in range(5):
            opening = message("system", f"{number}" * MEGABYTE)
            await complete(store, await begin(store, "s", opening, "q", new=number == 0), "a")
        for window in (Window(max_messages=2, load_bytes=4 * MEGABYTE), Window(max_messages=2, load_messages=4)):
            with pytest.raises(InvalidRequest) as rejected:
                await begin(store, "s", "and?", window=window)
            assert "`history`" in rejected.value.message

    @pytest.mark.parametrize("resent", [4, 40])
    async def test_a_resent_history_that_is_too_long(self, store: Store, resent: int) -> None:
        """A request that may repeat the session is compared only with as much as may be loaded."""
        for number in range(10):
            await converse(store, "s", "q" * MEGABYTE, "a", new=number == 0)
        sent: list[str | Message] = [message("assistant", "a") if index % 2 else "q" for index in range(resent)]
        with pytest.raises(InvalidRequest) as rejected:
            await begin(store, "s", *sent, "and?", window=Window(max_messages=2, load_bytes=MEGABYTE))
        assert "`history`" in rejected.value.message

    async def test_a_page_of_large_metadata(self, store: Store) -> None:
        """A page is limited by all that its messages have: clients of gRPC accept 4 MiB."""
        metadata = {str(number): "x" * 512 for number in range(16)}
        turn = await begin(store, "s", *["q"] * 500, new=True, metadata=metadata)
        await complete(store, turn, "a")
        found, token = 0, None
        while found == 0 or token is not None:
            page, token = await store.list_messages("ada", "s", page_size=1000, page_token=token)
            assert sum(one.ByteSize() for one in page) < 2 * MEGABYTE
            found += len(page)
        assert 501 == found

    async def test_a_page_of_large_messages(self, store: Store) -> None:
        """A page with large messages is shorter; every message is returned once, a very large one alone."""
        turn = await begin(
            store, "s", *(f"{number}" * (2 * MEGABYTE) for number in range(3)), "x" * 5_000_000, new=True
        )
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a")]))
        pages, token = [], None
        while True:
            page, token = await store.list_messages("ada", "s", page_size=100, page_token=token)
            pages.append([one.message.content.string_value[0] for one in page])
            if token is None:
                break
        assert [["0"], ["1"], ["2"], ["x"], ["a"]] == pages

    async def test_large_messages_are_deleted_in_parts(self, store: Store) -> None:
        """A session with few large messages is deleted in several transactions."""
        for number in range(4):
            await converse(store, "s", "q" * (4 * MEGABYTE), "a", new=number == 0)
        await store.delete_session("ada", "s")
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")
        assert not await store.purge()

    async def test_a_fork_that_is_too_large(self, store: Store) -> None:
        """A fork that is too large for one transaction is rejected with a remedy."""
        turn = await begin(store, "s", "q", new=True)
        await complete(store, turn, "a")
        turn = await begin(store, "s", *["q"] * 20_000)
        await complete(store, turn, "a")
        with pytest.raises(InvalidRequest) as rejected:
            await store.fork_session("ada", "s", "f", None)
        assert "through_turn" == rejected.value.param
        assert 1 == (await store.fork_session("ada", "s", "f", 1)).turn_count
