"""What is new to a session, and what of its past goes with a turn."""

from collections.abc import Iterator, Sequence

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from parley.core.errors import InvalidRequest
from parley.core.history import (
    TurnSize,
    Window,
    continues,
    first_turn,
    is_system,
    new_messages,
    same,
    tokens,
    without_known,
)
from parley.v1.message_pb2 import Message


def _message(role: str, content: object = None, **more: object) -> Message:
    fields = {"role": role, **more}
    if content is not None:
        fields["content"] = content
    return ParseDict(fields, Message())


def _call(name: str = "f", arguments: str = "{}", call_id: str = "c") -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM, DEVELOPER = _message("system", "s"), _message("developer", "d")
USER, ANSWER = _message("user", "u"), _message("assistant", "a")
RESULT = _message("tool", "r", tool_call_id="c")


class TestKinds:
    """What a message is."""

    @pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
    def test_system_messages(self, role: str) -> None:
        """System and developer messages are never trimmed."""
        assert (role in {"system", "developer"}) is is_system(_message(role, "x"))

    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            ([], False),
            ([USER, RESULT], False),
            ([RESULT, USER], True),
            ([_message("function", "r", name="f")], True),
            ([SYSTEM, RESULT], True),
            ([SYSTEM], False),
        ],
    )
    def test_continuing_a_tool_call(self, messages: Sequence[Message], expected: bool) -> None:
        """What begins with a result means nothing without the call; a system message before it changes nothing."""
        assert expected is continues(messages)


class TestTokens:
    """What a message costs, roughly."""

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (_message("user", ""), 4),
            (_message("user", "x" * 400), 104),
            (_message("user", "ü" * 200), 104),
            (_message("user", [{"type": "text", "text": "x" * 400}, {"type": "text", "text": "x" * 40}]), 114),
            (_message("user", [{"type": "image_url", "image_url": {"url": "x" * 99_999}}]), 1004),
            (_message("user", [{"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}]), 2004),
            (_message("assistant", tool_calls=[_call("f" * 4, "x" * 36)] * 2), 24),
            (_message("assistant", reasoning_content="x" * 40, refusal="x" * 40), 24),
            (_message("assistant", reasoning_content="ü" * 20, refusal="ü" * 20), 24),
            (_message("assistant", tool_calls=[_call("f" * 4, "ü" * 18)]), 14),
            (_message("assistant", function_call={"name": "f" * 4, "arguments": "x" * 36}), 14),
            (
                _message(
                    "assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x" * 39}}]
                ),
                14,
            ),
        ],
    )
    def test_estimate(self, message: Message, expected: int) -> None:
        """Four bytes of text are a token, an image, sound or file a thousand, and four more a message."""
        assert expected == tokens(message)


# -------------------------------------------------------------------------------------------------- the window


@st.composite
def _turns(draw: st.DrawFn) -> list[TurnSize]:
    """Completed turns, the newest first; the oldest continues nothing, and numbers may be left out."""
    count = draw(st.integers(0, 12))
    numbers = sorted(draw(st.sets(st.integers(1, 100), min_size=count, max_size=count)))
    sizes = [
        TurnSize(number, draw(st.integers(1, 5)), draw(st.integers(1, 50)), place > 0 and draw(st.booleans()))
        for place, number in enumerate(numbers)
    ]
    return sizes[::-1]


def _groups(turns: Sequence[TurnSize]) -> list[list[TurnSize]]:
    """Turns that a tool exchange joins, together; the newest first."""
    groups: list[list[TurnSize]] = [[]]
    for turn in turns:
        groups[-1].append(turn)
        if not turn.continues:
            groups.append([])
    return [group for group in groups if group]


_BOUND = st.none() | st.integers(1, 60)


def _fits(turns: Sequence[TurnSize], window: Window) -> bool:
    few = window.max_messages is None or sum(turn.messages for turn in turns) <= window.max_messages
    return few and (window.max_tokens is None or sum(turn.tokens for turn in turns) <= window.max_tokens)


def _going(turns: Sequence[TurnSize], window: Window, *, continued: bool) -> list[TurnSize]:
    first = first_turn(turns, window, continued=continued)
    return [] if first is None else [turn for turn in turns if turn.number >= first]


class TestFirstTurn:
    """How much of the past goes."""

    @given(_turns(), st.builds(Window, _BOUND, _BOUND), st.booleans())
    def test_whole_exchanges_go(self, turns: list[TurnSize], window: Window, continued: bool) -> None:
        """Never half of a tool exchange: the oldest turn that goes does not continue an older one."""
        going = _going(turns, window, continued=continued)
        assert not going or not going[-1].continues

    @given(_turns(), st.builds(Window, _BOUND, _BOUND))
    def test_the_window_holds(self, turns: list[TurnSize], window: Window) -> None:
        """What goes is never more than the window, in messages and in tokens."""
        assert _fits(_going(turns, window, continued=False), window)

    @given(_turns(), st.builds(Window, _BOUND, _BOUND))
    def test_what_is_continued_goes_always(self, turns: list[TurnSize], window: Window) -> None:
        """The exchange that the new turn goes on with, however large; more only where it fits beside that."""
        going = _going(turns, window, continued=True)
        bound = (_groups(turns) or [[]])[0]
        assert bound == going[: len(bound)]
        assert len(going) == len(bound) or _fits(going, window)

    @given(_turns(), st.builds(Window, _BOUND, _BOUND), st.booleans())
    def test_as_much_goes_as_fits(self, turns: list[TurnSize], window: Window, continued: bool) -> None:
        """The newest whole exchanges, up to the first one that does not fit."""
        going = _going(turns, window, continued=continued)
        assert turns[: len(going)] == going
        rest = _groups(turns[len(going) :])
        assert not rest or not _fits([*going, *rest[0]], window)

    @given(_turns(), st.booleans())
    def test_without_a_bound_all_go(self, turns: list[TurnSize], continued: bool) -> None:
        """None is no bound."""
        assert turns == _going(turns, Window(), continued=continued)

    def test_no_more_is_read_than_is_needed(self) -> None:
        """A session of any length costs what its window holds, and one turn more."""
        read = []

        def sizes() -> Iterator[TurnSize]:
            for number in range(10_000, 0, -1):
                read.append(number)
                yield TurnSize(number, 2, 10, continues=False)

        assert 9998 == first_turn(sizes(), Window(max_messages=6), continued=False)
        assert [10_000, 9999, 9998, 9997] == read

    def test_an_exchange_that_is_too_large_is_not_read_to_its_end(self) -> None:
        """Turns that continue one another without end are left at the window's edge as well."""
        read = []

        def sizes() -> Iterator[TurnSize]:
            for number in range(10_000, 0, -1):
                read.append(number)
                yield TurnSize(number, 2, 10, continues=True)

        assert first_turn(sizes(), Window(max_messages=6), continued=False) is None
        assert 4 == len(read)


# -------------------------------------------------------------------------------------------------- what is new


class TestNewMessages:
    """Which messages a session has already."""

    stored = (SYSTEM, USER, ANSWER)

    def test_a_resent_conversation(self) -> None:
        """Where the request begins with all that is stored, the rest is new."""
        assert [USER] == list(new_messages(self.stored, [*self.stored, USER]))

    @pytest.mark.parametrize(
        "sent",
        [[USER], [SYSTEM, USER], [SYSTEM, USER, USER, ANSWER], [USER, SYSTEM, USER, ANSWER, USER]],
    )
    def test_anything_else_is_new_as_it_is(self, sent: list[Message]) -> None:
        """A part of it, or another one: nothing is guessed."""
        assert sent == list(new_messages(self.stored, sent))

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ([DEVELOPER, USER, ANSWER, USER], [DEVELOPER, USER]),
            ([SYSTEM, DEVELOPER, USER, ANSWER, USER], [DEVELOPER, USER]),
            ([DEVELOPER, USER, ANSWER, SYSTEM, USER], [DEVELOPER, SYSTEM, USER]),
            ([USER, ANSWER, USER, ANSWER], [USER, ANSWER]),
            ([DEVELOPER, USER, ANSWER], [DEVELOPER]),
        ],
    )
    def test_other_system_messages(self, sent: list[Message], expected: list[Message]) -> None:
        """Where nothing but system messages has changed, those that have and the rest are new."""
        assert expected == list(new_messages(self.stored, sent))

    def test_an_empty_session_has_nothing(self) -> None:
        """Then all is new."""
        assert [USER] == list(new_messages([], [USER]))

    @pytest.mark.parametrize("sent", [stored, (USER, ANSWER)])
    def test_nothing_new_is_an_error(self, sent: Sequence[Message]) -> None:
        """The error names the field."""
        with pytest.raises(InvalidRequest, match=r"^`messages` only repeats") as refused:
            new_messages(self.stored, sent)
        assert "messages" == refused.value.param

    @given(st.lists(st.sampled_from([SYSTEM, USER, ANSWER, RESULT]), max_size=5), st.lists(st.just(USER), min_size=1))
    def test_what_is_added_is_what_is_new(self, stored: list[Message], added: list[Message]) -> None:
        """Whatever the session has, and however much comes after it."""
        assert added == list(new_messages(stored, [*stored, *added]))


class TestWithoutKnown:
    """System messages that come with every request."""

    @pytest.mark.parametrize(
        ("standing", "sent", "expected"),
        [
            ([SYSTEM], [SYSTEM, USER], [USER]),
            ([SYSTEM], [DEVELOPER, SYSTEM, USER], [DEVELOPER, USER]),
            ([SYSTEM], [USER, SYSTEM], [USER, SYSTEM]),
            ([], [SYSTEM, USER], [SYSTEM, USER]),
            ([SYSTEM], [SYSTEM], [SYSTEM]),
            ([SYSTEM, DEVELOPER], [SYSTEM, DEVELOPER, USER], [USER]),
            ([SYSTEM], [USER], [USER]),
        ],
    )
    def test_leading_ones_are_left_out(
        self, standing: list[Message], sent: list[Message], expected: list[Message]
    ) -> None:
        """Where the session has them; later ones stay in their place, and a request is never left empty."""
        assert expected == list(without_known(standing, sent))


class TestSame:
    """Whether two messages say the same."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (_message("user", "Hi"), _message("user", [{"type": "text", "text": "Hi"}])),
            (_message("assistant", "", tool_calls=[_call()]), _message("assistant", tool_calls=[_call()])),
            (_message("assistant", None, tool_calls=[_call()]), _message("assistant", [], tool_calls=[_call()])),
            (_message("assistant", "a", refusal=""), _message("assistant", "a")),
            (_message("assistant", "a", reasoning_content="Hmm"), _message("assistant", "a")),
            (_message("assistant", "a", annotations=[{"type": "x"}]), _message("assistant", "a")),
            (
                _message("assistant", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]),
                _message("assistant", tool_calls=[_call()]),
            ),
        ],
    )
    def test_other_writing_same_message(self, one: Message, other: Message) -> None:
        """However a client has written down what it once received."""
        assert same(one, other)
        assert same(other, one)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (_message("user", "Hi"), _message("user", "Ho")),
            (_message("user", "Hi"), _message("assistant", "Hi")),
            (_message("user", "Hi"), _message("user", "Hi", name="ada")),
            (_message("tool", "r", tool_call_id="c"), _message("tool", "r", tool_call_id="d")),
            (_message("assistant", tool_calls=[_call("f")]), _message("assistant", tool_calls=[_call("g")])),
            (_message("assistant", tool_calls=[_call()]), _message("assistant", tool_calls=[_call()] * 2)),
            (
                _message("assistant", tool_calls=[_call(call_id="c")]),
                _message("assistant", tool_calls=[_call(call_id="d")]),
            ),
            (
                _message("assistant", function_call={"name": "f", "arguments": "1"}),
                _message("assistant", function_call={"name": "f", "arguments": "2"}),
            ),
            (_message("user", [{"type": "text", "text": "a"}] * 2), _message("user", [{"type": "text", "text": "a"}])),
            (
                _message("user", [{"type": "image_url", "image_url": {"url": "a"}}]),
                _message("user", [{"type": "image_url", "image_url": {"url": "b"}}]),
            ),
            (_message("assistant", audio={"id": "a"}), _message("assistant", audio={"id": "b"})),
            (_message("assistant", refusal="No"), _message("assistant", refusal="Never")),
        ],
    )
    def test_other_messages(self, one: Message, other: Message) -> None:
        """A difference in who speaks, what is said or what is called is a difference."""
        assert not same(one, other)
