"""Estimates of tokens from bytes of text."""

import pytest

from parley.core.usage import tokens
from parley.v1.message_pb2 import Delta, FunctionCallDelta, Message, ToolCallDelta
from tests.unit.messages.making import call, message


@pytest.mark.parametrize(("size", "up", "down"), [(0, 0, 0), (1, 1, 0), (4, 1, 1), (5, 2, 1)])
def test_four_bytes_are_a_token(size: int, up: int, down: int) -> None:
    """Estimates of usage are rounded up; those that shorten an answer or a history are rounded down."""
    assert (up, down) == (tokens.estimate_tokens(size), tokens.estimate_full_tokens(size))


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        (Message(), 4),
        (message("user", "äö"), 5),
        (message("assistant", "abcd", reasoning_content="abcd", refusal="abcd"), 7),
        (message("assistant", tool_calls=[call("name", "{a:1}123")]), 7),
        (message("user", [{"type": "text", "text": "abcd"}, {"type": "image_url", "image_url": {"url": "x"}}]), 1005),
    ],
    ids=["empty", "bytes of UTF-8", "texts", "calls", "an image"],
)
def test_tokens_of_a_message(counted: Message, expected: int) -> None:
    """A message has an overhead of four tokens; an image counts as a thousand."""
    assert expected == tokens.message_tokens(counted)


def test_output_and_charged_sizes_differ_in_calls_and_transcripts() -> None:
    """Generated output counts names and arguments; rate limits count the serialized call."""
    delta = Delta(tool_calls=[ToolCallDelta(index=0, function=FunctionCallDelta(name="f", arguments="{}"))])
    assert (3, delta.tool_calls[0].ByteSize()) == (tokens.output_size(delta), tokens.charged_size(delta))
    delta = Delta(content="abc", reasoning_content="ä")
    delta.audio.transcript = "la"
    assert (7, 5) == (tokens.output_size(delta), tokens.charged_size(delta))
