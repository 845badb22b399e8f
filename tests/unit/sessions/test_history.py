"""Tests of how much of a session's history is sent with a turn."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.core.messages.roles import is_system
from parley.core.ports import Window
from parley.core.sessions.history import TurnSize, first_turn, starts_with_tool_result
from parley.core.usage.tokens import message_tokens
from parley.v1.message_pb2 import Message
from tests.unit.messages.making import RESULT, SYSTEM, USER, call, message


class TestClassification:
    """Tests of the classification of messages."""

    @pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
    def test_system_messages(self, role: str) -> None:
        """Messages with the roles system and developer are system messages."""
        assert (role in {"system", "developer"}) is is_system(message(role, "x"))

    @pytest.mark.parametrize(
        ("messages", "expected"),
        [
            ([], False),
            ([USER, RESULT], False),
            ([RESULT, USER], True),
            ([message("function", "r", name="f")], True),
            ([SYSTEM, RESULT], True),
            ([SYSTEM], False),
        ],
    )
    def test_starting_with_a_tool_result(self, messages: Sequence[Message], expected: bool) -> None:
        """Messages start with a tool result even if system messages precede it."""
        assert expected is starts_with_tool_result(messages)


class TestTokens:
    """Tests of the token estimate."""

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (message("user", ""), 4),
            (message("user", "x" * 400), 104),
            (message("user", "ü" * 200), 104),
            (message("user", [{"type": "text", "text": "x" * 400}, {"type": "text", "text": "x" * 40}]), 114),
            (message("user", [{"type": "image_url", "image_url": {"url": "x" * 99_999}}]), 1004),
            (message("user", [{"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}]), 2004),
            (message("assistant", tool_calls=[call("f" * 4, "x" * 36)] * 2), 24),
            (message("assistant", reasoning_content="x" * 40, refusal="x" * 40), 24),
            (message("assistant", reasoning_content="ü" * 20, refusal="ü" * 20), 24),
            (message("assistant", tool_calls=[call("f" * 4, "ü" * 18)]), 14),
            (message("assistant", function_call={"name": "f" * 4, "arguments": "x" * 36}), 14),
            (
                message(
                    "assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x" * 39}}]
                ),
                14,
            ),
        ],
    )
    def test_estimate(self, message: Message, expected: int) -> None:
        """Four bytes of text count as one token, an image, sound or file as 1000, and each message adds four."""
        assert expected == message_tokens(message)


# -------------------------------------------------------------------------------------------------- the window


@st.composite
def _turns(draw: st.DrawFn) -> list[TurnSize]:
    """Generates completed turns, newest first; the oldest starts no tool result, and numbers may have gaps."""
    count = draw(st.integers(0, 12))
    numbers = sorted(draw(st.sets(st.integers(1, 100), min_size=count, max_size=count)))
    sizes = [
        TurnSize(number, draw(st.integers(1, 5)), draw(st.integers(1, 50)), index > 0 and draw(st.booleans()))
        for index, number in enumerate(numbers)
    ]
    return sizes[::-1]


def _groups(turns: Sequence[TurnSize]) -> list[list[TurnSize]]:
    """Groups the turns that share a tool-call exchange, newest first."""
    groups: list[list[TurnSize]] = [[]]
    for turn in turns:
        groups[-1].append(turn)
        if not turn.starts_with_tool_result:
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
    """Tests of the oldest turn that is sent."""

    @given(_turns(), st.builds(Window, _BOUND, _BOUND), st.booleans())
    def test_only_complete_exchanges_are_sent(self, turns: list[TurnSize], window: Window, continued: bool) -> None:
        """The oldest turn that is sent does not start with a tool result."""
        going = _going(turns, window, continued=continued)
        assert not going or not going[-1].starts_with_tool_result

    @given(_turns(), st.builds(Window, _BOUND, _BOUND))
    def test_the_window_holds(self, turns: list[TurnSize], window: Window) -> None:
        """The history never exceeds the window, in messages or in tokens."""
        assert _fits(_going(turns, window, continued=False), window)

    @given(_turns(), st.builds(Window, _BOUND, _BOUND))
    def test_the_continued_exchange_is_always_sent(self, turns: list[TurnSize], window: Window) -> None:
        """The exchange that the new turn continues is always sent; further turns only if all fit together."""
        going = _going(turns, window, continued=True)
        bound = (_groups(turns) or [[]])[0]
        assert bound == going[: len(bound)]
        assert len(going) == len(bound) or _fits(going, window)

    @given(_turns(), st.builds(Window, _BOUND, _BOUND), st.booleans())
    def test_all_exchanges_that_fit_are_sent(self, turns: list[TurnSize], window: Window, continued: bool) -> None:
        """The history consists of the newest complete exchanges up to the first that does not fit."""
        going = _going(turns, window, continued=continued)
        assert turns[: len(going)] == going
        rest = _groups(turns[len(going) :])
        assert not rest or not _fits([*going, *rest[0]], window)

    @given(_turns(), st.booleans())
    def test_without_a_limit_all_turns_are_sent(self, turns: list[TurnSize], continued: bool) -> None:
        """A window without limits includes all turns."""
        assert turns == _going(turns, Window(), continued=continued)

    def test_no_more_is_read_than_is_needed(self) -> None:
        """Only the turns within the window and one more are read, however long the session is."""
        read = []

        def sizes() -> Iterator[TurnSize]:
            for number in range(10_000, 0, -1):
                read.append(number)
                yield TurnSize(number, 2, 10, starts_with_tool_result=False)

        assert 9998 == first_turn(sizes(), Window(max_messages=6), continued=False)
        assert [10_000, 9999, 9998, 9997] == read

    def test_an_exchange_that_is_too_large_is_not_read_to_its_end(self) -> None:
        """A chain of tool results that exceeds the window is not read to its end."""
        read = []

        def sizes() -> Iterator[TurnSize]:
            for number in range(10_000, 0, -1):
                read.append(number)
                yield TurnSize(number, 2, 10, starts_with_tool_result=True)

        assert first_turn(sizes(), Window(max_messages=6), continued=False) is None
        assert 4 == len(read)
