"""Sessions over gRPC: what is kept, who sees it, and what the model is sent of it."""

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
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion
from tests.rpc.test_chat import Metadata, ask


def _texts(worker: Worker, call: int = -1) -> list[tuple[str, str]]:
    """What the backend was sent: roles and texts."""
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
def test_a_continued_session_sends_the_whole_conversation(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, by_header: bool
) -> None:
    """Named in the body or in the metadata, the session's history comes before the new message."""
    worker.backend.answer = lambda _: completion("Hello Ada")
    first = chat.CreateChatCompletion(ask("My name is Ada."), metadata=ada)
    second = ask("What is my name?") if by_header else ask("What is my name?", chatSessionId=first.session_id)
    header = (("x-chat-session-id", first.session_id),) if by_header else ()
    answer = chat.CreateChatCompletion(second, metadata=(*ada, *header))
    assert first.session_id == answer.session_id
    assert [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")] == _texts(worker)


@pytest.mark.parametrize("by_header", [False, True])
def test_an_empty_session_id_is_a_new_session(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, by_header: bool
) -> None:
    """An empty field is as good as none, and as an empty header."""
    request = ask() if by_header else ask(chatSessionId="")
    header = (("x-chat-session-id", ""),) if by_header else ()
    ids = {chat.CreateChatCompletion(request, metadata=(*ada, *header)).session_id for _ in range(2)}
    assert 2 == len(ids - {""})


def test_a_session_id_ignores_case(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A UUID is the same in upper case, in the body, in the header and in every call of a session; others are not."""
    session = chat.CreateChatCompletion(ask(), metadata=ada).session_id
    upper = session.upper()
    header = (("x-chat-session-id", session),)
    assert session == chat.CreateChatCompletion(ask(chatSessionId=upper), metadata=(*ada, *header)).session_id
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


def test_a_streamed_turn_is_kept_as_the_whole_it_makes(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """Deltas are joined into one message."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    got = list(chat.StreamChatCompletion(ask(), metadata=ada))
    expected = [(1, "completed", "user", "Hi"), (1, "completed", "assistant", "Hello")]
    assert expected == _kept(sessions, got[0].session_id, ada)


def test_a_foreign_session_and_an_unknown_one_look_alike(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata, bob: Metadata
) -> None:
    """Nothing tells another account that a session exists."""
    session_id = chat.CreateChatCompletion(ask(), metadata=ada).session_id
    for named in (session_id, "00000000-0000-7000-8000-000000000000", "no-uuid"):
        expected = (grpc.StatusCode.NOT_FOUND, f'Unknown session "{named}"')
        assert expected == _refused(chat.CreateChatCompletion, ask(chatSessionId=named), bob)
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
    """A contradiction is an error and not a guess."""
    status, text = _refused(chat.CreateChatCompletion, ask(chatSessionId="a"), (*ada, ("x-chat-session-id", "b")))
    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert "different sessions" in text


def test_a_second_turn_at_once_is_told_to_wait(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """One turn at a time; the session is free again after it."""
    session_id = chat.CreateChatCompletion(ask(), metadata=ada).session_id
    gate = asyncio.Event()
    worker.backend.answer = lambda _: gate
    running: Any = chat.CreateChatCompletion.future(ask(chatSessionId=session_id), metadata=ada)
    worker.asked(2)
    status, text = _refused(chat.CreateChatCompletion, ask(chatSessionId=session_id), ada)
    assert grpc.StatusCode.ABORTED == status
    assert "is answering another request" in text
    worker.call_soon(gate.set)
    assert session_id == running.result().session_id
    assert session_id == chat.CreateChatCompletion(ask(chatSessionId=session_id), metadata=ada).session_id


def test_a_broken_turn_is_readable_but_not_history(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """What was said before the break is kept as incomplete, and left out of what the model is sent."""
    session_id = chat.CreateChatCompletion(ask("one"), metadata=ada).session_id
    worker.backend.answer = lambda _: [chunks("par")[0], StreamBroken("broke off")]
    with pytest.raises(grpc.RpcError):
        list(chat.StreamChatCompletion(ask("two", chatSessionId=session_id), metadata=ada))
    worker.backend.answer = lambda _: completion("fine")
    chat.CreateChatCompletion(ask("three", chatSessionId=session_id), metadata=ada)
    assert [("user", "one"), ("assistant", "Hello"), ("user", "three")] == _texts(worker)
    assert [(2, "incomplete", "user", "two"), (2, "incomplete", "assistant", "par")] == [
        kept for kept in _kept(sessions, session_id, ada) if kept[0] == 2
    ]


def test_a_callers_leaving_is_kept_as_cancelled(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The partial answer stays, and the session is free at once."""
    gate = asyncio.Event()
    worker.backend.answer = lambda _: [chunks("par")[0], gate]
    call: Any = chat.StreamChatCompletion(ask(), metadata=ada)
    session_id = next(call).session_id
    next(call)
    call.cancel()
    worker.run(asyncio.wait_for(worker.backend.closed.wait(), 10))
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
def test_the_model_and_store_decide_what_is_kept(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, model: str, store: bool | None, kept: bool
) -> None:
    """`sessions` of the model is the default, `store` of the request decides."""
    answer = chat.CreateChatCompletion(ask(model=model, store=store), metadata=ada)
    assert kept is answer.HasField("session_id")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"model": "kept", "store": False, "chatSessionId": "x"}, "`store`"),
        ({"model": "stateless", "store": True}, "`store`"),
        ({"model": "stateless", "chatSessionId": "x"}, "`chatSessionId`"),
    ],
)
def test_contradictions_about_keeping_are_errors(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, more: dict[str, Any], field: str
) -> None:
    """A session that cannot be kept or continued is refused, and not silently forgotten."""
    status, text = _refused(chat.CreateChatCompletion, ask(**more), ada)
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, text.startswith(field))


def test_the_rest_of_an_answer_is_no_turn_of_a_session(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata
) -> None:
    """`continue_final_message` reaches the backend, and the call is not kept; where it should be, it is refused."""
    started = ask(continue_final_message=True)
    started.messages.add(role="assistant").content.string_value = "Hel"
    answer = chat.CreateChatCompletion(started, metadata=ada)
    assert (False, True) == (answer.HasField("session_id"), worker.backend.calls[0].is_continuation)
    for field, value in (("store", True), ("session_id", "x")):
        kept = CreateChatCompletionRequest(model="kept", **{field: value})  # type: ignore[arg-type]
        kept.MergeFrom(started)
        status, text = _refused(chat.CreateChatCompletion, kept, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, "with `continue_final_message`" in text)


def test_sessions_are_listed_read_and_deleted(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, bob: Metadata
) -> None:
    """The `Sessions` service sees the account's own sessions, page by page, and deletes whole."""
    made = [chat.CreateChatCompletion(ask(), metadata=bob).session_id for _ in range(3)]
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


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (messages.ListSessionsRequest(page_size=0), "`page_size`"),
        (messages.ListSessionsRequest(page_size=1001), "`page_size`"),
        (messages.ListSessionsRequest(page_token="nonsense"), "`page_token`"),
    ],
)
def test_bad_paging_is_refused(
    worker: Worker, sessions: SessionsStub, ada: Metadata, request_: messages.ListSessionsRequest, field: str
) -> None:
    """The error names the field."""
    status, text = _refused(sessions.ListSessions, request_, ada)
    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert field in text
