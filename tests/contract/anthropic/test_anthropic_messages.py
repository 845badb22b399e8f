"""Conversion of conversations to Anthropic's Messages API."""

from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import InvalidRequest, UnsupportedParameter, UpstreamRejected
from parley.core.messages.typed_fields import json_fields
from parley.v1.message_pb2 import Message
from tests.contract.anthropic.requests import rejection, sent
from tests.contract.anthropic_api import block_start, delta, ends, error, message, start, text_block
from tests.contract.backends import call, collect, text
from tests.upstream import Events, Json, ScriptedUpstream

PDF = "data:application/pdf;base64,JVBERi0="
PNG = "data:image/png;base64,iVBORw0KGgo="
RESULT = {"role": "tool", "tool_call_id": "c", "content": "42"}


def tool_call(call_id: str = "c", arguments: str = '{"b":1,"a":2}', **more: Any) -> dict[str, Any]:
    """Creates an assistant message with one tool call."""
    function = {"name": "f", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}], **more}


def use(call_id: str = "c", arguments: Any = None) -> dict[str, Any]:
    """Creates the expected tool-use block."""
    return {
        "type": "tool_use",
        "id": call_id,
        "name": "f",
        "input": {"b": 1, "a": 2} if arguments is None else arguments,
    }


def result(call_id: str = "c", *blocks: dict[str, Any]) -> dict[str, Any]:
    """Creates the expected tool-result block."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(blocks) or [text_block("42")]}


async def messages_sent(backend: Anthropic, upstream: ScriptedUpstream, *messages: dict[str, Any]) -> list[Any]:
    """Returns the messages that the upstream receives."""
    found: list[Any] = (await sent(backend, upstream, messages=list(messages)))["messages"]
    return found


async def test_system(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """System and developer messages at any position become the system prompt."""
    parts = [{"type": "text", "text": "c"}, {"type": "text", "text": "d", "cache_control": {"type": "ephemeral"}}]
    body = await sent(
        backend,
        upstream,
        messages=[
            {"role": "system", "content": "a"},
            {"role": "user", "content": "hi"},
            {"role": "developer", "content": "b"},
            {"role": "system", "content": parts},
            {"role": "system", "content": ""},
        ],
    )
    assert [
        text_block("a"),
        text_block("b"),
        text_block("c"),
        text_block("d", cache_control={"type": "ephemeral"}),
    ] == body["system"]
    assert [{"role": "user", "content": [text_block("hi")]}] == body["messages"]


async def test_roles_alternate(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Adjacent messages of one role are merged; empty messages are dropped."""
    found = await messages_sent(
        backend,
        upstream,
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": None, "refusal": "d"},
        {"role": "assistant", "content": " \n"},
        {"role": "user", "content": "e"},
    )
    assert [
        {"role": "user", "content": [text_block("a"), text_block("b")]},
        {"role": "assistant", "content": [text_block("c"), text_block("d")]},
        {"role": "user", "content": [text_block("e")]},
    ] == found


async def test_tool_round(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Tool calls follow the text of their message; all results of a round precede the user's text in one message."""
    first = tool_call("c1", content="Let me see.")
    first["tool_calls"] += tool_call("c2", "")["tool_calls"]
    found = await messages_sent(
        backend,
        upstream,
        {"role": "user", "content": "go"},
        first,
        RESULT | {"tool_call_id": "c1", "name": "f"},
        RESULT | {"tool_call_id": "c2", "content": [{"type": "text", "text": "x"}, image(PNG)]},
        {"role": "user", "content": "well?"},
    )
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    assert [
        {"role": "user", "content": [text_block("go")]},
        {"role": "assistant", "content": [text_block("Let me see."), use("c1"), use("c2", {})]},
        {"role": "user", "content": [result("c1"), result("c2", text_block("x"), picture), text_block("well?")]},
    ] == found


async def test_empty_tool_result(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """An empty tool result is sent."""
    found = await messages_sent(backend, upstream, tool_call(content=""), RESULT | {"content": ""})
    assert [use()] == found[0]["content"]
    assert [{"type": "tool_result", "tool_use_id": "c"}] == found[1]["content"]


async def test_ids_of_other_vendors(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Unsupported characters of a tool call id are replaced, equally in call and result."""
    found = await messages_sent(
        backend, upstream, tool_call("functions.f:0"), RESULT | {"tool_call_id": "functions.f:0"}
    )
    assert [use("functions_f_0")] == found[0]["content"]
    assert [result("functions_f_0")] == found[1]["content"]


@pytest.mark.parametrize("arguments", ["{", "[]", "3", '{}, "id": "x"', "{}}", "nonsense"])
async def test_arguments_must_be_an_object(backend: Anthropic, upstream: ScriptedUpstream, arguments: str) -> None:
    """Arguments that are not a JSON object are rejected, so they cannot change the enclosing body."""
    error = await rejection(backend, upstream, messages=[tool_call(arguments=arguments), RESULT])
    assert (InvalidRequest, "messages[0].tool_calls[0].function.arguments") == (type(error), error.param)


async def test_reasoning_is_not_sent(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Reasoning without a signature is not sent, because the API rejects it."""
    earlier = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    found = await messages_sent(backend, upstream, earlier, {"role": "user", "content": "c"})
    assert {"role": "assistant", "content": [text_block("b")]} == found[0]


def image(url: str, **more: Any) -> dict[str, Any]:
    """Creates an image part of a request."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: Any) -> dict[str, Any]:
    """Creates a file part of a request."""
    return {"type": "file", "file": fields}


def base64(kind: str, media: str, data: str, **more: Any) -> dict[str, Any]:
    """Creates the expected image or document block."""
    return {"type": kind, "source": {"type": "base64", "media_type": media, "data": data}, **more}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "x"}, text_block("x")),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            text_block("x", cache_control={"type": "ephemeral", "ttl": "1h"}),
        ),
        (image("https://x.org/a.png"), {"type": "image", "source": {"type": "url", "url": "https://x.org/a.png"}}),
        (image(PNG, detail="auto"), base64("image", "image/png", "iVBORw0KGgo=")),
        (image("data:image/JPG;charset=x;base64,AA==", detail="high"), base64("image", "image/jpeg", "AA==")),
        (image(PNG) | {"cache_control": {}}, base64("image", "image/png", "iVBORw0KGgo=", cache_control={})),
        (file(file_data=PDF), base64("document", "application/pdf", "JVBERi0=")),
        (file(file_data=PDF, filename="a.pdf"), base64("document", "application/pdf", "JVBERi0=", title="a.pdf")),
    ],
)
async def test_parts(
    backend: Anthropic, upstream: ScriptedUpstream, part: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Text, images and PDF files are converted to Anthropic's blocks."""
    found = await messages_sent(backend, upstream, {"role": "user", "content": [part]})
    assert [expected] == found[0]["content"]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, "type"),
        ({"type": "video", "video": {}}, "type"),
        ({"type": "text", "text": "x", "prompt_cache_breakpoint": {}}, "prompt_cache_breakpoint"),
        (image(PNG, detail="low"), "image_url.detail"),
        (image(PNG, format="x"), "image_url.format"),
        (image("data:image/tiff;base64,AA=="), "image_url.url"),
        (file(file_id="file-1"), "file.file_id"),
        (file(file_data="data:text/csv;base64,AA=="), "file.file_data"),
        (file(file_data="data:;base64,AA=="), "file.file_data"),
    ],
)
async def test_unsupported_parts(
    backend: Anthropic, upstream: ScriptedUpstream, part: dict[str, Any], param: str
) -> None:
    """A part without an equivalent is rejected by path."""
    error = await rejection(
        backend, upstream, messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
    )
    assert (UnsupportedParameter, f"messages[0].content[1].{param}") == (type(error), error.param)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "text"}, "text"),
        ({"type": "text", "text": 3}, "text"),
        ({"type": "image_url"}, "image_url"),
        ({"type": "image_url", "image_url": "u"}, "image_url"),
        ({"type": "image_url", "image_url": {}}, "image_url.url"),
        (image("data:image/png,AA"), "image_url.url"),
        ({"type": "file"}, "file"),
        (file(), "file.file_data"),
        (file(file_data="JVBERi0="), "file.file_data"),
    ],
)
async def test_invalid_parts(backend: Anthropic, upstream: ScriptedUpstream, part: dict[str, Any], param: str) -> None:
    """An invalid part is rejected by path."""
    error = await rejection(backend, upstream, messages=[{"role": "user", "content": [part]}])
    assert (InvalidRequest, f"messages[0].content[0].{param}") == (type(error), error.param)


CUSTOM_CALL = {"id": "c", "type": "custom", "custom": {"name": "g", "input": "x"}}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "name": "ada"}, "name"),
        ({"role": "system", "content": "x", "name": "ada"}, "name"),
        ({"role": "assistant", "content": "x", "name": "ada"}, "name"),
        ({"role": "assistant", "audio": {"id": "a"}}, "audio"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
        ({"role": "function", "content": "x"}, "role"),
        ({"role": "assistant", "tool_calls": [CUSTOM_CALL]}, "tool_calls[0].type"),
        ({"role": "system", "content": [image(PNG)]}, "content[0].type"),
        ({"role": "assistant", "content": [image(PNG)]}, "content[0].type"),
    ],
)
async def test_unsupported_messages(
    backend: Anthropic, upstream: ScriptedUpstream, message: dict[str, Any], param: str
) -> None:
    """A message field without an equivalent is rejected by path."""
    error = await rejection(backend, upstream, messages=[message, {"role": "user", "content": "y"}])
    assert (UnsupportedParameter, f"messages[0].{param}") == (type(error), error.param)


def test_no_field_of_a_message_is_forgotten() -> None:
    """The tests above cover each field of a message; `annotations` is not a request field."""
    shown = {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "reasoning_content"}
    assert {field.name for field in json_fields(Message.DESCRIPTOR)} == {
        *shown,
        "audio",
        "annotations",
        "extra",
        "extra_json",
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_continuation(backend: Anthropic, upstream: ScriptedUpstream, stream: bool) -> None:
    """A continuation ends with the beginning of the answer, and the response continues it."""
    started = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}]
    upstream_call = call(messages=started, continues=True)
    if stream:
        upstream.answer(Events([start(), block_start(), delta(text="lo."), *ends()]))
        assert "lo." == text(await collect(backend, upstream_call))
    else:
        upstream.answer(message(text_block("lo.")))
        assert "lo." == (await backend.complete(upstream_call)).choices[0].message.content.string_value
    assert {"role": "assistant", "content": [text_block("Hel")]} == upstream.requests[0].json["messages"][-1]
    assert backend.supports_prefill


async def test_rejected_prefill(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A model without prefill rejects a continuation."""
    upstream.answer(Json(error("invalid_request_error", "This model does not support assistant message prefill."), 400))
    started = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}]
    with pytest.raises(UpstreamRejected, match="does not support assistant message prefill"):
        await backend.complete(call(messages=started, continues=True))


async def test_prefill_off() -> None:
    """`prefill: off` disables continuations for a backend."""
    for prefill in (True, False):
        backend = Anthropic("http://127.0.0.1", None, 1, prefill=prefill)
        assert prefill is backend.supports_prefill
        await backend.close()


async def test_assistant_last(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A final assistant message without `continue_final_message` is rejected, because the API would continue it."""
    started = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}]
    error = await rejection(backend, upstream, messages=started)
    assert (UnsupportedParameter, "messages[1].role") == (type(error), error.param)
    assert "`continue_final_message`" in error.message
