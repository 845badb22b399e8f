"""Unknown fields are preserved on the full path: to the upstream, to the caller, and in sessions."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from parley.core.messages.proto_json import dumps, from_message
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import lossless, lossless_data
from tests.processes import Parley, started
from tests.upstream import DONE, Events, Raw, ScriptedUpstream

NEAR = """\
backends: {{open: {{kind: openai, base_url: "{url}", extra_body: all}}}}
models: [{{id: open, targets: [{{backend: open}}]}}]
"""
FAR = """\
backends: {{near: {{kind: parley, target: "{target}", api_key: "{key}"}}}}
models: [{{id: open, targets: [{{backend: near}}]}}]
"""
# Sent unchanged to a backend with OpenAI's API. `metadata`, `functions` and fields of answers alone are not.
REQUEST = {
    name: value
    for name, value in lossless_data.REQUEST.items()
    if name not in ("metadata", "functions", "stream_options")
}
REQUEST["model"] = "open"
REQUEST["messages"] = [
    {name: value for name, value in message.items() if name not in ("annotations", "reasoning_content")}
    for message in lossless_data.REQUEST["messages"][:5]
]
SENT = lossless.with_members(REQUEST, lossless_data.request_is_open)
SHORT_REQUEST: dict[str, Any] = {
    "model": "open",
    "messages": [{"role": "user", "content": "Hi"}],
    "logprobs": True,
    "top_logprobs": lossless.Number(2),
}
STREAMED = SHORT_REQUEST | {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def near(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley in front of the scripted upstream."""
    file = tmp_path_factory.mktemp("near") / "parley.yaml"
    file.write_text(NEAR.format(url=the_upstream.url))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


@pytest.fixture(scope="module")
def far(near: Parley, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley in front of the other one."""
    file = tmp_path_factory.mktemp("far") / "parley.yaml"
    file.write_text(FAR.format(target=near.grpc, key=near.key))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


def call(parley: Parley, body: Any, method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> str:
    """Makes a REST call; returns the body of the answer."""
    headers |= {"authorization": f"Bearer {parley.key}", "content-type": "application/json"}
    content = None if body is None else lossless.write(body).encode()
    response = httpx.request(method, parley.http + path, content=content, headers=headers, timeout=60)
    assert 200 == response.status_code, response.text
    return response.text


def call_grpc(parley: Parley, body: Any, *, typed: bool = False) -> ChatCompletion:
    """Makes a gRPC call."""
    request = lossless.to_message(body, CreateChatCompletionRequest(), typed=typed)
    with grpc.insecure_channel(parley.grpc) as channel:
        metadata = (("authorization", f"Bearer {parley.key}"),)
        return ChatCompletionsStub(channel).CreateChatCompletion(request, metadata=metadata)


def rest_of(answer: ChatCompletion) -> Any:
    """Returns an answer over gRPC as the JSON of REST."""
    return lossless.read(dumps(from_message(answer)))


def complete_answer(data: Any) -> Raw:
    """Scripts the exact bytes of a complete answer."""
    body = lossless.write(data).encode()
    return Raw(
        [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]
    )


@pytest.mark.parametrize("name", ["near", "far"])
@lossless.examples(15)
@given(sent=SENT, typed=st.booleans())
def test_a_request_reaches_the_upstream(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str, sent: Any, typed: bool
) -> None:
    """Every object is preserved over REST and over gRPC with both forms of content, through one Parley and two."""
    parley: Parley = request.getfixturevalue(name)
    upstream.reset()
    upstream.answer(complete_answer(lossless_data.ANSWER), complete_answer(lossless_data.ANSWER))
    call(parley, sent | {"store": False})
    lossless.require_in(sent, lossless.read(upstream.requests[0].raw))
    call_grpc(parley, sent | {"store": False}, typed=typed)
    lossless.require_in(sent, lossless.read(upstream.requests[1].raw))


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_choice_with_large_numbers_reaches_the_upstream(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str
) -> None:
    """The edge moves an inexact field among the unknown ones; a caller that sends a known field there is rejected."""
    parley: Parley = request.getfixturevalue(name)
    upstream.answer(complete_answer(lossless_data.ANSWER))
    choice = '{"type":"function","function":{"name":"f"},"n":18446744073709551617,"d":0.10000000000000000001}'
    sent = lossless.read(lossless.write(REQUEST | {"store": False}))
    sent["tool_choice"] = lossless.read(choice)
    call(parley, sent)
    assert choice in upstream.requests[0].raw.decode()
    sent["extra_body"] = {"tool_choice": "auto"}
    del sent["tool_choice"]
    headers = {"authorization": f"Bearer {parley.key}", "content-type": "application/json"}
    rejected = httpx.post(
        parley.http + "/v1/chat/completions", content=lossless.write(sent).encode(), headers=headers, timeout=60
    )
    assert (400, "extra_body.tool_choice") == (rejected.status_code, rejected.json()["error"]["param"])


@pytest.mark.parametrize("name", ["near", "far"])
@lossless.examples(10)
@given(
    answer=lossless.with_members(lossless_data.ANSWER), body=lossless.with_members(SHORT_REQUEST), streams=st.booleans()
)
def test_an_answer_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str, answer: Any, body: Any, streams: bool
) -> None:
    """An answer is preserved over REST and gRPC, in a replay, and in the session: messages, fork, export, next turn."""
    parley: Parley = request.getfixturevalue(name)
    upstream.reset()
    upstream.answer(*[complete_answer(answer)] * 3)
    expected = {name: value for name, value in answer.items() if name not in lossless.OURS}
    lossless.require_in(expected, rest_of(call_grpc(parley, body | {"store": False})))
    key = {"idempotency-key": str(uuid4())}
    text = call(parley, body, **key)
    lossless.require_in(expected, lossless.read(text))
    again = call(parley, body, **key)
    assert text == again
    require_kept(parley, lossless.read(text)["chatSessionId"], body["messages"][0], expected["choices"][0]["message"])
    require_sent_back(parley, upstream, lossless.read(text)["chatSessionId"], body, expected)


def require_kept(parley: Parley, session: str, body: Any, answer: Any) -> None:
    """Raises AssertionError unless a session, its fork and its export have both messages unchanged."""
    fork = json.loads(call(parley, {}, path=f"/api/v1/sessions/{session}/fork"))["id"]
    for kept in (session, fork):
        listed = lossless.read(call(parley, None, "GET", f"/api/v1/sessions/{kept}/messages"))["messages"]
        lossless.require_in([body, answer], [one["message"] for one in listed])
        exported = call(parley, None, "GET", f"/api/v1/sessions/{kept}/export").rstrip("\n").split("\n")
        lossless.require_in([body, answer], list(map(lossless.read, exported)))


def require_sent_back(parley: Parley, upstream: ScriptedUpstream, session: str, body: Any, answer: Any) -> None:
    """Raises AssertionError unless the next turn of the session sends both messages unchanged."""
    results = [{"role": "tool", "tool_call_id": one, "content": "1"} for one in ("c1", "c2")]
    call(parley, {"model": "open", "chatSessionId": session, "messages": results})
    sent = lossless.read(upstream.requests[-1].raw)["messages"]
    message = answer["choices"][0]["message"]
    # A request has no annotations, and only the id of earlier audio.
    message = {name: value for name, value in message.items() if name != "annotations"}
    dropped = ("expires_at", "data", "transcript")
    message["audio"] = {name: value for name, value in message["audio"].items() if name not in dropped}
    lossless.require_in([body["messages"][0], message], sent[:2])
    assert "annotations" not in sent[1]


@pytest.mark.parametrize("name", ["near", "far"])
@lossless.examples(10)
@given(chunks=lossless_data.streams(), together=st.booleans())
def test_a_stream_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str, chunks: list[Any], together: bool
) -> None:
    """A stream is preserved as events, in a replay, and in the session's messages."""
    parley: Parley = request.getfixturevalue(name)
    upstream.reset()
    upstream.answer(Events([*(f"data: {lossless.write(chunk)}\n\n" for chunk in chunks), DONE], together=together))
    expected = lossless.joined(chunks)
    expected = {name: value for name, value in expected.items() if name not in lossless.OURS}
    key = {"idempotency-key": str(uuid4())}
    for _ in range(2):
        reported = lossless.joined(events_of(call(parley, STREAMED, **key)))
        lossless.require_in(expected, reported)
    listed = lossless.read(call(parley, None, "GET", f"/api/v1/sessions/{reported['chatSessionId']}/messages"))[
        "messages"
    ]
    lossless.require_in(expected["choices"][0]["message"], listed[-1]["message"])
    assert 1 == len(upstream.requests)


def events_of(text: str) -> list[Any]:
    """Returns the events of a complete stream."""
    *events, done, nothing = text.split("\n\n")
    assert ["data: [DONE]", ""] == [done, nothing]
    return [lossless.read(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_streamed_answer_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str
) -> None:
    """Unknown members of chunks, deltas and pieces of tool calls are in the events unchanged."""
    parley: Parley = request.getfixturevalue(name)
    first = '{"role":"assistant","content":"Hi","images":[{"n":18446744073709551617}]}'
    function = '{"name":"f","arguments":"{}","x":null}'
    extra = '"extra_content":{"s":0.10000000000000000001}'
    second = f'{{"tool_calls":[{{"index":0,"id":"c","type":"function",{extra},"function":{function}}}]}}'
    chunk = '{"choices":[{"index":0,"delta":DELTA,"finish_reason":REASON}]}'
    events = [chunk.replace("DELTA", delta).replace("REASON", "null") for delta in (first, second)]
    events.append(chunk.replace("DELTA", "{}").replace("REASON", '"tool_calls"'))
    upstream.answer(Events([*(f"data: {event}\n\n" for event in events), DONE]))
    body = {"model": "open", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "store": False}
    reported = call(parley, body)
    assert '"images":[{"n":18446744073709551617}]' in reported
    assert extra in reported
    assert '"x":null' in reported


def test_structs_of_a_grpc_caller(near: Parley, upstream: ScriptedUpstream) -> None:
    """`extra` of a message is sent in its object, and `extra` of the answer has its unknown fields."""
    upstream.answer(complete_answer(lossless_data.ANSWER | {"citations": ["u"]}))
    message = {"role": "user", "content": "Hi", "extra": {"cache_control": {"type": "ephemeral"}}}
    request = ParseDict({"model": "open", "messages": [message], "store": False}, CreateChatCompletionRequest())
    with grpc.insecure_channel(near.grpc) as channel:
        answer = ChatCompletionsStub(channel).CreateChatCompletion(
            request, metadata=(("authorization", f"Bearer {near.key}"),)
        )
    assert {"type": "ephemeral"} == upstream.requests[0].json["messages"][0]["cache_control"]
    assert '{"citations":["u"]}' == answer.extra_json
    assert "u" == answer.extra.fields["citations"].list_value.values[0].string_value


def test_openai_s_nulls(near: Parley, upstream: ScriptedUpstream) -> None:
    """Required fields of OpenAI's API are present in its dialect, null if unset."""
    body = {"model": "open", "messages": [{"role": "user", "content": "Hi"}], "store": False}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    upstream.answer(*[complete_answer(lossless_data.ANSWER | {"choices": [choice]})] * 2)
    choice = json.loads(call(near, body))["choices"][0]
    assert ["index", "message", "logprobs", "finish_reason"] == list(choice)
    assert (None, None) == (choice["logprobs"], choice["message"]["refusal"])
    assert "logprobs" not in json.loads(call(near, body, path="/api/v1/chat/completions"))["choices"][0]
