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
from tests.rpc.conftest import Worker
from tests.rpc.scripted import USAGE, chunks, completion
from tests.rpc.test_chat import Metadata, ask


def _sent(worker: Worker) -> list[str]:
    """Returns the texts that the backend got last."""
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
    """The model of a session."""

    def test_a_session_has_its_model(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A request with a session and without a model uses the session's model, not the default one."""
        first = chat.CreateChatCompletion(ask(model="short"), metadata=ada)
        answer = chat.CreateChatCompletion(ask("two", chatSessionId=first.session_id), metadata=ada)
        assert "short" == answer.model

    def test_another_model_is_rejected(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """Another model than the session's is rejected."""
        first = chat.CreateChatCompletion(ask(model="short"), metadata=ada)
        request = ask("two", model="kept", chatSessionId=first.session_id)
        status, text = _refused(chat.CreateChatCompletion, request, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, 'belongs to the model "short"' in text)

    def test_a_key_must_be_valid_for_the_sessions_model(
        self, worker: Worker, chat: ChatCompletionsStub, tim: tuple[Metadata, Metadata]
    ) -> None:
        """A key that may not use the session's model cannot continue the session."""
        all_models, kept_only = tim
        first = chat.CreateChatCompletion(ask(model="short"), metadata=all_models)
        request = ask("two", chatSessionId=first.session_id)
        expected = (grpc.StatusCode.NOT_FOUND, 'Unknown model "short"')
        assert expected == _refused(chat.CreateChatCompletion, request, kept_only)


class TestHistory:
    """The history that the model gets."""

    def test_a_resent_history_is_stored_once(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A client that resends the history gets only its new message stored."""
        session_id = chat.CreateChatCompletion(ask("one"), metadata=ada).session_id
        request = ask("one", chatSessionId=session_id)
        for role, text in (("assistant", "Hello"), ("user", "two")):
            request.messages.add(role=role).content.string_value = text
        chat.CreateChatCompletion(request, metadata=ada)
        assert ["one", "Hello", "two"] == _sent(worker)
        assert ["one", "Hello", "two", "Hello"] == [
            kept.message.content.string_value for kept in _kept(sessions, session_id, ada)
        ]

    def test_no_new_message_is_rejected(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A request without a new message is rejected and leaves the session free."""
        session_id = chat.CreateChatCompletion(ask("one"), metadata=ada).session_id
        request = ask("one", chatSessionId=session_id)
        request.messages.add(role="assistant").content.string_value = "Hello"
        status, text = _refused(chat.CreateChatCompletion, request, ada)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (status, text.startswith("`messages`"))
        assert session_id == chat.CreateChatCompletion(ask("two", chatSessionId=session_id), metadata=ada).session_id

    def test_only_the_window_is_sent(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A long session sends the newest turns that fit, and always its system message."""
        request = ask("be brief", model="short")
        request.messages[0].role = "system"
        request.messages.add(role="user").content.string_value = "one"
        session_id = chat.CreateChatCompletion(request, metadata=ada).session_id
        for text in ("two", "three", "four"):
            chat.CreateChatCompletion(ask(text, chatSessionId=session_id), metadata=ada)
        assert ["be brief", "three", "Hello", "four"] == _sent(worker)

    def test_labels_and_usage_are_stored_with_the_turn(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """The request's metadata is stored with its messages, the usage with the answer, whole or streamed."""
        answer = chat.CreateChatCompletion(ask(metadata={"team": "red"}), metadata=ada)
        worker.backend.answer = lambda _: chunks("Hello")
        list(chat.StreamChatCompletion(ask("two", chatSessionId=answer.session_id), metadata=ada))
        first, _, _, last = kept = _kept(sessions, answer.session_id, ada)
        assert {"team": "red"} == dict(first.metadata)
        assert {} == dict(last.metadata)
        assert [None, USAGE, None, USAGE] == [m.usage if m.HasField("usage") else None for m in kept]


class TestQueue:
    """A model that queues concurrent turns."""

    def test_queued_turns_run_in_order(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """Queued turns run one after the other, in the order of their arrival."""
        session_id = chat.CreateChatCompletion(ask(model="queued"), metadata=ada).session_id
        gates = [asyncio.Event() for _ in range(3)]
        remaining = iter(gates)
        worker.backend.answer = lambda _: next(remaining)
        running: list[Any] = []
        for place, text in enumerate(("one", "two", "three")):
            running.append(chat.CreateChatCompletion.future(ask(text, chatSessionId=session_id), metadata=ada))
            if place == 0:
                worker.asked(2)
            else:
                until(lambda: worker.waiting(session_id) == place, "the caller to stand in line")  # noqa: B023
        assert 2 == len(worker.backend.calls)
        for place, text in enumerate(("one", "two", "three")):
            worker.asked(place + 2)
            assert text == _sent(worker)[-1]
            worker.call_soon(gates[place].set)
            assert session_id == running[place].result().session_id
        assert 0 == worker.waiting(session_id)

    def test_the_queue_has_a_timeout(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """After `queue_timeout` the call fails as busy."""
        session_id = chat.CreateChatCompletion(ask(model="impatient"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        running: Any = chat.CreateChatCompletion.future(ask("one", chatSessionId=session_id), metadata=ada)
        worker.asked(2)
        status, text = _refused(chat.CreateChatCompletion, ask("two", chatSessionId=session_id), ada)
        assert (grpc.StatusCode.ABORTED, True) == (status, "is answering another request" in text)
        worker.call_soon(gate.set)
        running.result()

    def test_a_deadline_limits_the_wait(self, worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
        """A call whose deadline is earlier than `queue_timeout` fails at its deadline and leaves the queue."""
        session_id = chat.CreateChatCompletion(ask(model="queued"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        running: Any = chat.CreateChatCompletion.future(ask("one", chatSessionId=session_id), metadata=ada)
        worker.asked(2)
        request = ask("two", chatSessionId=session_id)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == _refused(chat.CreateChatCompletion, request, ada, timeout=0.1)[0]
        until(lambda: worker.waiting(session_id) == 0, "the line to be empty")
        worker.call_soon(gate.set)
        running.result()

    def test_a_cancelled_call_leaves_the_queue(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A cancelled call leaves the queue without a turn, a claim or a gap."""
        session_id = chat.CreateChatCompletion(ask(model="queued"), metadata=ada).session_id
        gate = asyncio.Event()
        worker.backend.answer = lambda _: gate
        first: Any = chat.CreateChatCompletion.future(ask("one", chatSessionId=session_id), metadata=ada)
        worker.asked(2)
        keyed = (*ada, ("idempotency-key", "in-line"))
        leaving: Any = chat.CreateChatCompletion.future(ask("two", chatSessionId=session_id), metadata=keyed)
        until(lambda: worker.waiting(session_id) == 1, "the second to stand in line")
        third: Any = chat.CreateChatCompletion.future(ask("three", chatSessionId=session_id), metadata=ada)
        until(lambda: worker.waiting(session_id) == 2, "the third to stand in line")
        leaving.cancel()
        until(lambda: worker.waiting(session_id) == 1, "the second to have left")
        worker.backend.answer = lambda _: completion("Hello")
        worker.call_soon(gate.set)
        first.result()
        third.result()
        assert ["one", "three"] == [
            kept.message.content.string_value
            for kept in _kept(sessions, session_id, ada)[2:]
            if kept.message.role == "user"
        ]
        until(lambda: _succeeds(chat, ask("other"), keyed), "the key to be free")


def _succeeds(chat: ChatCompletionsStub, request: Any, metadata: Metadata) -> bool:
    try:
        return bool(chat.CreateChatCompletion(request, metadata=metadata).id)
    except grpc.RpcError:
        return False


class TestPartial:
    """What is stored of an incomplete answer."""

    def test_a_cancelled_whole_answer(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A cancelled whole answer is stored as cancelled with its question, and the session is free."""
        session_id = chat.CreateChatCompletion(ask(), metadata=ada).session_id
        worker.backend.answer = lambda _: asyncio.Event()
        call: Any = chat.CreateChatCompletion.future(ask("two", chatSessionId=session_id), metadata=ada)
        worker.asked(2)
        call.cancel()
        worker.run(asyncio.wait_for(worker.backend.closed.wait(), 10))
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
        """An incomplete turn has its text, its reason and its usage as far as it is known."""
        early = chunks("par")[0]
        early.usage.CopyFrom(USAGE)
        worker.backend.answer = lambda _: [early, error]
        call = chat.StreamChatCompletion(ask(), metadata=ada)
        session_id = next(iter(call)).session_id
        with pytest.raises(grpc.RpcError):
            list(call)
        asked, said = _ended(sessions, session_id, ada)
        assert {("incomplete", reason)} == {(m.state, m.reason) for m in (asked, said)}
        assert ("par", USAGE) == (said.message.content.string_value, said.usage)

    def test_a_deadline_that_cancels_is_a_deadline(
        self, worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
    ) -> None:
        """A turn that gRPC cancels at its deadline is stored as `deadline`."""
        session_id = chat.CreateChatCompletion(ask(), metadata=ada).session_id
        worker.backend.answer = lambda _: asyncio.Event()
        request = ask("two", chatSessionId=session_id)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == _refused(chat.CreateChatCompletion, request, ada, timeout=0.3)[0]
        assert "deadline" == _ended(sessions, session_id, ada)[-1].reason
