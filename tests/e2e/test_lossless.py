"""Fields that nobody knows go all the way: to the upstream, to the caller, into sessions and out of them."""

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
from tests import lossless
from tests.processes import Parley, started
from tests.upstream import DONE, Events, Raw, ScriptedUpstream

NEAR = """\
backends: {{open: {{kind: openai, base_url: "{url}"}}}}
models: [{{id: open, targets: [{{backend: open}}]}}]
"""
FAR = """\
backends: {{near: {{kind: parley, target: "{target}", api_key: "{key}"}}}}
models: [{{id: open, targets: [{{backend: near}}]}}]
"""
# What a backend of OpenAI's kind is sent as it is. `metadata` and `functions` are not, nor what answers alone have.
REQUEST = {
    name: value for name, value in lossless.REQUEST.items() if name not in ("metadata", "functions", "stream_options")
}
REQUEST["model"] = "open"
REQUEST["messages"] = [
    {name: value for name, value in message.items() if name not in ("annotations", "reasoning_content")}
    for message in lossless.REQUEST["messages"][:5]
]
SENT = lossless.with_members(REQUEST, lossless.request_is_open)
ASK: dict[str, Any] = {
    "model": "open",
    "messages": [{"role": "user", "content": "Hi"}],
    "logprobs": True,
    "top_logprobs": lossless.Number(2),
}
STREAMED = ASK | {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def near(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley in front of the scripted upstream."""
    file = tmp_path_factory.mktemp("near") / "parley.yaml"
    file.write_text(NEAR.format(url=the_upstream.url))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


@pytest.fixture(scope="module")
def far(near: Parley, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley in front of that one."""
    file = tmp_path_factory.mktemp("far") / "parley.yaml"
    file.write_text(FAR.format(target=near.grpc, key=near.key))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


def call(parley: Parley, body: Any, method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> str:
    """Calls REST, and returns the body of the answer."""
    headers |= {"authorization": f"Bearer {parley.key}", "content-type": "application/json"}
    content = None if body is None else lossless.write(body).encode()
    response = httpx.request(method, parley.http + path, content=content, headers=headers, timeout=60)
    assert 200 == response.status_code, response.text
    return response.text


def call_grpc(parley: Parley, body: Any, *, typed: bool = False) -> ChatCompletion:
    """Calls gRPC."""
    request = lossless.to_message(body, CreateChatCompletionRequest(), typed=typed)
    with grpc.insecure_channel(parley.grpc) as channel:
        metadata = (("authorization", f"Bearer {parley.key}"),)
        return ChatCompletionsStub(channel).CreateChatCompletion(request, metadata=metadata)


def rest_of(answer: ChatCompletion) -> Any:
    """Returns what an answer over gRPC is in JSON."""
    return lossless.read(dumps(from_message(answer)))


def complete_answer(data: Any) -> Raw:
    """An upstream's whole answer, byte by byte."""
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
    """Every object of it, over REST and over gRPC in both forms of content, through one Parley and through two."""
    parley: Parley = request.getfixturevalue(name)
    upstream.reset()
    upstream.answer(complete_answer(lossless.ANSWER), complete_answer(lossless.ANSWER))
    call(parley, sent | {"store": False})
    lossless.require_in(sent, lossless.read(upstream.requests[0].raw))
    call_grpc(parley, sent | {"store": False}, typed=typed)
    lossless.require_in(sent, lossless.read(upstream.requests[1].raw))


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_choice_with_large_numbers_reaches_the_upstream(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str
) -> None:
    """The edge moves such a field among the unknown ones; a caller who puts a field there is refused."""
    parley: Parley = request.getfixturevalue(name)
    upstream.answer(complete_answer(lossless.ANSWER))
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
@given(answered=lossless.with_members(lossless.ANSWER), asked=lossless.with_members(ASK), streams=st.booleans())
def test_an_answer_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str, answered: Any, asked: Any, streams: bool
) -> None:
    """Over REST and gRPC, to the same key again, in the session's messages, its fork, its export and its next turn."""
    parley: Parley = request.getfixturevalue(name)
    upstream.reset()
    upstream.answer(*[complete_answer(answered)] * 3)
    expected = {name: value for name, value in answered.items() if name not in lossless.OURS}
    lossless.require_in(expected, rest_of(call_grpc(parley, asked | {"store": False})))
    key = {"idempotency-key": str(uuid4())}
    text = call(parley, asked, **key)
    lossless.require_in(expected, lossless.read(text))
    again = call(parley, asked, **key)
    assert text == again
    require_kept(parley, lossless.read(text)["chatSessionId"], asked["messages"][0], expected["choices"][0]["message"])
    require_sent_back(parley, upstream, lossless.read(text)["chatSessionId"], asked, expected)


def require_kept(parley: Parley, session: str, asked: Any, answered: Any) -> None:
    """Raises AssertionError unless a session, its fork and its export have both messages as they were."""
    fork = json.loads(call(parley, {}, path=f"/api/v1/sessions/{session}/fork"))["id"]
    for kept in (session, fork):
        listed = lossless.read(call(parley, None, "GET", f"/api/v1/sessions/{kept}/messages"))["messages"]
        lossless.require_in([asked, answered], [one["message"] for one in listed])
        exported = call(parley, None, "GET", f"/api/v1/sessions/{kept}/export").rstrip("\n").split("\n")
        lossless.require_in([asked, answered], list(map(lossless.read, exported)))


def require_sent_back(parley: Parley, upstream: ScriptedUpstream, session: str, asked: Any, answered: Any) -> None:
    """Raises AssertionError unless the session's next turn sends the upstream both messages as they were."""
    results = [{"role": "tool", "tool_call_id": one, "content": "1"} for one in ("c1", "c2")]
    call(parley, {"model": "open", "chatSessionId": session, "messages": results})
    sent = lossless.read(upstream.requests[-1].raw)["messages"]
    said = answered["choices"][0]["message"]
    # A request has no annotations, and of earlier audio the id alone.
    said = {name: value for name, value in said.items() if name != "annotations"}
    gone = ("expires_at", "data", "transcript")
    said["audio"] = {name: value for name, value in said["audio"].items() if name not in gone}
    lossless.require_in([asked["messages"][0], said], sent[:2])
    assert "annotations" not in sent[1]


@pytest.mark.parametrize("name", ["near", "far"])
@lossless.examples(10)
@given(chunks=lossless.streams(), together=st.booleans())
def test_a_stream_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str, chunks: list[Any], together: bool
) -> None:
    """As events, to the same key again, and in the session's messages."""
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
    """Returns the events of a stream that is whole."""
    *events, done, nothing = text.split("\n\n")
    assert ["data: [DONE]", ""] == [done, nothing]
    return [lossless.read(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("name", ["near", "far"])
def test_a_streamed_answer_reaches_the_caller(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, name: str
) -> None:
    """Members of chunks, deltas and pieces of tool calls stand in the events as they came."""
    parley: Parley = request.getfixturevalue(name)
    first = '{"role":"assistant","content":"Hi","images":[{"n":18446744073709551617}]}'
    function = '{"name":"f","arguments":"{}","x":null}'
    extra = '"extra_content":{"s":0.10000000000000000001}'
    second = f'{{"tool_calls":[{{"index":0,"id":"c","type":"function",{extra},"function":{function}}}]}}'
    chunk = '{"choices":[{"index":0,"delta":DELTA,"finish_reason":REASON}]}'
    events = [chunk.replace("DELTA", delta).replace("REASON", "null") for delta in (first, second)]
    events.append(chunk.replace("DELTA", "{}").replace("REASON", '"tool_calls"'))
    upstream.answer(Events([*(f"data: {event}\n\n" for event in events), DONE]))
    ask = {"model": "open", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "store": False}
    reported = call(parley, ask)
    assert '"images":[{"n":18446744073709551617}]' in reported
    assert extra in reported
    assert '"x":null' in reported


def test_a_grpc_caller_sends_and_gets_structs(near: Parley, upstream: ScriptedUpstream) -> None:
    """`extra` of a message is sent in its object, and filled in from the answer's."""
    said = lossless.ANSWER | {"citations": ["u"]}
    upstream.answer(complete_answer(said))
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
    """What OpenAI's API always has is there, in its dialect."""
    ask = {"model": "open", "messages": [{"role": "user", "content": "Hi"}], "store": False}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    upstream.answer(*[complete_answer(lossless.ANSWER | {"choices": [choice]})] * 2)
    choice = json.loads(call(near, ask))["choices"][0]
    assert ["index", "message", "logprobs", "finish_reason"] == list(choice)
    assert (None, None) == (choice["logprobs"], choice["message"]["refusal"])
    assert "logprobs" not in json.loads(call(near, ask, path="/api/v1/chat/completions"))["choices"][0]
