"""Server-sent events of chunks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from parley.core.errors import ParleyError, StreamBroken, UpstreamRejected
from parley.rpc import errors
from parley.rpc.error_catalogue import SERVICE
from parley.rpc.sse import DONE, KEEP_ALIVE, EventWriter, error_event
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import Delta, Logprobs, TokenLogprob

EDGE_GOLDEN = Path(__file__).parents[2] / "edge" / "golden" / "errors_openai.json"
GOLDEN = Path(__file__).parents[1] / "golden" / "events.txt"


def _chunk(delta: Delta | None = None, **choice: Any) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk(
        session_id="s", id="chatcmpl-1", object="chat.completion.chunk", created=5, model="m", sequence=3
    )
    if delta is not None:
        chunk.choices.add(index=0, delta=delta, **choice)
    return chunk


def _full_delta() -> Delta:
    delta = Delta(role="assistant", content="", refusal="no", reasoning_content="because")
    delta.tool_calls.add(index=0, id="call_1", type="function", function={"name": "f", "arguments": ""})
    delta.function_call.name = "g"
    delta.annotations.add().update({"type": "url_citation"})
    return delta


CHUNKS = {
    "role": _chunk(Delta(role="assistant", content="")),
    "text": _chunk(Delta(content='né "x"\n\u2028 \U0001f600')),
    "everything": _chunk(_full_delta()),
    "finish": _chunk(Delta(), finish_reason="stop"),
    "logprobs": _chunk(
        Delta(content="a"), logprobs=Logprobs(content=[TokenLogprob(token="a", logprob=-0.0, bytes=[97])])
    ),
    "usage": _chunk(),
}
CHUNKS["usage"].usage.prompt_tokens = 0
CHUNKS["usage"].system_fingerprint = "fp"


@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize("kind", CHUNKS)
def test_an_event_is_the_chunks_json_and_null_until_it_finishes(kind: str, nulls: bool) -> None:
    """Every kind of chunk is written as protobuf's JSON with `finish_reason: null`, and with OpenAI's other nulls."""
    event = EventWriter(include_usage=True, nulls=nulls).event(CHUNKS[kind])
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert 2 == event.count(b"\n")
    expected = MessageToDict(CHUNKS[kind])
    del expected["sequence"]
    expected.setdefault("choices", [])
    for choice in expected["choices"]:
        choice.setdefault("finish_reason", None)
        if nulls and choice.setdefault("logprobs", None):
            choice["logprobs"]["refusal"] = None
            choice["logprobs"]["content"][0]["top_logprobs"] = []
    assert expected == json.loads(event[6:])


@pytest.mark.parametrize("nulls", [True, False])
def test_the_stamp_comes_first_and_in_the_order_of_the_proto(nulls: bool) -> None:
    """The keys of an event are in the order of the API documents."""
    body = json.loads(EventWriter(include_usage=True, nulls=nulls).event(CHUNKS["text"])[6:])
    assert ["chatSessionId", "id", "object", "created", "model", "choices"] == list(body)
    assert ["index", "delta", *(["logprobs"] if nulls else []), "finish_reason"] == list(body["choices"][0])


@pytest.mark.parametrize("is_requested", [True, False])
def test_moderation_is_always_written(is_requested: bool) -> None:
    """The last chunk has the moderation, beside the usage or alone where no usage is requested."""
    chunk = _chunk()
    chunk.usage.prompt_tokens = 0
    chunk.moderation.update({"input": {"flagged": False}})
    event, done = EventWriter(include_usage=is_requested).events([chunk])
    assert DONE == done
    body = json.loads(event[6:])
    assert ([], {"input": {"flagged": False}}, is_requested) == (body["choices"], body["moderation"], "usage" in body)


def test_unknown_fields_are_written_at_their_level() -> None:
    """Unknown fields of chunks, choices and deltas are written exactly, even in a chunk with no other field."""
    chunk = _chunk(Delta(content="a", extra_json='{"x": 18446744073709551616}'), extra_json='{"y": 1.50}')
    chunk.extra_json = '{"z": {}, "id": "not theirs"}'
    event = EventWriter(include_usage=False).event(chunk)
    assert b'"delta":{"content":"a","x":18446744073709551616}' in event
    assert b'"finish_reason":null,"y":1.50}' in event
    assert event.endswith(b',"z":{}}\n\n')
    last = _chunk()
    last.usage.prompt_tokens = 0
    last.extra_json = '{"citations":["u"]}'
    assert b'"choices":[],"citations":["u"]}' in EventWriter(include_usage=False).event(last)


def test_usage_is_written_only_on_request() -> None:
    """Without `include_usage` the chunk with the usage has no event."""
    assert b"" == EventWriter(include_usage=False).event(CHUNKS["usage"])


def test_several_choices_share_an_event() -> None:
    """The choices of one chunk are one event, each with its index."""
    chunk = _chunk(Delta(content="a"))
    chunk.choices.add(index=1, delta=Delta(content="b"))
    body = json.loads(EventWriter(include_usage=False).event(chunk)[6:])
    assert [(0, "a"), (1, "b")] == [(choice["index"], choice["delta"]["content"]) for choice in body["choices"]]


def test_an_error_event_names_the_reason() -> None:
    """The error event of a failed stream has the shape that OpenAI's SDKs parse."""
    body = json.loads(error_event(StreamBroken("broke off"))[6:])
    assert {"message": "broke off", "type": "server_error", "param": None, "code": "stream_broken"} == body["error"]


@pytest.mark.parametrize("reason", SERVICE)
def test_an_error_is_the_same_before_and_after_the_first_event(reason: Any) -> None:
    """The type and the code of every reason equal those that the edge returns with a status."""
    error = ParleyError("why")
    error.reason = reason
    shown = json.loads(EDGE_GOLDEN.read_text(encoding="utf-8"))[errors.name(error)]["body"]["error"]
    event = json.loads(error_event(error)[6:])["error"]
    assert (shown["type"], shown["code"]) == (event["type"], event["code"])


def test_an_upstream_s_own_code_is_in_the_event() -> None:
    """The error event of a rejected request has the upstream's code."""
    error = UpstreamRejected("why", param="messages", code="content_filter")
    expected = {"message": "why", "type": "invalid_request_error", "param": "messages", "code": "content_filter"}
    assert {"error": expected} == json.loads(error_event(error)[6:])


@pytest.mark.parametrize(
    ("form", "body"),
    [("text", {"error": 'broke "off"'}), ("detail", {"detail": 'broke "off"'})],
)
def test_an_error_event_has_the_format_of_the_dialect(form: str, body: dict[str, str]) -> None:
    """The error event has the format of the dialect."""
    assert body == json.loads(error_event(StreamBroken('broke "off"'), form)[6:])


def test_events_are_those_of_the_golden_file() -> None:
    """Every kind of chunk is written byte by byte as in the golden file; three chunks have no event."""
    writer = EventWriter(include_usage=True)
    events = {kind: writer.event(chunk) for kind, chunk in CHUNKS.items()}
    events |= {"error": error_event(StreamBroken("broke off")), "keep-alive": KEEP_ALIVE, "done": DONE}
    text = "".join(f"# {kind}\n{event.decode()}" for kind, event in events.items())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    expected = GOLDEN.read_text(encoding="utf-8")
    assert expected == text
