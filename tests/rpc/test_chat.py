"""Chat completions over gRPC."""

import asyncio
from typing import Any

import grpc
import pytest

from parley.core.errors import StreamBroken, UnsupportedParameter, UpstreamUnavailable
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import sse
from tests.rpc.calling import Log, Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion


def _code(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    error: Any = caught.value
    return error.code()  # type: ignore[no-any-return]


def test_a_complete_answer_has_the_documented_fields(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A complete answer has ids, time, model, session, choices and usage."""
    answer = chat.CreateChatCompletion(chat_request(model="kept"), metadata=ada)
    assert answer.id.startswith("chatcmpl-")
    assert ("chat.completion", "kept") == (answer.object, answer.model)
    assert answer.created > 1_700_000_000
    assert "7" == answer.session_id[14]
    assert ("Hello", "stop") == (answer.choices[0].message.content.string_value, answer.choices[0].finish_reason)
    assert 5 == answer.usage.total_tokens
    assert "upstream" == worker.backend.calls[0].model


def test_a_stream_has_the_documented_sequence(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A stream has role, deltas, finish reason and, always for gRPC callers, usage."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    got = list(chat.StreamChatCompletion(chat_request(), metadata=ada))
    assert [0, 1, 2, 3, 4] == [chunk.sequence for chunk in got]
    assert ["", "Hel", "lo", ""] == [chunk.choices[0].delta.content for chunk in got[:4]]
    assert ("assistant", "stop") == (got[0].choices[0].delta.role, got[3].choices[0].finish_reason)
    assert (0, 5) == (len(got[4].choices), got[4].usage.total_tokens)


def test_events_end_with_done_and_carry_usage_on_request(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """Server-sent events end with `[DONE]` and have usage on request."""
    worker.backend.answer = lambda _: chunks("Hello")
    usage: dict[str, Any] = {"stream_options": {"include_usage": True}}
    for options, expected in (({}, 3), (usage, 4)):
        bodies = list(chat.StreamChatCompletionEvents(chat_request(stream=True, **options), metadata=ada))
        assert {"text/event-stream"} == {body.content_type for body in bodies}
        assert expected == len(sse.chunks(b"".join(body.data for body in bodies)))


def test_the_session_id_is_in_the_initial_metadata_and_the_ids_in_the_trailing(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """The session id and the ids for tracing are in the metadata, so callers need not read the body."""
    answer, call = chat.CreateChatCompletion.with_call(
        chat_request(), metadata=(*ada, ("x-request-id", "r-1"), ("x-correlation-id", "c-1"))
    )
    assert answer.session_id == dict(call.initial_metadata())["x-chat-session-id"]
    trailing = dict(call.trailing_metadata())
    assert ("r-1", "c-1") == (trailing["x-request-id"], trailing["x-correlation-id"])


def test_bad_ids_are_replaced(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """An id that is unsafe in a log line is replaced."""
    bad = (("x-correlation-id", "x" * 257), ("x-request-id", "x" * 300))
    _, call = chat.CreateChatCompletion.with_call(chat_request(), metadata=(*ada, *bad))
    trailing = dict(call.trailing_metadata())
    assert 32 == len(trailing["x-request-id"])
    assert trailing["x-request-id"] == trailing["x-correlation-id"]


def test_an_upstream_failure_has_its_status_and_no_cause(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """The caller gets the reason of an upstream failure; its cause is only logged."""
    worker.backend.answer = lambda _: UpstreamUnavailable("not available", retry_after=2, cause="10.0.0.5 refused")
    for method in (chat.CreateChatCompletion, lambda *a, **k: list(chat.StreamChatCompletion(*a, **k))):
        with pytest.raises(grpc.RpcError) as caught:
            method(chat_request(model="once"), metadata=ada)
        error: Any = caught.value
        assert (grpc.StatusCode.UNAVAILABLE, "not available") == (error.code(), error.details())
        trailing = dict(error.trailing_metadata())
        assert ("UPSTREAM_UNAVAILABLE", "2") == (trailing["parley-error-reason"], trailing["retry-after"])
        assert "10.0.0.5" not in str(trailing)


def test_an_unexpected_exception_is_not_returned(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, log: Log
) -> None:
    """The caller gets `Internal Server Error`; the traceback is logged once."""
    worker.backend.answer = lambda _: ZeroDivisionError("secret detail")
    with pytest.raises(grpc.RpcError) as caught:
        chat.CreateChatCompletion(chat_request(), metadata=(*ada, ("x-request-id", "r-500")))
    error: Any = caught.value
    assert (grpc.StatusCode.INTERNAL, "Internal Server Error") == (error.code(), error.details())
    assert "secret" not in str(error.trailing_metadata())
    assert 1 == str(log("r-500", 2)).count("Traceback (most recent call last)")


def test_a_failure_in_mid_stream_ends_with_an_error_event(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """A stream that fails ends with an error event and without `[DONE]`."""
    worker.backend.answer = lambda _: [chunks("Hel")[0], StreamBroken("broke off")]
    events, is_done = sse.read(
        b"".join(body.data for body in chat.StreamChatCompletionEvents(chat_request(), metadata=ada))
    )
    assert ("stream_broken", False) == (events[-1]["error"]["code"], is_done)
    with pytest.raises(grpc.RpcError) as caught:
        list(chat.StreamChatCompletion(chat_request(), metadata=ada))
    assert grpc.StatusCode.UNAVAILABLE == _code(caught)


@pytest.mark.parametrize(("form", "key"), [("text", "error"), ("detail", "detail")])
def test_the_edge_may_choose_the_form_of_an_error_in_mid_stream(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, form: str, key: str
) -> None:
    """The error event has the format of the dialect."""
    worker.backend.answer = lambda _: [chunks("Hel")[0], StreamBroken("broke off")]
    metadata = (*ada, ("parley-error-form", form))
    events, is_done = sse.read(
        b"".join(body.data for body in chat.StreamChatCompletionEvents(chat_request(), metadata=metadata))
    )
    assert ({key: "broke off"}, False) == (events[-1], is_done)


def test_stream_true_is_rejected_by_the_unary_method(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """The error for `stream: true` in a unary call names the streaming method."""
    with pytest.raises(grpc.RpcError, match="StreamChatCompletion"):
        chat.CreateChatCompletion(chat_request(stream=True), metadata=ada)
    assert [] == worker.backend.calls


def test_the_edge_may_overrule_stream(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """The edge sends a request with `stream: true` as a unary call if the Accept header decides."""
    request = chat_request(stream=True, stream_options={"include_usage": True})
    answer = chat.CreateChatCompletion(request, metadata=(*ada, ("parley-form", "whole")))
    assert "Hello" == answer.choices[0].message.content.string_value


def test_cancelling_reaches_the_backend(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A caller that cancels a stream or a unary call cancels the backend's call."""
    for is_stream in (True, False):
        worker.backend.__init__()  # type: ignore[misc]
        gate = asyncio.Event()
        worker.backend.answer = lambda _, s=is_stream, g=gate: [chunks("a")[0], g] if s else g  # type: ignore[misc]
        if is_stream:
            call: Any = chat.StreamChatCompletion(chat_request(), metadata=ada)
            next(call)
        else:
            call = chat.CreateChatCompletion.future(chat_request(), metadata=ada)
            worker.wait_for_calls(1)
        call.cancel()
        assert worker.run(asyncio.wait_for(worker.backend.closed.wait(), 60))


def test_the_deadline_is_passed_to_the_backend(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """The backend gets the remaining time; the caller gets DEADLINE_EXCEEDED."""
    gate = asyncio.Event()
    worker.backend.answer = lambda _: gate
    with pytest.raises(grpc.RpcError) as caught:
        chat.CreateChatCompletion(chat_request(), metadata=ada, timeout=0.3)
    assert grpc.StatusCode.DEADLINE_EXCEEDED == _code(caught)
    assert worker.run(asyncio.wait_for(worker.backend.closed.wait(), 60))
    assert worker.backend.calls[0].deadline is not None


def test_malformed_bytes_are_the_callers_error(worker: Worker, grpc_channel: grpc.Channel, ada: Metadata) -> None:
    """Bytes that cannot be decoded, or are nested too deeply, are INVALID_ARGUMENT."""
    deep = CreateChatCompletionRequest()
    value = deep.messages.add(role="user").content
    for _ in range(60):
        value = value.list_value.values.add()
    for data in (b"\xff\xff", deep.SerializeToString()):
        call: Any = grpc_channel.unary_unary("/parley.v1.ChatCompletions/CreateChatCompletion")
        with pytest.raises(grpc.RpcError) as caught:
            call(data, metadata=ada)
        assert grpc.StatusCode.INVALID_ARGUMENT == _code(caught)


def test_an_unknown_model_is_not_found(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """An unknown model has the documented message."""
    with pytest.raises(grpc.RpcError) as caught:
        chat.CreateChatCompletion(chat_request(model="invalidapp-999"), metadata=ada)
    error: Any = caught.value
    assert (grpc.StatusCode.NOT_FOUND, 'Unknown model "invalidapp-999"') == (error.code(), error.details())
    assert ("MODEL_NOT_FOUND", "model") == tuple(
        dict(error.trailing_metadata())[f"parley-error-{name}"] for name in ("reason", "param")
    )


def test_concurrent_calls_do_not_mix(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """Each of fifty concurrent calls gets its own answer."""
    worker.backend.answer = lambda call: completion(call.request.messages[-1].content.string_value)
    calls = [chat.CreateChatCompletion.future(chat_request(str(number)), metadata=ada) for number in range(50)]
    assert [str(number) for number in range(50)] == [
        call.result().choices[0].message.content.string_value for call in calls
    ]


def test_a_request_with_functions_returns_a_function_call(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """The backend gets tools, the caller a function call, and the session stores what the caller got."""
    answer = completion("")
    answer.choices[0].message.content.null_value = 0  # type: ignore[assignment]
    call = answer.choices[0].message.tool_calls.add(id="call_9", type="function")
    call.function.name, call.function.arguments = "f", "{}"
    answer.choices[0].finish_reason = "tool_calls"
    worker.backend.answer = lambda _: answer
    offered: dict[str, Any] = {"functions": [{"name": "f", "parameters_json": '{"type":"object"}'}]}
    first = chat.CreateChatCompletion(chat_request(**offered), metadata=ada)
    assert ("f", "function_call") == (first.choices[0].message.function_call.name, first.choices[0].finish_reason)
    assert '{"type":"object"}' == worker.backend.calls[0].request.tools[0].function.parameters_json
    result = [{"role": "function", "name": "f", "content": "42"}]
    chat.CreateChatCompletion(chat_request(messages=result, chatSessionId=first.session_id, **offered), metadata=ada)
    _, called, answered = worker.backend.calls[1].request.messages
    assert called.tool_calls[0].id == answered.tool_call_id != ""


def test_an_unsupported_function_is_rejected_by_its_own_name(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """A backend without tools rejects `functions` by that name."""
    for method in (chat.CreateChatCompletion, lambda *a, **k: list(chat.StreamChatCompletion(*a, **k))):
        worker.backend.answer = lambda _: UnsupportedParameter("`tools` is not supported by the model", param="tools")
        with pytest.raises(grpc.RpcError, match="`functions` is not supported") as caught:
            method(chat_request(functions=[{"name": "f"}]), metadata=ada)
        error: Any = caught.value
        assert "functions" == dict(error.trailing_metadata())["parley-error-param"]


@pytest.mark.parametrize(
    ("sent", "named", "text"),
    [
        (
            "messages[2].content[1].type",
            "messages[0].content[1].type",
            "`messages[0].content[1].type` is not supported",
        ),
        ("messages.3.content", "messages.1.content", "`messages.1.content` is not supported"),
        ("messages[1].content", "", "`the history's messages[1].content` is not supported"),
        ("messages", "messages", "`messages` is not supported"),
    ],
)
def test_an_error_counts_the_messages_of_the_caller(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, sent: str, named: str, text: str
) -> None:
    """A target also counts the messages of the session, which the request does not have."""
    session = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    worker.backend.answer = lambda _: UnsupportedParameter(f"`{sent}` is not supported", param=sent)
    question = {"role": "user", "content": "Q"}
    request = chat_request(messages=[question, question], chatSessionId=session)
    for method in (chat.CreateChatCompletion, lambda *a, **k: list(chat.StreamChatCompletion(*a, **k))):
        with pytest.raises(grpc.RpcError) as caught:
            method(request, metadata=ada)
        error: Any = caught.value
        assert (text, named) == (error.details(), dict(error.trailing_metadata()).get("parley-error-param", ""))


def test_null_equals_an_absent_field(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """Null in a field of several types is not sent to the backend."""
    chat.CreateChatCompletion(chat_request(stop=None, tool_choice=None, function_call=None), metadata=ada)
    upstream_request = worker.backend.calls[0].request
    assert [] == [name for name in ("stop", "tool_choice", "function_call") if upstream_request.HasField(name)]
