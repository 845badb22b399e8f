"""Answers that are one text: their JSON is that of their message."""

from collections.abc import Callable

import pytest

from parley.core.messages.proto_json import dumps, from_message
from parley.core.messages.text_completion import TextCompletion, TokenCounts
from parley.core.streaming.accumulator import stored_answer
from parley.v1.message_pb2 import PromptTokensDetails, Usage

_COUNTS = TokenCounts(3, 2, 5)
_USAGE = Usage(
    prompt_tokens=3,
    completion_tokens=2,
    total_tokens=5,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=1),
    extra_json='{"queue_time":0.10}',
)


def _stamp(answer: TextCompletion) -> None:
    answer.id, answer.object, answer.created, answer.model = "chatcmpl-1", "chat.completion", 1_800_000_000, "m"


def _add_session(answer: TextCompletion) -> None:
    answer.session_id = "0190"


def _add_metadata(answer: TextCompletion) -> None:
    answer.system_fingerprint, answer.service_tier = "fp_1", ""


@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize("usage", [_COUNTS, _USAGE, None])
@pytest.mark.parametrize("text", ["Hello", "", 'é\u2028"\\\n\x7f\U0001f600', "{}"])
@pytest.mark.parametrize("change", [_stamp, _add_session, _add_metadata])
def test_the_json_is_that_of_the_message(
    change: Callable[[TextCompletion], None], text: str, usage: TokenCounts | Usage | None, nulls: bool
) -> None:
    """The JSON has the bytes that the conversion of the message has; a session stores the same of both."""
    answer = TextCompletion(text, usage)
    _stamp(answer)
    change(answer)
    assert dumps(from_message(answer.message(), nulls=nulls)) == answer.json(nulls=nulls)
    assert stored_answer(answer.message()) == stored_answer(answer)


def test_the_message_is_made_once() -> None:
    """The store and the caller get the same message, so that what one sets the other has too."""
    answer = TextCompletion("Hello", _COUNTS)
    assert answer.message() is answer.message()


def test_the_counts_are_the_usage() -> None:
    """The message has the counts as its usage."""
    assert (
        Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5) == TextCompletion("Hello", _COUNTS).message().usage
    )
