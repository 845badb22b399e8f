"""Sessions over gRPC: what is stored, which account reads it, and the history that the model receives."""

import asyncio
from typing import Any

import grpc
import pytest

from parley.core.errors import StreamBroken
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.processes import until
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion


def _texts(worker: Worker, call: int = -1) -> list[tuple[str, str]]:
    """Returns the roles and texts that the backend received."""
    return [(m.role, m.content.string_value) for m in worker.backend.calls[call].request.messages]


def _refused(method: Any, request: Any, metadata: Metadata) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, metadata=metadata)
    error: Any = caught.value
    return error.code(), error.details()


def _kept(sessions: SessionsStub, session_id: str, metadata: Metadata) -> list[tuple[int, str, str, str]]:
    listed = sessions.ListSessionMessages(
        messages.ListSessionMessagesRequest(session_id=session_id), metadata=metadata
    ).messages
    return [(m.turn, m.state, m.message.role, m.message.content.string_value) for m in listed]


@pytest.mark.parametrize("by_header", [False, True])
def test_a_continued_session_sends_its_history(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, by_header: bool
) -> None:
    """The history of a session, named in the body or in the metadata, is sent before the new message."""
    worker.backend.answer = lambda _: completion("Hello Ada")
    first = chat.CreateChatCompletion(chat_request("My name is Ada."), metadata=ada)
    second = (
        chat_request("What is my name?")
        if by_header
        else chat_request("What is my name?", chatSessionId=first.session_id)
    )
    header = (("x-chat-session-id", first.session_id),) if by_header else ()
    answer = chat.CreateChatCompletion(second, metadata=(*ada, *header))
    assert first.session_id == answer.session_id
    assert [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")] == _texts(worker)


@pytest.mark.parametrize("by_header", [False, True])
def test_an_empty_session_id_is_a_new_session(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, by_header: bool
) -> None:
    """An empty session id in the body or in the header starts a new session."""
    request = chat_request() if by_header else chat_request(chatSessionId="")
    header = (("x-chat-session-id", ""),) if by_header else ()
    ids = {chat.CreateChatCompletion(request, metadata=(*ada, *header)).session_id for _ in range(2)}
    assert 2 == len(ids - {""})


def test_a_session_id_ignores_case(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A session id is case-insensitive in the body, in the header and in every method; another id is not found."""
    session = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    upper = session.upper()
    header = (("x-chat-session-id", session),)
    assert session == chat.CreateChatCompletion(chat_request(chatSessionId=upper), metadata=(*ada, *header)).session_id
    assert session == sessions.GetSession(messages.GetSessionRequest(session_id=upper), metadata=ada).id
    assert 4 == len(_kept(sessions, upper, ada))
    exported = list(sessions.ExportSession(messages.ExportSessionRequest(session_id=upper), metadata=ada))
    assert exported
    forked = sessions.ForkSession(messages.ForkSessionRequest(session_id=upper), metadata=ada)
    assert session == forked.forked_from
    for other in (f"{{{session}}}", f"urn:uuid:{session}", session.replace("-", "")):
        status, _ = _refused(sessions.GetSession, messages.GetSessionRequest(session_id=other), ada)
        assert grpc.StatusCode.NOT_FOUND == status
    assert session == sessions.DeleteSession(messages.DeleteSessionRequest(session_id=upper), metadata=ada).id


def test_a_streamed_turn_is_stored_as_one_message(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The deltas of a streamed answer are stored as one message."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    got = list(chat.StreamChatCompletion(chat_request(), metadata=ada))
    expected = [(1, "completed", "user", "Hi"), (1, "completed", "assistant", "Hello")]
    assert expected == _kept(sessions, got[0].session_id, ada)


def test_another_accounts_session_is_not_found(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, bob: Metadata
) -> None:
    """Another account's session is reported exactly as one that does not exist."""
    session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    for named in (session_id, "00000000-0000-7000-8000-000000000000", "no-uuid"):
        expected = (grpc.StatusCode.NOT_FOUND, f'Unknown session "{named}"')
        assert expected == _refused(chat.CreateChatCompletion, chat_request(chatSessionId=named), bob)
        for method, request in (
            (sessions.GetSession, messages.GetSessionRequest(session_id=named)),
            (sessions.ListSessionMessages, messages.ListSessionMessagesRequest(session_id=named)),
            (sessions.DeleteSession, messages.DeleteSessionRequest(session_id=named)),
        ):
            assert expected == _refused(method, request, bob)
    assert [] == worker.backend.calls[1:]


def test_body_and_header_must_not_name_different_sessions(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """Different sessions in body and header are rejected."""
    status, text = _refused(
        chat.CreateChatCompletion, chat_request(chatSessionId="a"), (*ada, ("x-chat-session-id", "b"))
    )
    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert "different sessions" in text


def test_a_second_concurrent_turn_is_rejected(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A second concurrent turn is rejected; after the first one the session is free."""
    session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    gate = asyncio.Event()
    worker.backend.answer = lambda _: gate
    running: Any = chat.CreateChatCompletion.future(chat_request(chatSessionId=session_id), metadata=ada)
    worker.wait_for_calls(2)
    status, text = _refused(chat.CreateChatCompletion, chat_request(chatSessionId=session_id), ada)
    assert grpc.StatusCode.ABORTED == status
    assert "is answering another request" in text
    worker.call_soon(gate.set)
    assert session_id == running.result().session_id
    assert session_id == chat.CreateChatCompletion(chat_request(chatSessionId=session_id), metadata=ada).session_id


def test_a_broken_turn_is_stored_but_not_history(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A broken turn is stored as incomplete with its text, and left out of the history for the model."""
    session_id = chat.CreateChatCompletion(chat_request("one"), metadata=ada).session_id
    worker.backend.answer = lambda _: [chunks("par")[0], StreamBroken("broke off")]
    with pytest.raises(grpc.RpcError):
        list(chat.StreamChatCompletion(chat_request("two", chatSessionId=session_id), metadata=ada))
    worker.backend.answer = lambda _: completion("fine")
    chat.CreateChatCompletion(chat_request("three", chatSessionId=session_id), metadata=ada)
    assert [("user", "one"), ("assistant", "Hello"), ("user", "three")] == _texts(worker)
    assert [(2, "incomplete", "user", "two"), (2, "incomplete", "assistant", "par")] == [
        kept for kept in _kept(sessions, session_id, ada) if kept[0] == 2
    ]


def test_a_cancelled_turn_is_stored(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A cancelled turn is stored with its partial answer, and the session is free immediately."""
    gate = asyncio.Event()
    worker.backend.answer = lambda _: [chunks("par")[0], gate]
    call: Any = chat.StreamChatCompletion(chat_request(), metadata=ada)
    session_id = next(call).session_id
    next(call)
    call.cancel()
    worker.run(asyncio.wait_for(worker.backend.closed.wait(), 60))
    until(lambda: "in_progress" not in str(_kept(sessions, session_id, ada)), "the end of the turn")
    listed = sessions.ListSessionMessages(
        messages.ListSessionMessagesRequest(session_id=session_id), metadata=ada
    ).messages
    assert [("incomplete", "cancelled")] * 2 == [(m.state, m.reason) for m in listed]
    assert "par" == listed[1].message.content.string_value


@pytest.mark.parametrize(
    ("model", "store", "kept"),
    [
        ("kept", None, True),
        ("kept", False, False),
        ("on-request", None, False),
        ("on-request", True, True),
        ("stateless", None, False),
        ("stateless", False, False),
    ],
)
def test_the_model_and_store_decide_what_is_stored(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, model: str, store: bool | None, kept: bool
) -> None:
    """The model's `sessions` is the default, and the request's `store` overrides it."""
    answer = chat.CreateChatCompletion(chat_request(model=model, store=store), metadata=ada)
    assert kept is answer.HasField("session_id")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"model": "kept", "store": False, "chatSessionId": "x"}, "`store`"),
        ({"model": "stateless", "store": True}, "`store`"),
        ({"model": "stateless", "chatSessionId": "x"}, "`chatSessionId`"),
    ],
)
def test_contradictions_about_storing_are_rejected(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, more: dict[str, Any], field: str
) -> None:
    """A request for a session that cannot be stored or continued is rejected."""
    status, text = _refused(chat.CreateChatCompletion, chat_request(**more), ada)
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, text.startswith(field))


def test_a_continued_message_is_not_a_turn(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """`continue_final_message` reaches the backend and is not stored; with a session it is rejected."""
    started = chat_request(continue_final_message=True)
    started.messages.add(role="assistant").content.string_value = "Hel"
    answer = chat.CreateChatCompletion(started, metadata=ada)
    assert (False, True) == (answer.HasField("session_id"), worker.backend.calls[0].has_prefill)
    for field, value in (("store", True), ("session_id", "x")):
        kept = CreateChatCompletionRequest(model="kept", **{field: value})  # type: ignore[arg-type]
        kept.MergeFrom(started)
        status, text = _refused(chat.CreateChatCompletion, kept, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, "with `continue_final_message`" in text)


def test_sessions_are_listed_read_and_deleted(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, bob: Metadata
) -> None:
    """The `Sessions` service lists, reads and deletes the account's own sessions, page by page."""
    made = [chat.CreateChatCompletion(chat_request(), metadata=bob).session_id for _ in range(3)]
    page = sessions.ListSessions(messages.ListSessionsRequest(page_size=2), metadata=bob)
    rest = sessions.ListSessions(
        messages.ListSessionsRequest(page_size=2, page_token=page.next_page_token), metadata=bob
    )
    assert made[::-1] == [session.id for session in (*page.sessions, *rest.sessions)]
    assert not rest.HasField("next_page_token")
    session = sessions.GetSession(messages.GetSessionRequest(session_id=made[0]), metadata=bob)
    assert ("chat.session", "kept", 1) == (session.object, session.model, session.turn_count)
    deleted = sessions.DeleteSession(messages.DeleteSessionRequest(session_id=made[0]), metadata=bob)
    assert (made[0], True) == (deleted.id, deleted.deleted)
    request = messages.GetSessionRequest(session_id=made[0])
    assert grpc.StatusCode.NOT_FOUND == _refused(sessions.GetSession, request, bob)[0]


def test_page_sizes_have_a_default_and_a_maximum(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """An absent size and 0 are the default; a size above the maximum is the maximum (AIP-158)."""
    question = {"role": "user", "content": "Hello"}
    session_id = chat.CreateChatCompletion(chat_request(messages=[question] * 1100), metadata=ada).session_id

    def length(size: int | None) -> int:
        request = messages.ListSessionMessagesRequest(session_id=session_id, page_size=size)
        return len(sessions.ListSessionMessages(request, metadata=ada).messages)

    sizes = (None, 0, 1, 1000, 1001, 2**32 - 1)
    assert [100, 100, 1, 1000, 1000, 1000] == [length(size) for size in sizes]
    assert sessions.ListSessions(messages.ListSessionsRequest(page_size=0), metadata=ada).sessions


def test_invalid_paging_is_rejected(worker: Worker, sessions: SessionsStub, ada: Metadata) -> None:
    """The error of an invalid page token names the field."""
    request = messages.ListSessionsRequest(page_token="nonsense")
    status, text = _refused(sessions.ListSessions, request, ada)
    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert "`page_token`" in text
