"""Turns over gRPC: the session's model, the history for the model, the queue, and incomplete answers."""

import asyncio
from typing import Any

import grpc
import pytest

from parley.core.errors import DeadlineExceeded, StreamBroken
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.processes import until
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import USAGE, chunks, completion


def _sent(worker: Worker) -> list[str]:
    """Returns the texts that the backend received last."""
    return [message.content.string_value for message in worker.backend.calls[-1].request.messages]


def _kept(sessions: SessionsStub, session_id: str, metadata: Metadata) -> list[messages.SessionMessage]:
    listed = sessions.ListSessionMessages(messages.ListSessionMessagesRequest(session_id=session_id), metadata=metadata)
    return list(listed.messages)


def _ended(sessions: SessionsStub, session_id: str, metadata: Metadata) -> list[messages.SessionMessage]:
    """Returns the messages of a session after all its turns have ended."""
    until(
        lambda: all(kept.state != "in_progress" for kept in _kept(sessions, session_id, metadata)),
        "the end of the turn",
    )
    return _kept(sessions, session_id, metadata)


def _refused(method: Any, request: Any, metadata: Metadata, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, metadata=metadata, **options)
    error: Any = caught.value
    return error.code(), error.details()


class TestModel:
    """Tests of the model of a session."""

    def test_a_session_has_its_model(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A request with a session and without a model uses the session's model, not the default one."""
        first = chat.CreateChatCompletion(chat_request(model="short"), metadata=ada)
        answer = chat.CreateChatCompletion(chat_request("two", chatSessionId=first.session_id), metadata=ada)
        assert "short" == answer.model

    def test_another_model_is_rejected(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """Another model than the session's is rejected."""
        first = chat.CreateChatCompletion(chat_request(model="short"), metadata=ada)
        request = chat_request("two", model="kept", chatSessionId=first.session_id)
        status, text = _refused(chat.CreateChatCompletion, request, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, 'belongs to the model "short"' in text)

    def test_a_key_must_be_valid_for_the_sessions_model(
        self, worker: Worker, chat: ChatCompletionsStub, tim: tuple[Metadata, Metadata]
    ) -> None:
        """For a key that may not use the session's model, the session does not exist."""
        all_models, kept_only = tim
        first = chat.CreateChatCompletion(chat_request(model="short"), metadata=all_models)
        request = chat_request("two", chatSessionId=first.session_id)
        expected = (grpc.StatusCode.NOT_FOUND, f'Unknown session "{first.session_id}"')
        assert expected == _refused(chat.CreateChatCompletion, request, kept_only)


class TestHistory:
    """Tests of the history that the model receives."""

    def test_a_resent_history_is_stored_once(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """Only the new message of a request that resends the history is stored."""
        session_id = chat.CreateChatCompletion(chat_request("one"), metadata=ada).session_id
        request = chat_request("one", chatSessionId=session_id)
        for role, text in (("assistant", "Hello"), ("user", "two")):
            request.messages.add(role=role).content.string_value = text
        chat.CreateChatCompletion(request, metadata=ada)
        assert ["one", "Hello", "two"] == _sent(worker)
        assert ["one", "Hello", "two", "Hello"] == [
            kept.message.content.string_value for kept in _kept(sessions, session_id, ada)
        ]

    def test_no_new_message_is_rejected(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A request without a new message is rejected and leaves the session free."""
        session_id = chat.CreateChatCompletion(chat_request("one"), metadata=ada).session_id
        request = chat_request("one", chatSessionId=session_id)
        request.messages.add(role="assistant").content.string_value = "Hello"
        status, text = _refused(chat.CreateChatCompletion, request, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, text.startswith("`messages`"))
        assert (
            session_id
            == chat.CreateChatCompletion(chat_request("two", chatSessionId=session_id), metadata=ada).session_id
        )

    def test_only_the_window_is_sent(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A long session sends the newest turns that fit, and always its system message."""
        request = chat_request("be brief", model="short")
        request.messages[0].role = "system"
        request.messages.add(role="user").content.string_value = "one"
        session_id = chat.CreateChatCompletion(request, metadata=ada).session_id
        for text in ("two", "three", "four"):
            chat.CreateChatCompletion(chat_request(text, chatSessionId=session_id), metadata=ada)
        assert ["be brief", "three", "Hello", "four"] == _sent(worker)

    def test_labels_and_usage_are_stored_with_the_turn(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """The request's metadata is stored with its messages, the usage with the answer, unary or streaming."""
        answer = chat.CreateChatCompletion(chat_request(metadata={"team": "red"}), metadata=ada)
        worker.backend.answer = lambda _: chunks("Hello")
        list(chat.StreamChatCompletion(chat_request("two", chatSessionId=answer.session_id), metadata=ada))
        first, _, _, last = kept = _kept(sessions, answer.session_id, ada)
        assert {"team": "red"} == dict(first.metadata)
        assert {} == dict(last.metadata)
        assert [None, USAGE, None, USAGE] == [m.usage if m.HasField("usage") else None for m in kept]


class TestQueue:
    """Tests of a model that queues concurrent turns."""

    def test_queued_turns_run_in_order(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """Queued turns run one after the other, in the order of their arrival."""
        session_id = chat.CreateChatCompletion(chat_request(model="queued"), metadata=ada).session_id
        gates = [asyncio.Event() for _ in range(3)]
        remaining = iter(gates)
        worker.backend.answer = lambda _: next(remaining)
        running: list[Any] = []
        for index, text in enumerate(("one", "two", "three")):
            running.append(chat.CreateChatCompletion.future(chat_request(text, chatSessionId=session_id), metadata=ada))
            if index == 0:
                worker.wait_for_calls(2)
            else:
                until(lambda: worker.queue_length(session_id) == index, "the call to be queued")  # noqa: B023
        assert 2 == len(worker.backend.calls)
        for index, text in enumerate(("one", "two", "three")):
            worker.wait_for_calls(index + 2)
            assert text == _sent(worker)[-1]
            worker.call_soon(gates[index].set)
            assert session_id == running[index].result().session_id
        assert 0 == worker.queue_length(session_id)

    def test_the_queue_has_a_timeout(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """After `queue_timeout` the call fails as busy."""
        session_id = chat.CreateChatCompletion(chat_request(model="impatient"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        running: Any = chat.CreateChatCompletion.future(chat_request("one", chatSessionId=session_id), metadata=ada)
        worker.wait_for_calls(2)
        status, text = _refused(chat.CreateChatCompletion, chat_request("two", chatSessionId=session_id), ada)
        assert (grpc.StatusCode.ABORTED, True) == (status, "is answering another request" in text)
        worker.call_soon(gate.set)
        running.result()

    def test_a_deadline_limits_the_wait(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A call whose deadline is earlier than `queue_timeout` fails at its deadline and leaves the queue."""
        session_id = chat.CreateChatCompletion(chat_request(model="queued"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        running: Any = chat.CreateChatCompletion.future(chat_request("one", chatSessionId=session_id), metadata=ada)
        worker.wait_for_calls(2)
        request = chat_request("two", chatSessionId=session_id)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == _refused(chat.CreateChatCompletion, request, ada, timeout=0.1)[0]
        until(lambda: worker.queue_length(session_id) == 0, "the queue to be empty")
        worker.call_soon(gate.set)
        running.result()

    def test_a_cancelled_call_leaves_the_queue(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A cancelled call leaves the queue without a turn, a claim or a gap."""
        session_id = chat.CreateChatCompletion(chat_request(model="queued"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        first: Any = chat.CreateChatCompletion.future(chat_request("one", chatSessionId=session_id), metadata=ada)
        worker.wait_for_calls(2)
        keyed = (*ada, ("idempotency-key", "queued"))
        leaving: Any = chat.CreateChatCompletion.future(chat_request("two", chatSessionId=session_id), metadata=keyed)
        until(lambda: worker.queue_length(session_id) == 1, "the second call to be queued")
        third: Any = chat.CreateChatCompletion.future(chat_request("three", chatSessionId=session_id), metadata=ada)
        until(lambda: worker.queue_length(session_id) == 2, "the third call to be queued")
        leaving.cancel()
        until(lambda: worker.queue_length(session_id) == 1, "the second call to leave the queue")
        worker.backend.answer = lambda _: completion("Hello")
        worker.call_soon(gate.set)
        first.result()
        third.result()
        assert ["one", "three"] == [
            kept.message.content.string_value
            for kept in _kept(sessions, session_id, ada)[2:]
            if kept.message.role == "user"
        ]
        until(lambda: _succeeds(chat, chat_request("other"), keyed), "the key to be released")


def _succeeds(chat: ChatCompletionsStub, request: Any, metadata: Metadata) -> bool:
    try:
        return bool(chat.CreateChatCompletion(request, metadata=metadata).id)
    except grpc.RpcError:
        return False


class TestPartial:
    """Tests of the stored part of an incomplete answer."""

    def test_a_cancelled_complete_answer(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A cancelled complete answer is stored as cancelled with its question, and the session is free."""
        session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
        worker.backend.answer = lambda _: asyncio.Event()
        call: Any = chat.CreateChatCompletion.future(chat_request("two", chatSessionId=session_id), metadata=ada)
        worker.wait_for_calls(2)
        call.cancel()
        worker.run(asyncio.wait_for(worker.backend.closed.wait(), 60))
        kept = _ended(sessions, session_id, ada)[2:]
        assert [("two", "incomplete", "cancelled")] == [
            (m.message.content.string_value, m.state, m.reason) for m in kept
        ]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (StreamBroken("broke off"), "failed"),
            (DeadlineExceeded(), "deadline"),
            (ZeroDivisionError("a mistake"), "internal"),
        ],
    )
    def test_the_reason_is_stored(
        self,
        worker: Worker,
        chat: ChatCompletionsStub,
        sessions: SessionsStub,
        ada: Metadata,
        error: Exception,
        reason: str,
    ) -> None:
        """An incomplete turn has its text, its reason and the latest known usage."""
        early = chunks("par")[0]
        early.usage.CopyFrom(USAGE)
        worker.backend.answer = lambda _: [early, error]
        call = chat.StreamChatCompletion(chat_request(), metadata=ada)
        session_id = next(iter(call)).session_id
        with pytest.raises(grpc.RpcError):
            list(call)
        question, answer = _ended(sessions, session_id, ada)
        assert {("incomplete", reason)} == {(m.state, m.reason) for m in (question, answer)}
        assert ("par", USAGE) == (answer.message.content.string_value, answer.usage)

    def test_a_deadline_that_cancels_is_a_deadline(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A turn that gRPC cancels at its deadline is stored as `deadline`."""
        session_id = chat.CreateChatCompletion(chat_request(), metadata=ada).session_id
        worker.backend.answer = lambda _: asyncio.Event()
        request = chat_request("two", chatSessionId=session_id)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == _refused(chat.CreateChatCompletion, request, ada, timeout=0.3)[0]
        assert "deadline" == _ended(sessions, session_id, ada)[-1].reason
