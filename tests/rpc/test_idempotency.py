"""`Idempotency-Key` over gRPC: a repeated call replays the answer and has no other effect."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.core.errors import StreamBroken, UpstreamUnavailable
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests import sse
from tests.processes import until
from tests.rpc.calling import Log, Metadata, chat_request, failure, is_replayed, with_key
from tests.rpc.conftest import Worker
from tests.rpc.scripted import USAGE, chunks, completion

TWICE = pytest.mark.parametrize("model", ["kept", "stateless"])


@TWICE
def test_a_complete_answer_is_replayed(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, log: Log, model: str
) -> None:
    """A replay has the same id, time, session and usage, calls no backend, and is marked in metadata and log."""
    metadata = with_key(ada, f"unary-{model}")
    first, call = chat.CreateChatCompletion.with_call(chat_request(model=model), metadata=metadata)
    assert not is_replayed(call)
    again, call = chat.CreateChatCompletion.with_call(
        chat_request(model=model), metadata=(*metadata, ("x-request-id", f"again-{model}"))
    )
    assert first == again
    assert is_replayed(call)
    assert 1 == len(worker.backend.calls)
    assert log(f"again-{model}", 1)[0]["replayed"]


@TWICE
def test_a_stream_is_replayed_in_the_documented_sequence(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, model: str
) -> None:
    """A replayed stream has role, text, finish reason and usage with the first stamp, perhaps in other pieces."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    metadata = with_key(ada, f"stream-{model}")
    first = list(chat.StreamChatCompletion(chat_request(model=model), metadata=metadata))
    call = chat.StreamChatCompletion(chat_request(model=model), metadata=metadata)
    again = list(call)
    assert is_replayed(call)
    assert _stamps(first[:1]) == _stamps(again)
    assert [0, 1, 2, 3] == [chunk.sequence for chunk in again]
    assert ["", "Hello", ""] == [chunk.choices[0].delta.content for chunk in again[:3]]
    assert ("assistant", "stop") == (again[0].choices[0].delta.role, again[2].choices[0].finish_reason)
    assert ([], USAGE) == (list(again[3].choices), again[3].usage)
    assert 1 == len(worker.backend.calls)


def _stamps(stream: list[ChatCompletionChunk]) -> set[tuple[str, int, str, str]]:
    return {(chunk.id, chunk.created, chunk.model, chunk.session_id) for chunk in stream}


def test_events_are_replayed_and_end_with_done(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """Replayed events end with `[DONE]`, with usage where it is requested."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    request = chat_request(stream=True, stream_options={"include_usage": True})
    metadata = with_key(ada, "events")
    texts = []
    for _ in range(2):
        bodies = list(chat.StreamChatCompletionEvents(request, metadata=metadata))
        parsed = sse.chunks(b"".join(body.data for body in bodies))
        assert 5 == parsed[-1]["usage"]["total_tokens"]
        texts.append((parsed[0]["id"], sse.text(parsed)))
    assert "Hello" == texts[0][1]
    assert texts[0] == texts[1]
    assert 1 == len(worker.backend.calls)


def test_all_choices_logprobs_and_tool_calls_are_replayed(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """A replayed stream has all choices, logprobs and tool calls."""
    token = {"content": [{"token": "x", "logprob": -0.5, "bytes": [120]}]}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    pieces = [
        {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": token}]},
        {"choices": [{"index": 1, "delta": {"tool_calls": [call]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "tool_calls"}]},
    ]
    worker.backend.answer = lambda _: [ParseDict(piece, ChatCompletionChunk()) for piece in pieces]
    metadata = with_key(ada, "everything")
    list(chat.StreamChatCompletion(chat_request(n=2), metadata=metadata))
    again = [
        choice for chunk in chat.StreamChatCompletion(chat_request(n=2), metadata=metadata) for choice in chunk.choices
    ]
    assert [(0, "stop"), (1, "tool_calls")] == [(c.index, c.finish_reason) for c in again if c.finish_reason]
    assert ["x"] == [token.token for choice in again for token in choice.logprobs.content]
    calls = [piece for choice in again if choice.index == 1 for piece in choice.delta.tool_calls]
    assert ("c", "f", "{}") == (calls[0].id, calls[0].function.name, "".join(p.function.arguments for p in calls))


def test_a_retry_adds_no_turn(worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata) -> None:
    """A retry in a session adds no turn."""
    session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    for _ in range(2):
        chat.CreateChatCompletion(chat_request("two", chatSessionId=session_id), metadata=with_key(ada, "turn"))
    session = sessions.GetSession(messages.GetSessionRequest(session_id=session_id), metadata=ada)
    assert 2 == session.turn_count


def test_the_session_in_the_metadata_belongs_to_the_request(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """A session in the body equals one in the metadata; another session makes another request."""
    one, other = (chat.CreateChatCompletion(chat_request(), metadata=ada).session_id for _ in range(2))
    metadata = with_key(ada, "merged")
    first = chat.CreateChatCompletion(chat_request("two", chatSessionId=one), metadata=metadata)
    assert first == chat.CreateChatCompletion(chat_request("two"), metadata=(*metadata, ("x-chat-session-id", one)))
    error = failure(chat.CreateChatCompletion, chat_request("two"), (*metadata, ("x-chat-session-id", other)))
    assert grpc.StatusCode.FAILED_PRECONDITION == error.code()


def test_another_request_with_the_key_is_rejected(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A key cannot be used for another request."""
    metadata = with_key(ada, "reused")
    chat.CreateChatCompletion(chat_request("one"), metadata=metadata)
    error = failure(chat.CreateChatCompletion, chat_request("two"), metadata)
    assert grpc.StatusCode.FAILED_PRECONDITION == error.code()
    assert "IDEMPOTENCY_KEY_REUSED" == dict(error.trailing_metadata())["parley-error-reason"]


def test_while_the_first_call_runs_the_key_is_in_use(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A second call is rejected while the first one runs, and then gets its answer."""
    gate = asyncio.Event()
    worker.backend.answer = lambda _: gate
    metadata = with_key(ada, "running")
    running: Any = chat.CreateChatCompletion.future(chat_request(), metadata=metadata)
    worker.wait_for_calls(1)
    error = failure(chat.CreateChatCompletion, chat_request(), metadata)
    trailing = dict(error.trailing_metadata())
    assert grpc.StatusCode.ABORTED == error.code()
    assert 1 <= int(trailing["retry-after"]) <= 10  # the rest of the first call's lease
    assert "IDEMPOTENCY_KEY_IN_USE" == trailing["parley-error-reason"]
    worker.call_soon(gate.set)
    assert running.result() == chat.CreateChatCompletion(chat_request(), metadata=metadata)


@TWICE
def test_a_failed_call_releases_the_key(worker: Worker, chat: ChatCompletionsStub, ada: Metadata, model: str) -> None:
    """After a failed call, unary or streaming, the key may be used again, even for another request."""
    metadata = with_key(ada, f"failed-{model}")
    worker.backend.answer = lambda _: UpstreamUnavailable("not available")
    assert grpc.StatusCode.UNAVAILABLE == failure(chat.CreateChatCompletion, chat_request(model=model), metadata).code()
    worker.backend.answer = lambda _: [chunks("par")[0], StreamBroken("broke off")]
    assert grpc.StatusCode.UNAVAILABLE == failure(chat.StreamChatCompletion, chat_request(model=model), metadata).code()
    worker.backend.answer = lambda _: completion("fine")
    until(lambda: _answers(chat, chat_request("other", model=model), metadata), "the key to be free")
    worker.backend.answer = lambda _: chunks("fine")
    until(lambda: _streams(chat, chat_request("other", model=model), metadata), "the stream's key to be free")


def _answers(chat: ChatCompletionsStub, request: Any, metadata: Metadata) -> bool:
    try:
        return "fine" == chat.CreateChatCompletion(request, metadata=metadata).choices[0].message.content.string_value
    except grpc.RpcError:
        return False


def _streams(chat: ChatCompletionsStub, request: Any, metadata: Metadata) -> bool:
    try:
        return bool(list(chat.StreamChatCompletion(request, metadata=metadata)))
    except grpc.RpcError:
        return False


def test_a_call_that_its_session_rejects_releases_the_key(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """A call that fails before its turn begins releases its key."""
    metadata = with_key(ada, "early")
    request = chat_request(model="kept", chatSessionId="00000000-0000-7000-8000-000000000000")
    assert grpc.StatusCode.NOT_FOUND == failure(chat.CreateChatCompletion, request, metadata).code()
    worker.backend.answer = lambda _: completion("fine")
    until(lambda: _answers(chat, chat_request(), metadata), "the key to be free")


def test_a_disconnected_caller_releases_the_key(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """After a caller has disconnected, a retry with the key calls the model again."""
    metadata = with_key(ada, "left")
    worker.backend.answer = lambda _: asyncio.Event()
    call: Any = chat.CreateChatCompletion.future(chat_request(), metadata=metadata)
    worker.wait_for_calls(1)
    call.cancel()
    worker.run(asyncio.wait_for(worker.backend.closed.wait(), 60))
    worker.backend.answer = lambda _: completion("fine")
    until(lambda: _answers(chat, chat_request(), metadata), "the key to be free")


def test_keys_of_other_accounts_are_other_keys(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, bob: Metadata
) -> None:
    """The key of another account is another key."""
    first = chat.CreateChatCompletion(chat_request(), metadata=with_key(ada, "scope"))
    assert first.id != chat.CreateChatCompletion(chat_request(), metadata=with_key(bob, "scope")).id


@TWICE
@pytest.mark.parametrize("form", ["unary", "typed", "events"])
def test_every_form_of_the_call_replays_the_answer(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, model: str, form: str
) -> None:
    """A key covers the endpoint: every form of the call replays the same answer."""
    worker.backend.answer = lambda _: chunks("Hel", "lo") if form != "unary" else completion("Hello")
    metadata = with_key(ada, f"form-{form}-{model}")
    forms = {"unary": _unary_id, "typed": _typed_id, "events": _events_id}
    first = forms[form](chat, model, metadata)
    assert (first[0], "Hello", False) == first
    for other in forms.values():
        assert (first[0], "Hello", True) == other(chat, model, metadata)
    assert 1 == len(worker.backend.calls)
    error = failure(chat.StreamChatCompletion, chat_request("another", model=model), metadata)
    assert grpc.StatusCode.FAILED_PRECONDITION == error.code()


def _unary_id(chat: ChatCompletionsStub, model: str, metadata: Metadata) -> tuple[str, str, bool]:
    answer, call = chat.CreateChatCompletion.with_call(chat_request(model=model, stream=False), metadata=metadata)
    return answer.id, answer.choices[0].message.content.string_value, is_replayed(call)


def _typed_id(chat: ChatCompletionsStub, model: str, metadata: Metadata) -> tuple[str, str, bool]:
    call = chat.StreamChatCompletion(chat_request(model=model), metadata=metadata)
    stream = list(call)
    text = "".join(choice.delta.content for chunk in stream for choice in chunk.choices)
    return stream[0].id, text, is_replayed(call)


def _events_id(chat: ChatCompletionsStub, model: str, metadata: Metadata) -> tuple[str, str, bool]:
    request = chat_request(model=model, stream=True, stream_options={"include_usage": True})
    call = chat.StreamChatCompletionEvents(request, metadata=metadata)
    parsed = sse.chunks(b"".join(body.data for body in call))
    return parsed[0]["id"], sse.text(parsed), is_replayed(call)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_the_format_of_a_key(worker: Worker, chat: ChatCompletionsStub, ada: Metadata, key: str) -> None:
    """A key is 1 to 255 printable ASCII characters; the error names it."""
    error = failure(chat.CreateChatCompletion, chat_request(), with_key(ada, key))
    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    assert "`Idempotency-Key` must be 1 to 255 printable ASCII characters" == error.details()
    assert "Idempotency-Key" == dict(error.trailing_metadata())["parley-error-param"]


def test_the_longest_key_is_valid(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A key of 255 characters with spaces is valid."""
    metadata = with_key(ada, "k" + " ~" * 127)
    first = chat.CreateChatCompletion(chat_request(), metadata=metadata)
    assert first == chat.CreateChatCompletion(chat_request(), metadata=metadata)
