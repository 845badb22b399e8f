"""`Idempotency-Key` over REST: a repeated request replays the answer without another call of the model."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import sse
from tests.processes import Parley
from tests.upstream import Events, Gate, Json, ScriptedUpstream, chunks, completion

PATH = "/v1/chat/completions"


def _post(stack: Parley, key: str, text: str = "Hi", **more: Any) -> tuple[int, dict[str, str], bytes]:
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}], **more}
    with stack.connection() as connection:
        connection.request("POST", PATH, json.dumps(body), stack.headers() | {"Idempotency-Key": key})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_a_complete_answer_is_replayed(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A replay has the same bytes, with headers for the replay and the session id."""
    upstream.answer(completion("Hello"))
    first, again = (_post(stack, "e2e-whole") for _ in range(2))
    assert (200, first[2]) == (again[0], again[2])
    assert (None, "true") == (first[1].get("idempotent-replayed"), again[1].get("idempotent-replayed"))
    assert json.loads(first[2])["chatSessionId"] == again[1]["x-chat-session-id"]
    assert 1 == len(upstream.requests)


def test_a_stream_is_replayed(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A replayed stream has the same text and id, and ends with `[DONE]`."""
    upstream.answer(Events([*chunks("Hel", "lo"), "data: [DONE]\n\n"]))
    streams = []
    for _ in range(2):
        status, headers, data = _post(stack, "e2e-stream", stream=True)
        assert (200, True) == (status, headers["content-type"].startswith("text/event-stream"))
        parsed = sse.chunks(data)
        streams.append((parsed[0]["id"], sse.text(parsed)))
    assert "Hello" == streams[0][1]
    assert streams[0] == streams[1]
    assert 1 == len(upstream.requests)


def test_another_request_with_the_key_is_unprocessable(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Another request with the key is a 422, which clients do not retry."""
    upstream.answer(completion("Hello"))
    _post(stack, "e2e-reused")
    status, headers, data = _post(stack, "e2e-reused", "Something else")
    assert (422, "false") == (status, headers["x-should-retry"])
    assert "idempotency_key_reused" == json.loads(data)["error"]["code"]


def test_a_key_in_use_is_a_409(stack: Parley, upstream: ScriptedUpstream) -> None:
    """While the first call runs, the key is a 409 with a delay; then it replays the answer."""
    gate = Gate()
    upstream.answer(Events([gate, *chunks("Hello"), "data: [DONE]\n\n"]))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_post, stack, "e2e-running", stream=True)
        upstream.received()
        status, headers, data = _post(stack, "e2e-running", stream=True)
        assert (409, "true") == (status, headers["x-should-retry"])
        assert 1 <= int(headers["retry-after"]) <= 10  # the rest of the first call's lease
        assert "idempotency_key_in_use" == json.loads(data)["error"]["code"]
        gate.set()
        assert 200 == running.result()[0]
    assert "true" == _post(stack, "e2e-running", stream=True)[1]["idempotent-replayed"]


@pytest.mark.parametrize("status", [400, 500])
def test_a_failure_is_not_kept(stack: Parley, upstream: ScriptedUpstream, status: int) -> None:
    """A failed call can be repeated with its key."""
    key = f"e2e-failed-{status}"
    upstream.answer(Json({"error": {"message": "no"}}, status=status), completion("Hello"))
    assert _post(stack, key)[0] >= 400
    answer = _post(stack, key)
    while answer[0] == 409:
        answer = _post(stack, key)
    assert (200, None) == (answer[0], answer[1].get("idempotent-replayed"))


def test_a_bad_key_is_named(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A key of 256 characters is rejected."""
    status, _, data = _post(stack, "x" * 256)
    assert (400, "Idempotency-Key") == (status, json.loads(data)["error"]["param"])


def test_a_failed_call_can_be_repeated_immediately(stack: Parley, upstream: ScriptedUpstream) -> None:
    """After a failure is reported, every worker accepts the session and the key again."""
    session = json.loads(_post(stack, "e2e-failed")[2])["chatSessionId"]
    for number in range(20):
        upstream.answer(Json({"error": {"message": "no"}}, status=400), completion("Now"))
        key = f"e2e-failed-{number}"
        assert [400, 200] == [_post(stack, key, chatSessionId=session)[0] for _ in range(2)]


def _text(choice: dict[str, Any]) -> str:
    return str((choice.get("message") or choice["delta"]).get("content") or "")


@pytest.mark.parametrize("streamed_first", [False, True])
def test_the_other_form_of_the_answer(stack: Parley, upstream: ScriptedUpstream, streamed_first: bool) -> None:
    """A retry as a stream replays a complete answer, and the reverse."""
    upstream.answer(Events([*chunks("Hel", "lo"), "data: [DONE]\n\n"]) if streamed_first else completion("Hello"))
    key = f"e2e-form-{streamed_first}"
    answers = []
    for is_stream in (streamed_first, not streamed_first):
        status, headers, data = _post(stack, key, stream=is_stream)
        assert 200 == status
        parsed = sse.chunks(data) if is_stream else [json.loads(data)]
        text = "".join(_text(one) for event in parsed for one in event["choices"])
        answers.append((parsed[0]["id"], headers["x-chat-session-id"], text))
    assert "Hello" == answers[0][2]
    assert answers[0] == answers[1]
    assert ("true", 1) == (headers["idempotent-replayed"], len(upstream.requests))


def test_after_its_session_was_deleted(stack: Parley, upstream: ScriptedUpstream) -> None:
    """After the session is deleted, the key is a 404 with a remedy, and makes no second turn."""
    session = json.loads(_post(stack, "e2e-deleted")[2])["chatSessionId"]
    assert 200 == stack.request("DELETE", f"/api/v1/sessions/{session}")[0]
    for is_stream in (False, True):
        status, headers, data = _post(stack, "e2e-deleted", stream=is_stream)
        assert (404, "false") == (status, headers["x-should-retry"])
        assert "use a new key" in json.loads(data)["error"]["message"]
    assert 1 == len(upstream.requests)


def test_forks_and_deletions_are_made_once(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Over REST, every call that writes supports keys."""
    session = json.loads(_post(stack, "e2e-forked")[2])["chatSessionId"]
    calls = [("POST", f"/api/v1/sessions/{session}/fork", "{}"), ("DELETE", f"/api/v1/sessions/{session}", None)]
    for verb, path, body in calls:
        answers = []
        for _ in range(2):
            with stack.connection() as connection:
                connection.request(verb, path, body, stack.headers() | {"Idempotency-Key": f"e2e-{verb}"})
                response = connection.getresponse()
                answers.append((response.status, response.read(), response.getheader("idempotent-replayed")))
        assert [(200, answers[0][1], None), (200, answers[0][1], "true")] == answers


def test_the_same_request_over_grpc(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A key applies to both protocols: an answer over REST is replayed over gRPC, also with tools."""
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 99}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    first = json.loads(_post(stack, "e2e-grpc", tools=tools)[2])
    request = ParseDict(
        {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "tools": tools},
        CreateChatCompletionRequest(),
    )
    metadata = (("authorization", f"Bearer {stack.key}"), ("idempotency-key", "e2e-grpc"))
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = ChatCompletionsStub(channel)
        assert first["id"] == stub.CreateChatCompletion(request, metadata=metadata, timeout=30).id
        chunk = next(iter(stub.StreamChatCompletion(request, metadata=metadata, timeout=30)))
        assert (first["id"], first["chatSessionId"]) == (chunk.id, chunk.session_id)
    assert 1 == len(upstream.requests)
