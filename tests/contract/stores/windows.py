"""Contract of windows: how much of the history is sent with a turn."""

import pytest

from parley.core.ports import Store, TurnEnd, Window
from parley.core.usage.tokens import message_tokens
from parley.v1.message_pb2 import Message
from tests.contract.stores.making import (
    WHOLE,
    all_messages,
    begin,
    converse,
    end_incomplete,
    message,
    texts,
)


def call(identifier: str) -> Message:
    """Returns an assistant message with a tool call."""
    made = Message(role="assistant")
    made.tool_calls.add(id=identifier, type="function").function.name = "look"
    return made


def result(identifier: str, text: str) -> Message:
    """Returns the result of a tool call."""
    made = message("tool", text)
    made.tool_call_id = identifier
    return made


async def add_exchange(store: Store, *messages: str | Message, answer: Message, new: bool = False) -> None:
    """Completes a turn of the session `s`."""
    turn = await begin(store, "s", *messages, new=new)
    await store.end_turn(turn, TurnEnd("completed", answer=[answer]))


async def past(store: Store, window: Window, *messages: str | Message) -> list[str]:
    """Returns the history of a turn of the session `s`, which is then ended as incomplete."""
    turn = await begin(store, "s", *messages or ("now",), window=window)
    await end_incomplete(store, turn, "failed")
    return texts(turn.history)


class WindowContract:
    """Contract of windows: the newest complete turns that fit, and every system message."""

    @pytest.mark.parametrize(
        ("most", "expected"),
        [(0, ""), (1, ""), (2, "q3 a3"), (3, "q3 a3"), (4, "q2 a2 q3 a3"), (6, "q1 a1 q2 a2 q3 a3"), (99, None)],
    )
    async def test_messages(self, store: Store, most: int, expected: str | None) -> None:
        """A window of messages includes the newest complete turns that fit."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        expected = "q1 a1 q2 a2 q3 a3" if expected is None else expected
        assert expected.split() == await past(store, Window(max_messages=most))

    async def test_tokens(self, store: Store) -> None:
        """A window of tokens includes the newest turns whose estimates fit."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}" * 50, f"a{number}" * 50, new=number == 1)
        turn = sum(message_tokens(message("user", f"{kind}1" * 50)) for kind in "qa")
        for most, expected in ((turn - 1, 0), (turn, 2), (2 * turn - 1, 2), (2 * turn, 4), (3 * turn, 6)):
            assert expected == len(await past(store, Window(max_tokens=most)))

    async def test_both(self, store: Store) -> None:
        """The tighter of two limits applies."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        turn = 2 * message_tokens(message("user", "q1"))
        assert ["q3", "a3"] == await past(store, Window(max_messages=6, max_tokens=turn))
        assert ["q3", "a3"] == await past(store, Window(max_messages=2, max_tokens=3 * turn))

    async def test_nothing_older_than_a_turn_that_does_not_fit_is_sent(self, store: Store) -> None:
        """No turn older than one that does not fit is sent."""
        await converse(store, "s", "small", "a", new=True)
        await converse(store, "s", "large" * 1000, "a")
        await converse(store, "s", "small too", "a")
        assert ["small too", "a"] == await past(store, Window(max_tokens=100))

    @pytest.mark.parametrize("role", ["system", "developer"])
    async def test_system_messages_are_always_sent(self, store: Store, role: str) -> None:
        """System messages are sent first, however old they are, and do not count."""
        await add_exchange(store, message(role, "be kind"), "q1", answer=message("assistant", "a1"), new=True)
        await add_exchange(store, message(role, "be short"), "q2", answer=message("assistant", "a2"))
        await add_exchange(store, "q3", answer=message("assistant", "a3"))
        assert ["be kind", "be short"] == await past(store, Window(max_messages=0))
        assert ["be kind", "be short", "q3", "a3"] == await past(store, Window(max_messages=3))
        assert ["be kind", "be short", "q2", "a2", "q3", "a3"] == await past(store, Window(max_messages=4))
        assert ["be kind", "be short", "q1", "a1", "q2", "a2", "q3", "a3"] == await past(store, WHOLE)

    async def test_incomplete_turns_are_not_sent(self, store: Store) -> None:
        """Incomplete turns and their system messages are neither sent nor counted."""
        await converse(store, "s", "q1", "a1", new=True)
        turn = await begin(store, "s", message("system", "never said"), "q2")
        await end_incomplete(store, turn, "cancelled", "half")
        await converse(store, "s", "q3", "a3")
        assert ["q1", "a1", "q3", "a3"] == await past(store, Window(max_messages=4))

    async def test_tool_exchanges_are_not_split(self, store: Store) -> None:
        """A tool call and its result are sent together or not at all."""
        await converse(store, "s", "q1", "a1", new=True)
        await add_exchange(store, "q2", answer=call("c"))
        await add_exchange(store, result("c", "found"), answer=message("assistant", "a3"))
        for most, expected in ((2, []), (3, []), (4, ["q2", "", "found", "a3"]), (5, ["q2", "", "found", "a3"])):
            assert expected == await past(store, Window(max_messages=most))

    async def test_a_result_includes_its_call(self, store: Store) -> None:
        """A turn with a tool result gets the call and the preceding calls, regardless of the window."""
        await converse(store, "s", "q1", "a1", new=True)
        await add_exchange(store, "q2", answer=call("c"))
        assert ["q2", ""] == await past(store, Window(max_messages=0), result("c", "found"))
        await add_exchange(store, result("c", "found"), answer=call("d"))
        assert ["q2", "", "found", ""] == await past(store, Window(max_tokens=0), result("d", "found too"))
        assert [] == await past(store, Window(max_tokens=0), "something else")

    async def test_each_turn_has_its_own_window(self, store: Store) -> None:
        """A turn can include history that the preceding turn left out."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        assert [] == await past(store, Window(max_messages=0))
        assert 6 == len(await past(store, WHOLE))
        assert 6 == len([text for text, _, state, _ in await all_messages(store, "s") if state == "completed"])
