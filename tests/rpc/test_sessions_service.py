"""The `Sessions` service: filters, forks, and exports that are complete or end with an error."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.core.errors import StreamBroken
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.processes import until
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion

UNKNOWN = "00000000-0000-7000-8000-000000000000"


def exported(sessions: SessionsStub, session_id: str, metadata: Metadata) -> list[dict[str, Any]]:
    """Returns the lines of a session's export."""
    pieces = list(sessions.ExportSession(messages.ExportSessionRequest(session_id=session_id), metadata=metadata))
    assert {"application/jsonl"} == {piece.content_type for piece in pieces}
    return [json.loads(line) for line in b"".join(piece.data for piece in pieces).splitlines()]


def texts(sessions: SessionsStub, session_id: str, metadata: Metadata) -> list[tuple[int, Any]]:
    """Returns the turns and texts of a session."""
    return [(line["turn"], line["content"]) for line in exported(sessions, session_id, metadata)]


def create_session(chat: ChatCompletionsStub, metadata: Metadata, *texts_sent: str, **more: Any) -> str:
    """Creates a session with a turn for each text; the model answers `Hello`. Returns its id."""
    session: dict[str, Any] = {}
    for text in texts_sent:
        answer = chat.CreateChatCompletion(chat_request(text, **session, **more), metadata=metadata)
        session = {"chatSessionId": answer.session_id}
    return str(session["chatSessionId"])


def fork(sessions: SessionsStub, session_id: str, metadata: Metadata, through: int | None = None) -> messages.Session:
    """Forks a session."""
    request = messages.ForkSessionRequest(session_id=session_id, through_turn=through)
    return sessions.ForkSession(request, metadata=metadata)


def rejection(call: Any) -> tuple[grpc.StatusCode, str]:
    """Returns the status and the message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def test_an_export_has_every_field_of_every_message(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """An export has parts, tool calls and results, labels, usage, receipts and incomplete turns, in order."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "Is it warm?"}], "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 °C"},
    ]
    request = ParseDict({"messages": conversation, "metadata": {"trip": "7"}}, CreateChatCompletionRequest())
    session_id = chat.CreateChatCompletion(request, metadata=ada).session_id
    worker.backend.answer = lambda _: [chunks("Par")[0], StreamBroken("broke off")]
    with pytest.raises(grpc.RpcError):
        list(chat.StreamChatCompletion(chat_request("And now?", chatSessionId=session_id), metadata=ada))
    until(lambda: "in_progress" not in str(exported(sessions, session_id, ada)), "the end of the turn")
    lines = exported(sessions, session_id, ada)
    created = [line.pop("created") for line in lines]
    assert all(1_700_000_000 < seconds < 2**32 for seconds in created)
    outcomes = [[attempt["outcome"] for attempt in line.pop("receipt", {}).get("attempts", ())] for line in lines]
    assert [[], [], [], ["completed"], [], ["failed"]] == outcomes
    non_streaming = {"turn": 1, "state": "completed", "metadata": {"trip": "7"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    broken = {"turn": 2, "state": "incomplete", "reason": "failed"}
    assert [
        *({**message, **non_streaming} for message in conversation),
        {"role": "assistant", "content": "Hello", **non_streaming, "usage": usage},
        {"role": "user", "content": "And now?", **broken},
        {"role": "assistant", "content": "Par", **broken},
    ] == lines


def test_an_export_as_messages_has_what_the_list_has(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The typed export has every message of every page, with typed content, turn, usage and receipt."""
    session_id = create_session(chat, ada, *(f"{number}" for number in range(20)))
    stream = list(sessions.ExportSessionMessages(messages.ExportSessionRequest(session_id=session_id), metadata=ada))
    request = messages.ListSessionMessagesRequest(session_id=session_id)
    assert list(sessions.ListSessionMessages(request, metadata=ada).messages) == stream
    assert (40, "Hello", 20, "completed") == (len(stream), stream[-1].message.text, stream[-1].turn, stream[-1].state)
    request.after_turn = 18
    assert stream[36:] == list(sessions.ListSessionMessages(request, metadata=ada).messages)
    assert 1 == len(stream[-1].receipt.attempts)


def test_a_line_may_be_longer_than_a_message_of_grpc(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A message of 5 MB is exported in pieces that a client with gRPC's default limits accepts."""
    session_id = create_session(chat, ada, "x" * 5_000_000)
    assert [5_000_000, 5] == [len(text) for _, text in texts(sessions, session_id, ada)]


def test_an_interrupted_export_ends_with_an_error(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The export of a session that is deleted meanwhile ends with an error line, and the call fails."""
    conversation = [{"role": "user", "content": f"{number:04}" * 100_000} for number in range(40)]
    request = ParseDict({"messages": conversation}, CreateChatCompletionRequest())
    session_id = chat.CreateChatCompletion(request, metadata=ada).session_id
    call: Any = sessions.ExportSession(messages.ExportSessionRequest(session_id=session_id), metadata=ada)
    assert ("x-chat-session-id", session_id) in call.initial_metadata()
    pieces = [next(call).data]
    sessions.DeleteSession(messages.DeleteSessionRequest(session_id=session_id), metadata=ada)
    with pytest.raises(grpc.RpcError):
        pieces.extend(piece.data for piece in call)
    text = b"".join(pieces)
    *lines, last = [json.loads(line) for line in text.splitlines()]
    assert (grpc.StatusCode.NOT_FOUND, f'Unknown session "{session_id}"') == (call.code(), call.details())
    assert {"error": {"message": call.details(), "code": "session_not_found"}} == last
    assert [message["content"] for message in conversation[: len(lines)]] == [line["content"] for line in lines]
    assert text.endswith(b"\n")


def test_forks_diverge(worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata) -> None:
    """A fork has the turns up to one, with their numbers; later turns belong to one session only."""
    origin = create_session(chat, ada, "one", "two", "three")
    early, late = fork(sessions, origin, ada, 2), fork(sessions, origin, ada)
    assert (origin, 2, "kept", "7") == (early.forked_from, early.turn_count, early.model, early.id[14])
    assert ("chat.session", 3) == (late.object, late.turn_count)
    assert texts(sessions, origin, ada)[:4] == texts(sessions, early.id, ada)
    for session_id, text in ((origin, "origin"), (early.id, "early")):
        chat.CreateChatCompletion(chat_request(text, chatSessionId=session_id), metadata=ada)
    sent = [message.content.string_value for message in worker.backend.calls[-1].request.messages]
    assert ["one", "Hello", "two", "Hello", "early"] == sent
    assert [(4, "origin"), (4, "Hello")] == texts(sessions, origin, ada)[6:]
    assert [(3, "early"), (3, "Hello")] == texts(sessions, early.id, ada)[4:]
    assert 6 == len(texts(sessions, late.id, ada))
    sessions.DeleteSession(messages.DeleteSessionRequest(session_id=origin), metadata=ada)
    assert 6 == len(texts(sessions, early.id, ada))
    assert origin == sessions.GetSession(messages.GetSessionRequest(session_id=early.id), metadata=ada).forked_from


def test_a_fork_of_a_busy_session_has_its_completed_turns(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A fork of a busy session has its completed turns and is free; deleting the busy session is rejected."""
    session_id = create_session(chat, ada, "one")
    gate = asyncio.Event()
    worker.backend.answer = lambda _: gate
    running: Any = chat.CreateChatCompletion.future(chat_request("two", chatSessionId=session_id), metadata=ada)
    worker.wait_for_calls(2)
    forked = fork(sessions, session_id, ada)
    assert [(1, "one"), (1, "Hello")] == texts(sessions, forked.id, ada)
    status, _ = rejection(
        lambda: sessions.DeleteSession(messages.DeleteSessionRequest(session_id=session_id), metadata=ada)
    )
    assert grpc.StatusCode.ABORTED == status
    worker.backend.answer = lambda _: completion("Hello")
    assert (
        forked.id == chat.CreateChatCompletion(chat_request("three", chatSessionId=forked.id), metadata=ada).session_id
    )
    worker.call_soon(gate.set)
    assert session_id == running.result().session_id


@pytest.mark.parametrize("through", [0, 2, 4_000_000_000])
def test_a_fork_at_a_missing_turn_is_rejected(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, through: int
) -> None:
    """The error of a fork at a missing turn names the field."""
    status, text = rejection(lambda: fork(sessions, create_session(chat, ada, "one"), ada, through))
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, text.startswith("`through_turn`"))


def test_another_accounts_sessions_are_not_found(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, bob: Metadata
) -> None:
    """Another account's sessions are not found by forks and exports."""
    for named in (create_session(chat, ada, "one"), UNKNOWN, "no-uuid", ""):
        expected = (grpc.StatusCode.NOT_FOUND, f'Unknown session "{named}"')
        assert expected == rejection(lambda named=named: fork(sessions, named, bob))
        assert expected == rejection(lambda named=named: exported(sessions, named, bob))
        request = messages.ExportSessionRequest(session_id=named)
        assert expected == rejection(
            lambda request=request: list(sessions.ExportSessionMessages(request, metadata=bob))
        )


def test_sessions_are_listed_by_model_and_time(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The filters of a list combine, page by page; the time span includes its start and not its end."""
    kept = [create_session(chat, ada, "one") for _ in range(3)]
    other = create_session(chat, ada, "one", model="on-request", store=True)
    last = sessions.GetSession(messages.GetSessionRequest(session_id=other), metadata=ada).updated

    def listed(**filters: Any) -> list[str]:
        found, token = [], None
        while True:
            request = messages.ListSessionsRequest(page_size=2, page_token=token, **filters)
            page = sessions.ListSessions(request, metadata=ada)
            found += [session.id for session in page.sessions]
            if not page.HasField("next_page_token"):
                return found
            token = page.next_page_token

    everything = listed()
    assert [other, *kept[::-1]] == everything[:4]
    assert other in listed(model="on-request")
    assert not {*kept} & {*listed(model="on-request")}
    assert [] == listed(model="unused")
    assert everything == listed(updated_after=0)
    assert everything == listed(updated_after=0, updated_before=last + 1)
    assert other not in listed(updated_before=last)
    assert other in listed(updated_after=last)
    assert [] == listed(updated_after=last + 1)
    assert [] == listed(updated_after=last, updated_before=last)
    assert [] == listed(updated_after=last, updated_before=1)


def test_a_message_that_is_too_large_for_json(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A message whose JSON exceeds the edge's limit is rejected in a JSON page, with the remedy; the export has it."""
    text = "\x01" * (11 * 2**20 + 2**19)  # six bytes of JSON each
    session_id = create_session(chat, ada, text)
    request = messages.ListSessionMessagesRequest(session_id=session_id)
    code, message = rejection(lambda: sessions.ListSessionMessagesJson(request, metadata=ada))
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (code, "read it with the export" in message)
    export = sessions.ExportSession(messages.ExportSessionRequest(session_id=session_id), metadata=ada)
    assert 6 * len(text) < sum(len(piece.data) for piece in export)
