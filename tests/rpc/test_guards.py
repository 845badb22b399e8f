"""Guards over gRPC: what they receive, what they decide, and what callers, models, sessions and the log get of it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import Parse
from google.protobuf.struct_pb2 import Value
from google.rpc import error_details_pb2, status_pb2

from parley.config.loader import parse
from parley.core.errors import StreamBroken
from parley.guard.v1 import guard_pb2 as proto
from parley.guard.v1.guard_pb2 import CheckRequest
from parley.metrics.worker import WorkerMetrics
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import AddSessionMessagesRequest, ImportSessionsRequest, ListSessionMessagesRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.keys import create_key
from tests.processes import until
from tests.rpc.calling import Log, Metadata, chat_request, failure, with_key
from tests.rpc.conftest import Worker, serving
from tests.rpc.guarding import ALLOW, GuardServer, RawPort, allow, guard_server, redact, redacting, refuse
from tests.rpc.scripted import chunks, completion

_CONFIG = """
backends: {{scripted: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
guards:
  closed: {{address: "{address}", deadline: 20s, window: 8, overlap: 8, headers: {{authorization: guard-key}}}}
  open: {{address: "{address}", deadline: 20s, window: 8, overlap: 8, on_failure: open}}
  quick: {{address: "{address}", deadline: 100ms, window: 8, overlap: 8}}
  quick-open: {{address: "{address}", deadline: 100ms, window: 8, overlap: 8, on_failure: open}}
  dead: {{address: "127.0.0.1:1", deadline: 20s}}
  dead-open: {{address: "127.0.0.1:1", deadline: 20s, on_failure: open}}
  informed: {{address: "{address}", deadline: 20s, history: 2, after: false}}
  nameless: {{address: "no://where", deadline: 20s}}
  dead-after: {{address: "127.0.0.1:1", deadline: 20s, before: false}}
  raw: {{address: "{raw}", deadline: 20s}}
  words: {{patterns: ["wh[ai]t"], replacement: "(w)", media: pass}}
  keys: {{secrets: true, action: refuse}}
default_guards: [closed]
models:
  - {{id: kept, targets: [{{backend: scripted}}], aliases: [{{id: kept-before, retires: 2020-01-31}}]}}
  - {{id: open, targets: [{{backend: scripted}}], guards: [open], sessions: "off"}}
  - {{id: quick, targets: [{{backend: scripted}}], guards: [quick], sessions: "off"}}
  - {{id: quick-open, targets: [{{backend: scripted}}], guards: [quick-open], sessions: "off"}}
  - {{id: dead, targets: [{{backend: scripted}}], guards: [dead], sessions: "off"}}
  - {{id: dead-open, targets: [{{backend: scripted}}], guards: [dead-open], sessions: "off"}}
  - {{id: nameless, targets: [{{backend: scripted}}], guards: [nameless], sessions: "off"}}
  - {{id: dead-after, targets: [{{backend: scripted}}], guards: [dead-after], sessions: "off"}}
  - {{id: raw, targets: [{{backend: scripted}}], guards: [raw], sessions: "off"}}
  - {{id: informed, targets: [{{backend: scripted}}], guards: [informed]}}
  - {{id: several, targets: [{{backend: scripted}}], guards: [words, closed], sessions: "off"}}
  - {{id: keys, targets: [{{backend: scripted}}], guards: [keys], sessions: "off"}}
  - {{id: free, targets: [{{backend: scripted}}], guards: []}}
  - {{id: second, targets: [{{backend: scripted, model: a}}, {{backend: scripted, model: b}}], sessions: "off"}}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[GuardServer, str]]:
    """The guard service and its address."""
    with guard_server() as running:
        yield running


@pytest.fixture
def guard(service: tuple[GuardServer, str]) -> Iterator[GuardServer]:
    """The guard service, which allows everything."""
    service[0].reset()
    yield service[0]
    service[0].reset()


@pytest.fixture(scope="module")
def raw_port() -> Iterator[RawPort]:
    """A server that is no gRPC server."""
    with RawPort() as running:
        yield running


@pytest.fixture(scope="module")
def config(service: tuple[GuardServer, str], raw_port: RawPort) -> str:
    """The configuration of the server."""
    return _CONFIG.format(address=service[1], raw=raw_port.address)


@pytest.fixture(scope="module")
def metrics(config: str) -> WorkerMetrics:
    """The metrics of the server."""
    return WorkerMetrics(parse(config, "guards.yaml"), set())


@pytest.fixture(scope="module")
def grpc_server(
    log_file: Path, tmp_path_factory: pytest.TempPathFactory, config: str, metrics: WorkerMetrics
) -> Iterator[Worker]:
    """A server whose models have guards."""
    loop, running = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    start = running.enter_async_context(serving(tmp_path_factory.mktemp("rpc"), config, metrics=metrics.calls))
    yield asyncio.run_coroutine_threadsafe(start, loop).result(30)
    asyncio.run_coroutine_threadsafe(running.aclose(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def answers(worker: Worker, answer: Any) -> None:
    """Scripts the backend; each call gets a completion of its own."""

    def make(_: Any) -> Any:
        if not isinstance(answer, ChatCompletion):
            return answer
        copy = ChatCompletion()
        copy.CopyFrom(answer)
        return copy

    worker.backend.answer = make


def text(answer: ChatCompletion) -> str:
    """Returns the content of an answer."""
    return answer.choices[0].message.content.string_value


def joined(stream: list[ChatCompletionChunk], index: int = 0) -> str:
    """Returns the content of a stream's choice."""
    return "".join(one.delta.content for chunk in stream for one in chunk.choices if one.index == index)


def from_json(data: Any) -> Value:
    """Returns JSON data as a Value."""
    return Parse(json.dumps(data), Value())


def receipt(call: Any) -> Receipt:
    """Returns the receipt of a call or of its error."""
    return Receipt.FromString(dict(call.trailing_metadata())["parley-receipt-bin"])


def info(error: Any) -> error_details_pb2.ErrorInfo:
    """Returns the ErrorInfo of an error."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    found = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(found)
    return found


def test_a_guard_receives_the_texts_of_request_and_answer(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A guard receives every text with its place, and which call it belongs to."""
    request = chat_request(model="kept")
    del request.messages[:]
    request.messages.add(role="system").content.string_value = "Be brief"
    parts = [{"type": "text", "text": "look"}, {"type": "text", "text": "here"}]
    request.messages.add(role="user").content.CopyFrom(from_json(parts))
    assistant = request.messages.add(role="assistant", reasoning_content="hm")
    call = assistant.tool_calls.add(id="1", type="function")
    call.function.name, call.function.arguments = "find", '{"a": 1}'
    request.messages.add(role="tool", tool_call_id="1").content.string_value = "found"
    answers(worker, completion("Hello"))
    chat.CreateChatCompletion(request, metadata=(*ada, ("x-request-id", "the-call")))
    assert "guard-key" == guard.headers["authorization"]
    before, after = guard.requests
    assert [
        ("system", 0, None, "Be brief"),
        ("user", 1, 0, "look"),
        ("user", 1, 1, "here"),
        ("assistant", 2, None, "hm"),
        ("assistant", 2, None, '{"a": 1}'),
        ("tool", 3, None, "found"),
    ] == [(one.role, one.message, one.part if one.HasField("part") else None, one.text) for one in before.units]
    assert ("find", proto.KIND_TOOL_ARGUMENTS) == (before.units[4].tool_name, before.units[4].kind)
    expected = CheckRequest(
        guard="closed", phase=proto.PHASE_BEFORE, model="kept", account="ada", request_id="the-call"
    )
    expected.last = True
    before.ClearField("units")
    assert expected == before
    assert (proto.PHASE_AFTER, "Hello", 0, True) == (after.phase, after.units[0].text, after.choice, after.last)


def test_a_refused_request_reaches_no_model(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer, log: Log
) -> None:
    """A refusal is 400 CONTENT_POLICY with the guard's message; the idempotency key is free again."""
    guard.decide = lambda _: refuse("code.name", "No code names, please: bluebird")
    metadata = with_key((*ada, ("x-request-id", "refused")), "again")
    error = failure(chat.CreateChatCompletion, chat_request("bluebird", model="kept"), metadata)
    assert (grpc.StatusCode.INVALID_ARGUMENT, "No code names, please: bluebird") == (error.code(), error.details())
    assert ("CONTENT_POLICY", "closed", "code.name") == (
        info(error).reason,
        info(error).metadata["guard"],
        info(error).metadata["guard_reason"],
    )
    assert "content_filter" == dict(error.trailing_metadata())["parley-error-code"]
    assert [] == worker.backend.calls
    [result] = receipt(error).guards
    assert ("closed", "before", "refused", "code.name", 1) == (
        result.guard,
        result.phase,
        result.outcome,
        result.reason,
        result.checks,
    )
    [line] = log("refused", 1)
    assert "bluebird" not in json.dumps(line)
    assert [("closed", "before", "refused")] == [(one["guard"], one["phase"], one["outcome"]) for one in line["guards"]]
    guard.reset()
    assert "Hello" == text(chat.CreateChatCompletion(chat_request("bluebird", model="kept"), metadata=metadata))


def test_what_is_redacted_stays_redacted(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """The model and the session get the redacted question, caller and session the redacted answer, once resent too."""
    guard.decide = redacting("bluebird")
    answers(worker, completion("The bluebird flies"))
    first = chat.CreateChatCompletion(chat_request("Where is bluebird?", model="kept"), metadata=ada)
    assert "Where is ***?" == worker.backend.calls[0].request.messages[0].content.string_value
    assert "The *** flies" == text(first)
    request = chat_request("Where is bluebird?", model="kept", chatSessionId=first.session_id)
    request.messages.add(role="assistant").content.string_value = text(first)
    request.messages.add(role="user").content.string_value = "And now?"
    chat.CreateChatCompletion(request, metadata=ada)
    listed = sessions.ListSessionMessages(ListSessionMessagesRequest(session_id=first.session_id), metadata=ada)
    assert ["Where is ***?", "The *** flies", "And now?", "The *** flies"] == [
        one.message.content.string_value for one in listed.messages
    ]


def test_a_stream_is_redacted_across_windows_and_attempts(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A word is replaced although it lies across two windows, or across the break of a stream that was continued."""
    guard.decide = redacting("bluebird")
    broken = [*chunks(*"The bluebird and the blue")[:-1], StreamBroken("It broke")]
    scripts = [broken, chunks(*"bird fly")]
    worker.backend.answer = lambda _: scripts.pop(0)
    stream = list(chat.StreamChatCompletion(chat_request(model="second"), metadata=ada))
    assert "The *** and the *** fly" == joined(stream)
    assert 2 == len(worker.backend.calls)
    assert all(len(one) < 40 for one in guard.texts(proto.PHASE_AFTER))


def test_a_refused_answer_is_filtered(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A refused answer has the finish reason `content_filter`, the guard's message as refusal, and no text."""
    guard.decide = lambda request: refuse() if request.phase == proto.PHASE_AFTER else ALLOW
    answers(worker, completion("Secret"))
    [choice] = chat.CreateChatCompletion(chat_request(model="kept"), metadata=ada).choices
    assert ("content_filter", "", "Not here") == (
        choice.finish_reason,
        choice.message.content.string_value,
        choice.message.refusal,
    )
    assert {"content_filter_results": {"closed": {"filtered": True, "reason": "policy"}}} == json.loads(
        choice.extra_json
    )


def test_a_refused_stream_ends_at_once(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A stream is refused after what was allowed; its upstream is closed, and its usage is an estimate."""
    guard.decide = lambda request: refuse() if "bad" in request.units[0].text and request.phase == 2 else ALLOW
    answers(worker, [*chunks(*"All is good until it is bad, really")[:-1], asyncio.Event()])
    call = chat.StreamChatCompletion(chat_request(model="open"), metadata=ada)
    stream = list(call)
    last = [one for chunk in stream for one in chunk.choices][-1]
    assert "All is good until it is bad".startswith(joined(stream))
    assert "All is good" in joined(stream)
    assert "bad" not in joined(stream)
    assert "Not here" == "".join(one.delta.refusal for chunk in stream for one in chunk.choices)
    assert ("content_filter", True) == (last.finish_reason, stream[-1].usage.completion_tokens > 0)
    worker.run(asyncio.wait_for(worker.backend.closed.wait(), 20))
    [before, after] = receipt(call).guards
    assert ("allowed", "refused") == (before.outcome, after.outcome)


def test_a_session_has_nothing_that_its_caller_has_not_seen(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A stream that a failing guard or a broken connection ends leaves nothing unchecked in the session."""

    def fail_late(request: CheckRequest) -> Any:
        is_late = request.phase == proto.PHASE_AFTER and "secret" in request.units[0].text
        return grpc.StatusCode.INTERNAL if is_late else ALLOW

    session = chat.CreateChatCompletion(chat_request(model="kept"), metadata=ada).session_id
    for script, ends in (
        (fail_late, chunks(*"It is fine so far, but: secret and more")),
        (allow, [*chunks(*"It is fine so far, but: secret")[:-1], StreamBroken("lost")]),
    ):
        guard.decide = script
        answers(worker, ends)
        request = chat_request("Go on", model="kept", chatSessionId=session)
        seen = []
        with pytest.raises(grpc.RpcError):
            seen += list(chat.StreamChatCompletion(request, metadata=ada))
        listed = sessions.ListSessionMessages(ListSessionMessagesRequest(session_id=session), metadata=ada).messages
        stored = [one.message.content.string_value for one in listed if one.state == "incomplete"]
        assert not any("secret" in one for one in stored), stored


def test_a_retry_with_its_key_is_not_checked_again(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """The stored answer of an idempotency key is the redacted one, whole or streamed, without a further check."""
    guard.decide = redacting("bluebird")
    answers(worker, completion("a bluebird"))
    request, metadata = chat_request("a bluebird", model="kept"), with_key(ada, "guarded-once")
    assert "a ***" == text(chat.CreateChatCompletion(request, metadata=metadata))
    checks = len(guard.requests)
    guard.decide = lambda _: refuse()
    assert "a ***" == text(chat.CreateChatCompletion(request, metadata=metadata))
    assert "a ***" == joined(list(chat.StreamChatCompletion(request, metadata=metadata)))
    assert (checks, 1) == (len(guard.requests), len(worker.backend.calls))


def test_one_of_several_choices_is_refused(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """The other choices of an answer go on when a guard refuses one."""
    guard.decide = lambda request: refuse() if request.choice == 1 and request.phase == 2 else ALLOW
    answer = ChatCompletion()
    for index in range(2):
        choice = answer.choices.add(index=index, finish_reason="stop")
        choice.message.content.string_value = f"answer {index}"
    answers(worker, answer)
    whole = chat.CreateChatCompletion(chat_request(model="open", n=2), metadata=ada)
    assert ["stop", "content_filter"] == [one.finish_reason for one in whole.choices]
    stream = list(chat.StreamChatCompletion(chat_request(model="open", n=2), metadata=ada))
    assert ("answer 0", "") == (joined(stream), joined(stream, 1))


def test_guards_run_in_order(worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer) -> None:
    """A guard receives what the one before it has redacted, in both phases and in streams."""
    answers(worker, chunks(*"what is it, and why what"))
    stream = list(chat.StreamChatCompletion(chat_request("what?", model="several"), metadata=ada))
    assert "(w) is it, and why (w)" == joined(stream)
    assert ["(w)?"] == guard.texts(proto.PHASE_BEFORE)
    assert "what" not in "".join(guard.texts(proto.PHASE_AFTER))


def test_a_guard_may_have_the_history(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A guard with `history` receives so many of the session's latest messages, which it cannot redact."""
    first = chat.CreateChatCompletion(chat_request("One", model="informed"), metadata=ada)
    request = chat_request("Two", model="informed", chatSessionId=first.session_id)
    chat.CreateChatCompletion(request, metadata=ada)
    assert [("Two", False), ("One", True), ("Hello", True)] == [
        (unit.text, unit.history) for unit in guard.requests[-1].units
    ]
    assert first.session_id == guard.requests[-1].session_id
    guard.decide = lambda _: redact((1, 0, 1, ""))
    assert grpc.StatusCode.UNAVAILABLE == failure(chat.CreateChatCompletion, request, ada).code()


def test_what_a_guard_cannot_read_is_refused_or_passes(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """An image is refused by a guard that is closed on failure, and passes one that is open."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = chat_request(model="kept")
    request.messages[0].content.CopyFrom(from_json([{"type": "text", "text": "See"}, image]))
    error = failure(chat.CreateChatCompletion, request, ada)
    assert ("not_text", "messages[0].content[1]") == (
        info(error).metadata["guard_reason"],
        info(error).metadata["param"],
    )
    request.model = "open"
    assert "Hello" == text(chat.CreateChatCompletion(request, metadata=ada))


def test_the_guard_in_the_package_refuses_secrets(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A key in a request is refused; the message does not repeat it."""
    error = failure(chat.CreateChatCompletion, chat_request("Use AKIA" + "ABCDEFGH23456777 now", model="keys"), ada)
    assert ("aws_access_key", False) == (info(error).metadata["guard_reason"], "AKIA" in error.details())


def test_models_without_guards_are_not_checked(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """`guards: []` takes a model out of the default."""
    call = chat.CreateChatCompletion.with_call(chat_request(model="free"), metadata=ada)[1]
    assert ([], 0) == (guard.requests, len(receipt(call).guards))


def test_unknown_fields_and_images_of_an_answer(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """What a vendor adds to an answer or to its chunks is checked; images are refused where nobody can read them."""
    guard.decide = redacting("bluebird")
    for cited, shown in (("bluebird", ""), ("crow", '{"citations":["crow"]}')):
        whole = completion("Fine")
        whole.extra_json = json.dumps({"citations": [cited]}, separators=(",", ":"))
        answers(worker, whole)
        assert shown == chat.CreateChatCompletion(chat_request(model="open"), metadata=ada).extra_json
        for at in (0, -1):
            pieces = chunks("Fi", "ne")
            pieces[at].extra_json = whole.extra_json
            answers(worker, pieces)
            stream = list(chat.StreamChatCompletion(chat_request(model="open"), metadata=ada))
            assert ("Fine", shown) == (joined(stream), "".join(chunk.extra_json for chunk in stream))
    drawn = completion("See")
    drawn.choices[0].message.extra_json = '{"images":[{"image_url":{"url":"data:image/png;base64,AAAA"}}]}'
    answers(worker, drawn)
    guard.decide = lambda _: ALLOW
    for model, reason in (("kept", "content_filter"), ("open", "stop")):
        found = chat.CreateChatCompletion(chat_request(model=model), metadata=ada).choices[0]
        assert (reason, reason == "stop") == (found.finish_reason, "images" in found.message.extra_json)
    pieces = chunks("See", "")
    pieces[1].choices[0].delta.extra_json = drawn.choices[0].message.extra_json
    answers(worker, pieces)
    sound = chunks("", "")[:2]
    for piece in sound:
        piece.choices[0].delta.ClearField("content")
        piece.choices[0].delta.audio.data = "AAAA"
    answers(worker, [*sound, asyncio.Event()])
    call = chat.StreamChatCompletion(chat_request(model="kept"), metadata=ada, timeout=20)
    assert "content_filter" in [one.finish_reason for chunk in call for one in chunk.choices], "without its end"
    answers(worker, pieces)
    assert "content_filter" == list(chat.StreamChatCompletion(chat_request(model="kept"), metadata=ada))[-2].choices[
        0
    ].finish_reason  # fmt: skip


def test_annotations_of_a_redacted_answer_are_dropped(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """Annotations are kept twice, as Structs and as exact text; neither is left where the answer is redacted."""
    guard.decide = redacting("bluebird")
    answer = completion("a bluebird")
    answer.choices[0].message.annotations.add().update({"title": "bluebird"})
    answer.choices[0].message.extra_json = '{"annotations":[{"title":"bluebird","at":1.50}]}'
    answers(worker, answer)
    for request in (chat_request(model="open"), chat_request(model="kept")):
        assert "bluebird" not in str(chat.CreateChatCompletion(request, metadata=ada))


def many_spans(count: int) -> bytes:
    """Returns a response with so many spans of one character."""
    spans = proto.Redact(spans=[proto.Span(end=1)]).SerializeToString() * count
    return proto.CheckResponse(redact=proto.Redact.FromString(spans)).SerializeToString()


_MILLION = many_spans(1_000_000)
_THOUSANDS = many_spans(20_000)

HOSTILE: dict[str, tuple[Callable[[CheckRequest], Any], str]] = {
    "outside": (lambda _: redact((0, 0, 10_000, "")), "invalid_response"),
    "no-unit": (lambda _: redact((7, 0, 1, "")), "invalid_response"),
    "reversed": (lambda _: redact((0, 2, 1, "")), "invalid_response"),
    "empty": (lambda _: redact((0, 1, 1, "")), "invalid_response"),
    "overlapping": (lambda _: redact((0, 0, 2, ""), (0, 1, 2, "")), "invalid_response"),
    "no-spans": (lambda _: redact(), "invalid_response"),
    "no-decision": (lambda _: proto.CheckResponse(), "invalid_response"),
    "unknown-decision": (lambda _: b"\x22\x00", "invalid_response"),  # field 4 of a later version
    "no-message": (lambda _: None, "invalid_response"),
    "not-a-message": (lambda _: b"\xff\xff\xff", "invalid_response"),
    "large-replacement": (lambda _: redact((0, 0, 1, "x" * 2000)), "invalid_response"),
    "many-spans": (lambda _: _THOUSANDS, "invalid_response"),
    "a-million-spans": (lambda _: _MILLION, "error"),
    "large": (lambda _: refuse(message="x" * 5_000_000), "error"),
    "crashing": (lambda _: 1 / 0, "error"),
    "aborting": (lambda _: grpc.StatusCode.PERMISSION_DENIED, "error"),
    "unavailable": (lambda _: grpc.StatusCode.UNAVAILABLE, "error"),
}


def exchange(chat: ChatCompletionsStub, model: str, ada: Metadata, *, is_stream: bool) -> Any:
    """Returns the answer's text of a call and its receipt; or the error."""
    request = chat_request("Hi there", model=model)
    try:
        if is_stream:
            stream = chat.StreamChatCompletion(request, metadata=ada)
            return joined(list(stream)), receipt(stream)
        answer, call = chat.CreateChatCompletion.with_call(request, metadata=ada)
        return text(answer), receipt(call)
    except grpc.RpcError as error:
        return error


@pytest.mark.parametrize("phase", [proto.PHASE_BEFORE, proto.PHASE_AFTER])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_guard_costs_what_the_configuration_says(
    name: str, phase: int, worker: Worker, chat: ChatCompletionsStub, guard: GuardServer
) -> None:
    """A guard that lies or fails lets the text pass if it is open, and ends the call with its own name if closed."""
    script, reason = HOSTILE[name]
    guard.decide = lambda request: script(request) if request.phase == phase else ALLOW
    ada = account(worker, f"{name}-{phase}")
    for is_stream in (False, True):
        answered, found = exchange(chat, "open", ada, is_stream=is_stream)
        assert ("Hello", "failed_open", reason) == (
            answered,
            found.guards[phase - 1].outcome,
            found.guards[phase - 1].reason,
        )
        error = exchange(chat, "kept", ada, is_stream=is_stream)
        assert (grpc.StatusCode.UNAVAILABLE, "GUARD_UNAVAILABLE", "closed", reason) == (
            error.code(),
            info(error).reason,
            info(error).metadata["guard"],
            info(error).metadata["guard_reason"],
        )
        assert '"closed"' in error.details()
        assert "words of the guard" not in error.details()


def account(worker: Worker, name: str) -> Metadata:
    """Returns the metadata of an account of its own, whose breakers are closed."""
    _, secret = worker.run(create_key(worker.store, name, name))
    return (("authorization", f"Bearer {secret}"),)


def test_a_slow_guard_costs_its_deadline_and_then_a_breaker_spares_it(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, bob: Metadata, guard: GuardServer
) -> None:
    """Checks end at the deadline; after five of an account its checks fail at once; those of others do not."""
    guard.decide = lambda request: ALLOW if request.account == "bob" else guard.gate.wait(20) and ALLOW
    reasons = [exchange(chat, "quick-open", ada, is_stream=False)[1].guards[0].reason for _ in range(6)]
    assert ["timeout", "timeout"] == reasons[:2]
    assert "breaker_open" == reasons[-1]
    error = exchange(chat, "quick", ada, is_stream=False)
    assert "timeout" == info(error).metadata["guard_reason"]
    checks = len(guard.requests)
    assert "Hello" == exchange(chat, "quick-open", bob, is_stream=False)[0]
    assert checks + 2 == len(guard.requests)
    guard.decide = lambda _: repeat(ALLOW)
    assert {"timeout"} == {one.reason for one in exchange(chat, "quick-open", bob, is_stream=False)[1].guards}


def test_a_dead_guard_is_not_called_again_at_once(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A guard that refuses connections opens its breaker for all calls."""
    found = [info(exchange(chat, "dead", ada, is_stream=False)).metadata["guard_reason"] for _ in range(7)]
    assert ["unreachable"] * 5 + ["breaker_open"] * 2 == found
    assert "unreachable" == info(exchange(chat, "nameless", ada, is_stream=False)).metadata["guard_reason"]
    answered, receipt_ = exchange(chat, "dead-open", ada, is_stream=True)
    assert ("Hello", {"failed_open"}) == (answered, {one.outcome for one in receipt_.guards})


def test_no_answer_is_bought_that_a_dead_guard_would_withhold(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """Once the breaker of a guard of answers is open, calls fail before a model is called and paid."""
    found = [exchange(chat, "dead-after", ada, is_stream=number % 2 == 1) for number in range(7)]
    assert ["unreachable"] * 5 + ["breaker_open"] * 2 == [info(one).metadata["guard_reason"] for one in found]
    assert 5 == len(worker.backend.calls)
    assert [("after", "failed_closed", "breaker_open")] == [
        (one.phase, one.outcome, one.reason) for one in receipt(found[-1]).guards
    ]


def test_a_check_is_repeated_when_a_guard_restarts(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """One UNAVAILABLE of a guard costs nothing: the check is repeated."""
    replies = iter([grpc.StatusCode.UNAVAILABLE])
    guard.decide = lambda _: next(replies, ALLOW)
    answered, found = exchange(chat, "kept", ada, is_stream=False)
    assert ("Hello", ["allowed", "allowed"]) == (answered, [one.outcome for one in found.guards])


def test_the_deadline_of_the_caller_is_not_a_failure_of_the_guard(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A call whose own deadline passes during a check ends with DEADLINE_EXCEEDED."""
    guard.decide = lambda _: guard.gate.wait(1) or ALLOW
    with pytest.raises(grpc.RpcError) as caught:
        chat.CreateChatCompletion(chat_request(model="kept"), metadata=ada, timeout=0.2)
    assert grpc.StatusCode.DEADLINE_EXCEEDED == caught.value.code()


def test_checks_are_counted(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer, metrics: WorkerMetrics
) -> None:
    """The metrics count checks by guard, phase and outcome, and measure them."""
    guard.decide = redacting("bluebird")
    chat.CreateChatCompletion(chat_request("a bluebird", model="informed"), metadata=ada)
    labels = {"guard": "informed", "phase": "before", "outcome": "redacted"}
    samples = [one for family in metrics.calls.collect() for one in family.samples]
    assert [1.0] == [one.value for one in samples if one.name == "parley_guard_checks_total" and one.labels == labels]
    assert any(one.name == "parley_guard_check_duration_seconds_count" for one in samples)


def test_messages_that_are_added_or_imported_are_checked(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, guard: GuardServer, log: Log
) -> None:
    """What reaches a session without a call of its model is redacted, or refused, as in a request."""
    session = chat.CreateChatCompletion(chat_request("Hi", model="kept"), metadata=ada).session_id
    guard.decide = redacting("bluebird")
    added = AddSessionMessagesRequest(session_id=session)
    added.messages.add(role="user").content.string_value = "a bluebird"
    sessions.AddSessionMessages(added, metadata=(*ada, ("x-request-id", "added")))
    assert [("closed", "redacted")] == [(one["guard"], one["outcome"]) for one in log("added", 1)[0]["guards"]]
    listed = sessions.ListSessionMessages(ListSessionMessagesRequest(session_id=session), metadata=ada).messages
    assert "a ***" == listed[-1].message.content.string_value
    lines = [
        {"object": "chat.session", "id": "imported", "model": "kept", "created": 1, "updated": 1},
        {"role": "user", "content": "the bluebird", "turn": 1, "state": "completed", "created": 1},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    imported = ImportSessionsRequest(body=HttpBody(content_type="application/x-ndjson", data=body))
    sessions.ImportSessions(imported, metadata=ada)
    listed = sessions.ListSessionMessages(ListSessionMessagesRequest(session_id="imported"), metadata=ada).messages
    assert ["the ***"] == [one.message.content.string_value for one in listed]
    lines[0] |= {"id": "imported before", "model": "kept-before"}  # continued under the new id
    sessions.ImportSessions(
        ImportSessionsRequest(body=HttpBody(data="\n".join(map(json.dumps, lines)).encode())), metadata=ada
    )
    listed = sessions.ListSessionMessages(
        ListSessionMessagesRequest(session_id="imported before"), metadata=ada
    ).messages
    assert ["the ***"] == [one.message.content.string_value for one in listed]
    guard.decide = lambda _: refuse(message="é" * 300_000)
    assert 512 >= len(failure(sessions.AddSessionMessages, added, ada).details().encode())
    assert "CONTENT_POLICY" == info(failure(sessions.AddSessionMessages, added, ada)).reason


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64], ids=["closed", "http", "zeros"]
)
def test_a_port_that_is_no_guard(
    answer: bytes, worker: Worker, chat: ChatCompletionsStub, guard: GuardServer, raw_port: RawPort
) -> None:
    """A server that closes connections, or speaks another protocol, is a guard that cannot be reached."""
    raw_port.answer = answer
    ada = account(worker, f"raw-{len(answer)}")
    error = exchange(chat, "raw", ada, is_stream=False)
    assert ("GUARD_UNAVAILABLE", "raw") == (info(error).reason, info(error).metadata["guard"])


def test_a_cancelled_call_cancels_its_check(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """A caller that disconnects during a check leaves nothing behind: the guard's call ends, and later calls work."""
    guard.decide = lambda _: guard.gate.wait(20) and ALLOW
    call = chat.CreateChatCompletion.future(chat_request(model="kept"), metadata=ada)
    until(lambda: bool(guard.requests), "the check")
    ended = guard.ended
    call.cancel()
    until(lambda: guard.ended > ended, "the end of the check, which has no answer")
    guard.reset()
    assert "Hello" == text(chat.CreateChatCompletion(chat_request(model="kept"), metadata=ada))


def test_functions_and_custom_tools_are_checked(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, guard: GuardServer
) -> None:
    """The arguments of the older `function_call` and the input of a custom tool are texts, whole and streamed."""
    guard.decide = redacting("bluebird")
    answer = ChatCompletion()
    choice = answer.choices.add(index=0, finish_reason="tool_calls")
    call = choice.message.tool_calls.add(id="1", type="function")
    call.function.name, call.function.arguments = "find", '{"a": "bluebird"}'
    answers(worker, answer)
    request = chat_request(model="open", functions=[{"name": "find"}])
    whole = chat.CreateChatCompletion(request, metadata=ada).choices[0].message.function_call
    stream = list(chat.StreamChatCompletion(request, metadata=ada))
    parts = [one.delta.function_call for chunk in stream for one in chunk.choices]
    assert ("find", '{"a": "***"}') == (whole.name, whole.arguments)
    assert ("find", '{"a": "***"}') == tuple(
        map("".join, zip(*((one.name, one.arguments) for one in parts), strict=True))
    )
