"""How much of a session's past is sent with a turn."""

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


class TestKinds:
    """What a message is."""

    @pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
    def test_system_messages(self, role: str) -> None:
        """System and developer messages are never trimmed."""
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
    def test_continuing_a_toolcall(self, messages: Sequence[Message], expected: bool) -> None:
        """What begins with a result means nothing without the call; a system message before it changes nothing."""
        assert expected is starts_with_tool_result(messages)


class TestTokens:
    """What a message costs, roughly."""

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
        """Four bytes of text are a token, an image, sound or file a thousand, and four more a message."""
        assert expected == message_tokens(message)


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
    """How much of the past goes."""

    @given(_turns(), st.builds(Window, _BOUND, _BOUND), st.booleans())
    def test_whole_exchanges_go(self, turns: list[TurnSize], window: Window, continued: bool) -> None:
        """Never half of a tool exchange: the oldest turn that goes does not continue an older one."""
        going = _going(turns, window, continued=continued)
        assert not going or not going[-1].starts_with_tool_result

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
                yield TurnSize(number, 2, 10, starts_with_tool_result=False)

        assert 9998 == first_turn(sizes(), Window(max_messages=6), continued=False)
        assert [10_000, 9999, 9998, 9997] == read

    def test_an_exchange_that_is_too_large_is_not_read_to_its_end(self) -> None:
        """Turns that continue one another without end are left at the window's edge as well."""
        read = []

        def sizes() -> Iterator[TurnSize]:
            for number in range(10_000, 0, -1):
                read.append(number)
                yield TurnSize(number, 2, 10, starts_with_tool_result=True)

        assert first_turn(sizes(), Window(max_messages=6), continued=False) is None
        assert 4 == len(read)
