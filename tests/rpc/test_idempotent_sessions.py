"""`Idempotency-Key` of calls that write sessions: deletions, forks, and failed writes."""

import grpc

from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.calling import Metadata, chat_request, failure, is_replayed, with_key
from tests.rpc.conftest import Worker


def test_deleting_a_session_deletes_its_stored_answers(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """Answers of a deleted session are neither replayed nor generated again: the key stays known."""
    metadata = with_key(ada, "deleted")
    first = chat.CreateChatCompletion(chat_request(), metadata=metadata)
    sessions.DeleteSession(messages.DeleteSessionRequest(session_id=first.session_id), metadata=ada)
    for method in (chat.CreateChatCompletion, chat.StreamChatCompletion):
        error = failure(method, chat_request(), metadata)
        assert grpc.StatusCode.NOT_FOUND == error.code()
        assert "has been deleted" in error.details()
        assert "use a new key" in error.details()
    assert (
        grpc.StatusCode.FAILED_PRECONDITION
        == failure(chat.CreateChatCompletion, chat_request("other"), metadata).code()
    )
    assert 1 == len(worker.backend.calls)


def test_a_fork_is_made_once(worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata) -> None:
    """The same key returns the same fork; another request with it is rejected."""
    session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    request = messages.ForkSessionRequest(session_id=session_id)
    first, call = sessions.ForkSession.with_call(request, metadata=with_key(ada, "fork"))
    assert not is_replayed(call)
    chat.CreateChatCompletion(chat_request("on", chatSessionId=first.id), metadata=ada)
    again, call = sessions.ForkSession.with_call(request, metadata=with_key(ada, "fork"))
    assert (first, True) == (again, is_replayed(call))
    upper = messages.ForkSessionRequest(session_id=session_id.upper())
    assert first == sessions.ForkSession(upper, metadata=with_key(ada, "fork"))
    other = messages.ForkSessionRequest(session_id=session_id, through_turn=1)
    assert grpc.StatusCode.FAILED_PRECONDITION == failure(sessions.ForkSession, other, with_key(ada, "fork")).code()
    assert first.id != sessions.ForkSession(request, metadata=with_key(ada, "another")).id
    assert first.id != sessions.ForkSession(request, metadata=ada).id


def test_a_deletion_is_replayed(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """The same key returns the same acknowledgement; without it the session is unknown."""
    request = messages.DeleteSessionRequest(
        session_id=chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    )
    first, call = sessions.DeleteSession.with_call(request, metadata=with_key(ada, "delete"))
    assert (True, False) == (first.deleted, is_replayed(call))
    again, call = sessions.DeleteSession.with_call(request, metadata=with_key(ada, "delete"))
    assert (first, True) == (again, is_replayed(call))
    assert grpc.StatusCode.NOT_FOUND == failure(sessions.DeleteSession, request, ada).code()


def test_a_failed_write_releases_the_key(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """After a failed write the key may be used for another request immediately."""
    unknown = "00000000-0000-7000-8000-000000000000"
    for method, request in (
        (sessions.ForkSession, messages.ForkSessionRequest(session_id=unknown)),
        (sessions.DeleteSession, messages.DeleteSessionRequest(session_id=unknown)),
    ):
        assert grpc.StatusCode.NOT_FOUND == failure(method, request, with_key(ada, "unknown")).code()
    session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
    request = messages.ForkSessionRequest(session_id=session_id)
    assert session_id == sessions.ForkSession(request, metadata=with_key(ada, "unknown")).forked_from
    bad = failure(sessions.ForkSession, request, with_key(ada, "x" * 256))
    assert "Idempotency-Key" == dict(bad.trailing_metadata())["parley-error-param"]
