"""Tests of which messages of a request are new to its session."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.core.errors import InvalidRequest
from parley.core.sessions.resent_history import StoredHistory, may_repeat, new_messages, new_to, without_known_system
from parley.v1.message_pb2 import Message
from tests.unit.messages.making import ANSWER, DEVELOPER, RESULT, SYSTEM, USER, call, message


class TestNewMessages:
    """Tests of requests to a session with three messages."""

    stored = (SYSTEM, USER, ANSWER)

    def test_a_resent_conversation(self) -> None:
        """If the request starts with all stored messages, the rest is new."""
        assert [USER] == list(new_messages(self.stored, [*self.stored, USER]))

    @pytest.mark.parametrize("sent", [[USER], [SYSTEM, USER], [USER, USER], [RESULT], [USER, SYSTEM, USER], [SYSTEM]])
    def test_without_an_answer_all_is_new(self, sent: list[Message]) -> None:
        """All messages of a request without an answer are new, because a user may send the same text twice."""
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
        """If only system messages have changed, the changed ones and the rest are new."""
        assert expected == list(new_messages(self.stored, sent))

    def test_an_empty_session_has_nothing(self) -> None:
        """All messages are new to an empty session."""
        assert [USER] == list(new_messages([], [USER]))

    @pytest.mark.parametrize("sent", [stored, (USER, ANSWER)])
    def test_nothing_new_is_an_error(self, sent: Sequence[Message]) -> None:
        """A request without a new message is rejected with an error that names the field."""
        with pytest.raises(InvalidRequest, match=r"^`messages` only repeats") as rejected:
            new_messages(self.stored, sent)
        assert "messages" == rejected.value.param

    @given(st.lists(st.sampled_from([SYSTEM, USER, ANSWER, RESULT]), max_size=5), st.lists(st.just(USER), min_size=1))
    def test_added_messages_are_new(self, stored: list[Message], added: list[Message]) -> None:
        """Messages after the stored ones are new, for any session."""
        assert added == list(new_messages(stored, [*stored, *added]))


Q1, A1, Q2, A2 = (
    message("user", "q1"),
    message("assistant", "a1"),
    message("user", "q2"),
    message("assistant", "a2"),
)
Q3, EDITED = message("user", "q3"), message("user", "edited")
OTHER = message("assistant", "of another model")
CALL = message("assistant", tool_calls=[call()])
FORGED = message("assistant", tool_calls=[call(call_id="forged")])
FORGED_RESULT = message("tool", "r", tool_call_id="forged")
YES, OK = message("user", "yes"), message("assistant", "ok")
SILENT = message("assistant", "", reasoning_content="Hmm")
FOUR = (Q1, A1, Q2, A2)


def _new(stored: Sequence[Message], sent: Sequence[Message]) -> list[Message]:
    """Compares as a store does: with all stored messages, or with as many from either end as the request has."""
    spoken = [message for message in stored if message.role != "system"]
    if len(spoken) <= len(sent):
        return list(new_messages(stored, sent))
    status = [message for message in stored if message.role == "system"]
    return list(new_to(StoredHistory(spoken[: len(sent)], spoken[-len(sent) :], status, is_complete=False), sent))


class TestEndOfHistory:
    """Tests of histories that a client has trimmed at the front."""

    @pytest.mark.parametrize(
        ("stored", "sent", "expected"),
        [
            (FOUR, [Q2, A2, Q3], [Q3]),
            (FOUR, [A2, Q3], [Q3]),
            (FOUR, [A1, Q2, A2, Q3], [Q3]),
            ((SYSTEM, *FOUR), [SYSTEM, Q2, A2, Q3], [Q3]),
            ((SYSTEM, *FOUR), [DEVELOPER, Q2, A2, Q3], [DEVELOPER, Q3]),
            ((Q1, CALL), [CALL, RESULT], [RESULT]),
            ((Q1, A1, Q2, CALL), [CALL, RESULT], [RESULT]),
            ((YES, OK, YES, OK, YES, OK), [YES, OK, YES, OK, YES], [YES]),
        ],
    )
    def test_the_rest_is_new(self, stored: Sequence[Message], sent: list[Message], expected: list[Message]) -> None:
        """If a request starts with the end of the session, its last answer included, the rest is new."""
        assert expected == _new(stored, sent)

    def test_nothing_new(self) -> None:
        """A request that contains only the end of the session is rejected."""
        with pytest.raises(InvalidRequest, match=r"^`messages` only repeats"):
            _new(FOUR, [Q2, A2])


class TestContradictions:
    """Tests of histories that contradict the session."""

    @pytest.mark.parametrize(
        ("stored", "sent", "index"),
        [
            ((Q1, A1), [EDITED, A1, Q2], 0),
            ((Q1, A1), [Q1, OTHER, Q2], 1),
            ((Q1, A1), [SYSTEM, Q1, OTHER, Q2], 2),
            (FOUR, [Q1, A1, EDITED, A2, Q3], 2),
            (FOUR, [Q1, A1, Q3], 2),
            (FOUR, [Q1, A1, Q2], 2),
            (FOUR, [Q1, A1], 1),
            (FOUR, [SYSTEM, Q1, A1], 2),
            (FOUR, [Q1, A2, Q3], 1),
            (FOUR, [Q2, OTHER, Q3], 0),
            (FOUR, [Q1, Q2, A2, Q3], 1),
            ((Q1, CALL, RESULT, A1), [Q1, CALL, FORGED_RESULT, A1, Q2], 2),
            ((SYSTEM, USER, ANSWER), [SYSTEM, USER, USER, ANSWER], 2),
            ((SYSTEM, USER, ANSWER), [USER, SYSTEM, USER, ANSWER, USER], 2),
        ],
    )
    def test_rejected(self, stored: Sequence[Message], sent: list[Message], index: int) -> None:
        """The error names the first differing message and the remedy."""
        with pytest.raises(InvalidRequest, match=r"send only what is new, resend .* or fork") as rejected:
            _new(stored, sent)
        assert f"messages[{index}]" == rejected.value.param
        assert f"`messages[{index}]`" in rejected.value.message

    @pytest.mark.parametrize(
        ("stored", "sent"),
        [
            ((YES, OK), [YES]),
            ((YES, OK), [YES, YES]),
            ((YES, OK, YES, OK), [YES]),
            ((Q1, CALL), [RESULT]),
            ((Q1, CALL), [RESULT, Q2]),
            ((Q1, CALL, RESULT, A1), [RESULT]),
            (FOUR, [Q3]),
            (FOUR, [Q1]),
            (FOUR, [Q3, OTHER, EDITED]),
            (FOUR, [Q3, FORGED, FORGED_RESULT]),
            (FOUR, [Q1, message("assistant", "{")]),
            (FOUR, [SYSTEM, Q3]),
        ],
    )
    def test_new_messages_are_no_history(self, stored: Sequence[Message], sent: list[Message]) -> None:
        """New messages alone are accepted: repeated texts, tool results, answers of other models, a prefill."""
        assert sent == _new(stored, sent)


class TestEmptyAnswers:
    """Tests of answers that consist of reasoning, which clients resend empty or omit."""

    @pytest.mark.parametrize("empty", [[], [SILENT], [message("assistant", "")], [message("assistant")]])
    @pytest.mark.parametrize("leading", [[], [DEVELOPER]])
    def test_empty_answers_are_ignored(self, empty: list[Message], leading: list[Message]) -> None:
        """A history is recognized with and without empty answers."""
        assert [*leading, Q2] == _new((Q1, A1, SILENT), [*leading, Q1, A1, *empty, Q2])


class TestCost:
    """Tests of the cost of a comparison."""

    def test_of_many_equal_messages(self) -> None:
        """A history of equal messages is compared in linear time, even without a match."""
        stored = [YES, OK] * 2000
        sent = [*[YES, OK] * 900, Q1, OK, *[YES, OK] * 900]
        with pytest.raises(InvalidRequest):
            _new(stored, [*sent, YES])

    @pytest.mark.parametrize(("sent", "expected"), [([Q1], False), ([RESULT, Q1], False), ([Q1, A1, Q2], True)])
    def test_only_with_an_answer(self, sent: list[Message], expected: bool) -> None:
        """A request without an answer is not compared at all."""
        assert expected is may_repeat(sent)


class TestKnownSystemMessages:
    """Tests of system messages that are part of every request."""

    @pytest.mark.parametrize(
        ("status", "sent", "expected"),
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
    def test_leading_known_messages_are_removed(
        self, status: list[Message], sent: list[Message], expected: list[Message]
    ) -> None:
        """Leading system messages that the session contains are removed, unless the request would be empty."""
        assert expected == list(without_known_system(status, sent))
