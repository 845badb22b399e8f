"""Contract of requests that repeat the history of their session."""

import pytest

from parley.core.errors import InvalidRequest
from parley.core.ports import Store, TurnEnd, Window
from parley.v1.message_pb2 import Message
from tests.contract.stores.making import (
    all_messages,
    begin,
    complete,
    converse,
    end_incomplete,
    message,
    texts,
)


def parts(role: str, text: str) -> Message:
    """Returns a message whose text is a content part, as some clients send it."""
    made = Message(role=role)
    part = made.content.list_value.values.add().struct_value
    part["type"], part["text"] = "text", text
    return made


def answered(text: str) -> Message:
    """Returns an assistant message."""
    return message("assistant", text)


class ResentContract:
    """Contract of resent histories: only new messages are stored, and the model receives no message twice."""

    async def test_only_the_rest_is_new(self, store: Store, second: Store) -> None:
        """If the request starts with all stored messages, only the rest is stored."""
        sent: list[str | Message] = [message("system", "be kind")]
        for number, worker in enumerate((store, second, store, second), 1):
            sent.append(f"q{number}")
            turn = await begin(worker, "s", *sent, new=number == 1)
            assert len(sent) == len(turn.history) + len(turn.messages)
            assert f"q{number}" == turn.messages[-1].content.string_value
            await complete(worker, turn, f"a{number}")
            sent.append(answered(f"a{number}"))
        expected = ["be kind", "q1", "a1", "q2", "a2", "q3", "a3", "q4", "a4"]
        assert expected == [text for text, *_ in await all_messages(store, "s")]

    async def test_several_new_messages(self, store: Store) -> None:
        """The new rest may consist of several messages with any roles."""
        await converse(store, "s", "q1", "a1", new=True)
        turn = await begin(store, "s", "q1", answered("a1"), "q2", answered("mine"), "q3")
        assert ["q2", "mine", "q3"] == texts(turn.messages)
        assert ["q1", "a1"] == texts(turn.history)

    async def test_equivalent_content(self, store: Store) -> None:
        """A text equals its content part, and null content equals absent content."""
        question, called = message("user", "q1"), Message(role="assistant")
        called.tool_calls.add(id="c", type="function").function.name = "look"
        turn = await begin(store, "s", question, new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[called]))
        called.content.null_value = 0  # type: ignore[assignment]
        found = message("tool", "found")
        found.tool_call_id = "c"
        turn = await begin(store, "s", parts("user", "q1"), called, found)
        assert (["found"], 2) == (texts(turn.messages), len(turn.history))

    @pytest.mark.parametrize("field", ["role", "name", "text", "arguments", "call"])
    async def test_a_different_beginning(self, store: Store, field: str) -> None:
        """A request with a different message contradicts the session, which remains unchanged."""
        question, called = message("user", "q1"), answered("a1")
        question.name = "ada"
        called.tool_calls.add(id="c", type="function").function.arguments = "{}"
        turn = await begin(store, "s", question, new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[called]))
        if field == "role":
            question.role = "assistant"
        elif field == "name":
            question.name = "bob"
        elif field == "text":
            question.content.string_value = "q0"
        elif field == "arguments":
            called.tool_calls[0].function.arguments = "[]"
        else:
            called.tool_calls[0].id = "d"
        with pytest.raises(InvalidRequest) as rejected:
            await begin(store, "s", question, called, "q2")
        assert f"messages[{int(field in {'arguments', 'call'})}]" == rejected.value.param
        assert 2 == len(await all_messages(store, "s"))
        assert 2 == (await begin(store, "s", "q2")).number

    async def test_a_prefix_of_the_history(self, store: Store) -> None:
        """A request that repeats only the start of the history is rejected."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        first, second = answered("a1"), answered("a2")
        resent: list[tuple[list[str | Message], int]] = [
            (["q1", first, "q2"], 2),
            (["q1", first], 1),
            (["x", second, "q"], 0),
        ]
        for sent, index in resent:
            with pytest.raises(InvalidRequest) as rejected:
                await begin(store, "s", *sent)
            assert f"messages[{index}]" == rejected.value.param
        assert 4 == (await begin(store, "s", "q1")).number

    async def test_the_end_of_the_history(self, store: Store, second: Store) -> None:
        """A history that a client has trimmed at the front is recognized by its end."""
        for number in range(1, 8):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        for worker, sent in ((store, [answered("a7")]), (second, [answered("a6"), "q7", answered("a7")])):
            turn = await begin(worker, "s", *sent, "q8")
            assert (["q8"], 14) == (texts(turn.messages), len(turn.history))
            await end_incomplete(worker, turn, "failed")

    async def test_rewritten(self, store: Store) -> None:
        """A history with reformatted tool arguments, trimmed text and an added name is recognized."""
        called = Message(role="assistant")
        called.tool_calls.add(id="c", type="function").function.arguments = '{"a": 1, "b": 2}'
        turn = await begin(store, "s", " q1\n", new=True)
        await store.end_turn(turn, TurnEnd("completed", answer=[called]))
        question, found = message("user", "q1"), message("tool", "found")
        question.name, found.tool_call_id = "ada", "c"
        called.tool_calls[0].function.arguments = '{"b":2,"a":1}'
        turn = await begin(store, "s", question, called, found)
        assert (["found"], 2) == (texts(turn.messages), len(turn.history))
        assert '{"a": 1, "b": 2}' == turn.history[1].tool_calls[0].function.arguments

    async def test_repeated_user_messages(self, store: Store) -> None:
        """Repeated user messages without an answer are new, however often."""
        for number in range(1, 5):
            turn = await begin(store, "s", "yes", new=number == 1)
            assert (["yes"], 2 * (number - 1)) == (texts(turn.messages), len(turn.history))
            await complete(store, turn, "ok")

    @pytest.mark.parametrize("turns", [1, 3])
    async def test_nothing_new(self, store: Store, turns: int) -> None:
        """A request without a new message is rejected, and the session remains unchanged."""
        sent: list[str | Message] = []
        for number in range(turns):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
            sent += [f"q{number}", answered(f"a{number}")]
        with pytest.raises(InvalidRequest) as rejected:
            await begin(store, "s", *sent)
        assert "messages" == rejected.value.param
        assert (turns, 2 * turns) == (
            (await store.get_session("ada", "s")).turn_count,
            len(await all_messages(store, "s")),
        )
        assert turns + 1 == (await begin(store, "s", "next")).number

    async def test_incomplete_turns_are_not_compared(self, store: Store) -> None:
        """Messages of incomplete turns are not compared with a request."""
        await converse(store, "s", "q1", "a1", new=True)
        await end_incomplete(store, await begin(store, "s", "q2"), "failed", "half")
        turn = await begin(store, "s", "q1", answered("a1"), "q2")
        assert (["q2"], ["q1", "a1"]) == (texts(turn.messages), texts(turn.history))
        await complete(store, turn, "a2")
        with pytest.raises(InvalidRequest) as rejected:
            await begin(store, "s", "q1", answered("a1"), "q2", answered("half"), "q3")
        assert "messages[3]" == rejected.value.param

    async def test_beyond_the_window(self, store: Store) -> None:
        """A resent history is recognized beyond the window, which still limits what the model receives."""
        for number in (1, 2, 3):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 1)
        sent = [one for number in (1, 2, 3) for one in (f"q{number}", answered(f"a{number}"))]
        turn = await begin(store, "s", *sent, "q4", window=Window(max_messages=2))
        assert (["q4"], ["q3", "a3"]) == (texts(turn.messages), texts(turn.history))

    async def test_system_messages_that_change(self, store: Store, second: Store) -> None:
        """A history that is resent with a different system message each time is recognized."""
        sent: list[str | Message] = []
        for number, worker in enumerate((store, second, store, second, store), 1):
            sent.append(f"q{number}")
            turn = await begin(worker, "s", message("system", f"day {number}"), *sent, new=number == 1)
            assert [f"day {number}", f"q{number}"] == texts(turn.messages)
            await complete(worker, turn, f"a{number}")
            sent.append(answered(f"a{number}"))
        turn = await begin(store, "s", *sent, "q6")
        assert ["q6"] == texts(turn.messages)
        assert 15 == len(turn.history)

    async def test_known_system_messages_are_left_out(self, store: Store) -> None:
        """A system message that starts every request is stored once; a new one is stored too."""
        kind, short = message("system", "be kind"), message("developer", "be short")
        for number, leading in enumerate(([kind], [kind], [kind, short], [short, kind]), 1):
            turn = await begin(store, "s", *leading, f"q{number}", new=number == 1)
            await complete(store, turn, f"a{number}")
        expected = ["be kind", "q1", "a1", "q2", "a2", "be short", "q3", "a3", "q4", "a4"]
        assert expected == [text for text, *_ in await all_messages(store, "s")]

    async def test_known_system_messages_before_much_that_is_new(self, store: Store) -> None:
        """A known system message is not stored again even if the request is long enough to repeat the session."""
        await complete(store, await begin(store, "s", message("system", "be kind"), "q1", new=True), "a1")
        turn = await begin(store, "s", message("system", "be kind"), "q2", answered("mine"), "q3")
        assert ["q2", "mine", "q3"] == texts(turn.messages)

    async def test_system_messages_of_incomplete_turns_are_unknown(self, store: Store) -> None:
        """A system message of an incomplete turn is stored again."""
        await converse(store, "s", "q1", "a1", new=True)
        await end_incomplete(store, await begin(store, "s", message("system", "be kind"), "q2"), "failed")
        turn = await begin(store, "s", message("system", "be kind"), "q2")
        assert ["be kind", "q2"] == texts(turn.messages)

    async def test_a_system_message_alone(self, store: Store) -> None:
        """A known system message is stored again if it is the only message, or is not at the start."""
        kind = message("system", "be kind")
        turn = await begin(store, "s", kind, "q1", new=True)
        await complete(store, turn, "a1")
        turn = await begin(store, "s", kind)
        assert ["be kind"] == texts(turn.messages)
        await end_incomplete(store, turn, "failed")
        assert ["q2", "be kind"] == texts((await begin(store, "s", "q2", kind)).messages)

    async def test_a_new_session_stores_all(self, store: Store) -> None:
        """All messages of a new session are stored, repeated ones included."""
        turn = await begin(store, "s", message("system", "x"), message("system", "x"), "q", "q", new=True)
        assert ["x", "x", "q", "q"] == texts(turn.messages)
        assert 4 == len(await all_messages(store, "s"))
