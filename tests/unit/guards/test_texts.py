"""The texts of requests, and their replacement."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.json_format import Parse

from parley.core.guards.decisions import Span
from parley.core.guards.texts import redact, request_texts, unreadable_part
from parley.core.messages.proto_json import from_message
from parley.guard.v1 import guard_pb2 as guard
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


def request_of(*messages: Any, **more: Any) -> CreateChatCompletionRequest:
    """Returns a request with these messages."""
    return Parse(json.dumps({"messages": messages, **more}), CreateChatCompletionRequest())


def kinds(request: CreateChatCompletionRequest) -> Sequence[tuple[int, str]]:
    """Returns kind and text of each unit."""
    return [(one.unit.kind, one.unit.text) for one in request_texts(request)]


EVERYTHING = request_of(
    {"role": "system", "content": "s"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "t", "note": "n"},
            {"type": "refusal", "refusal": "r"},
            {"type": "image_url", "image_url": {"url": "u"}},
        ],
    },
    {
        "role": "assistant",
        "reasoning_content": "think",
        "refusal": "no",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "2", "type": "custom", "custom": {"name": "c", "input": "i"}},
        ],
        "function_call": {"name": "g", "arguments": "[]"},
        "extra_json": '{"thoughts":["deep"]}',
    },
    prediction={"type": "content", "content": "p"},
)


def test_every_text_is_a_unit() -> None:
    """Contents, parts, reasoning, refusals, arguments, predictions and unknown fields are units; images are not."""
    assert [
        (guard.KIND_CONTENT, "s"),
        (guard.KIND_CONTENT, "t"),
        (guard.KIND_OTHER, '{"note":"n"}'),
        (guard.KIND_REFUSAL, "r"),
        (guard.KIND_REASONING, "think"),
        (guard.KIND_REFUSAL, "no"),
        (guard.KIND_TOOL_ARGUMENTS, "{}"),
        (guard.KIND_TOOL_ARGUMENTS, "i"),
        (guard.KIND_TOOL_ARGUMENTS, "[]"),
        (guard.KIND_OTHER, '{"thoughts":["deep"]}'),
        (guard.KIND_CONTENT, "p"),
    ] == kinds(EVERYTHING)


def test_every_unit_can_be_replaced() -> None:
    """Replacing every unit leaves none of the texts; unknown fields are removed."""
    copy = CreateChatCompletionRequest()
    copy.CopyFrom(EVERYTHING)
    texts = request_texts(copy)
    redact(texts, {number: [Span(0, len(one.unit.text), "X")] for number, one in enumerate(texts)})
    assert [one for one in kinds(EVERYTHING) if one[0] != guard.KIND_OTHER] != kinds(copy)
    assert {"X"} == {text for _, text in kinds(copy)}
    user = from_message(copy.messages[1])["content"]
    assert [["text", "type"], ["refusal", "type"], ["image_url", "type"]] == [sorted(part) for part in user]


def test_the_exact_text_of_a_redacted_content_is_dropped() -> None:
    """`extra_json` may have the content with exact numbers, which would otherwise replace the redacted one."""
    part = {"type": "text", "text": "secret", "n": 1}
    exact = json.dumps({"content": [part], "own": 1})
    request = request_of({"role": "user", "content": [part], "extra_json": exact})
    redact(request_texts(request), {0: [Span(0, 6, "X")]})
    assert "secret" not in request.SerializeToString().decode(errors="ignore")
    assert {"own": 1} == json.loads(request.messages[0].extra_json)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("text", None),
        ([{"type": "text", "text": "a"}], None),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}], "messages[0].content[1]"),
        ([{"type": "text", "text": "a", "file": {"file_id": "x"}}], "messages[0].content[0]"),
        ([{"type": "video_url", "video_url": {"url": "u"}}], "messages[0].content[0]"),
    ],
)
def test_what_no_guard_can_read_is_named(content: Any, path: str | None) -> None:
    """The first part that is not text is named by its path, also one of a type that Parley does not know."""
    assert path == unreadable_part(request_of({"role": "user", "content": content}))
