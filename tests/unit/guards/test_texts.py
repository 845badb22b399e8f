"""The texts of requests, and their replacement."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.json_format import Parse

from parley.core.guards.decisions import Span
from parley.core.guards.texts import choice_texts, drop_repetitions, has_media, redact, request_texts, unreadable_part
from parley.core.messages.proto_json import from_message
from parley.guard.v1 import guard_pb2 as guard
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest


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


def test_images_in_unknown_fields_are_no_text() -> None:
    """Images that a model or a client has beside the content are media, and no text that a guard gets."""
    images = json.dumps({"images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}], "note": "n"})
    request = request_of({"role": "user", "content": "a", "extra_json": images})
    assert "messages[0]" == unreadable_part(request)
    assert [(guard.KIND_CONTENT, "a"), (guard.KIND_OTHER, '{"note":"n"}')] == kinds(request)
    assert has_media(request.messages[0])
    assert not has_media(request_of({"role": "user", "extra_json": '{"note": "\\"images\\""}'}).messages[0])
    parts = [{"type": "image_url", "image_url": {"url": "u"}, "note": "words"}]
    assert has_media(request_of({"role": "assistant", "content": parts}).messages[0])
    assert [(guard.KIND_OTHER, '{"note":"words"}')] == kinds(request_of({"role": "user", "content": parts}))


ANSWER = {
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "c",
                "annotations": [{"title": "secret"}],
                "extra_json": '{"annotations":[{"title":"secret","n":1.50}],"thought":"secret"}',
                "audio": {"id": "a", "extra_json": '{"note":"secret"}'},
                "tool_calls": [
                    {
                        "id": "1",
                        "extra_json": '{"note":"secret"}',
                        "function": {"name": "f", "extra_json": '{"note":"secret"}'},
                        "custom": {"name": "f", "extra_json": '{"note":"secret"}'},
                    }
                ],
                "function_call": {"name": "f", "extra_json": '{"note":"secret"}'},
            },
            "extra_json": '{"stop_text":"secret"}',
        }
    ],
    "extra_json": '{"citations":["secret"]}',
}


def test_unknown_fields_of_every_object_of_an_answer_are_units() -> None:
    """What a vendor adds to calls, to a choice or to the answer is checked, and a span removes it everywhere."""
    answer = Parse(json.dumps(ANSWER), ChatCompletion())
    texts = choice_texts(answer, 0)
    redact(texts, {number: [Span(0, 1, "")] for number, one in enumerate(texts) if "secret" in one.unit.text})
    assert "secret" not in str(answer)
    assert "c" == answer.choices[0].message.content.string_value


def test_what_repeats_a_redacted_text_is_dropped() -> None:
    """Annotations go in both of their forms, with the unknown fields of message and choice; those of calls stay."""
    answer = Parse(json.dumps(ANSWER), ChatCompletion())
    answer.choices[0].logprobs.content.add(token="secret")
    drop_repetitions(answer.choices[0])
    choice = answer.choices[0]
    assert (False, [], "", "") == (
        choice.HasField("logprobs"),
        list(choice.message.annotations),
        choice.message.extra_json,
        choice.extra_json,
    )
    assert choice.message.tool_calls[0].extra_json


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 5000, '"images"'])
def test_unknown_fields_that_are_no_object_are_text(text: str) -> None:
    """A backend that sends invalid text causes no error: guards get it as it is, and a span removes it."""
    request = request_of({"role": "assistant", "extra_json": text})
    [found] = request_texts(request)
    assert (guard.KIND_OTHER, text, False) == (found.unit.kind, found.unit.text, has_media(request.messages[0]))
    redact([found], {0: [Span(0, 1, "")]})
    assert "" == request.messages[0].extra_json
