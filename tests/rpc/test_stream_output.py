"""How the chunks of a stream leave: as few messages, in order, and completely."""

from typing import Any

import grpc
import pytest

from parley.core.errors import StreamBroken
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import sse
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks

PIECES = [f"{number:05}" * 2_000 for number in range(50)]
"""50 pieces of 10 KB: several times what may wait for a reader."""


@pytest.fixture
def stream(chat: ChatCompletionsStub) -> Any:
    """The stub, whose types do not show the stream of events."""
    return chat


def test_an_answer_that_is_complete_at_once_leaves_as_one_message(worker: Worker, stream: Any, ada: Metadata) -> None:
    """The events of an answer that arrives at once and is not stored leave in one message, `[DONE]` included."""
    worker.backend.answer = lambda _: chunks("The ", "capital ", "is Paris.")
    bodies = list(stream.StreamChatCompletionEvents(chat_request(model="stateless"), metadata=ada))
    assert ["The capital is Paris."] == [sse.text(sse.chunks(body.data)) for body in bodies]


def test_events_that_wait_for_the_reader_leave_together(worker: Worker, stream: Any, ada: Metadata) -> None:
    """A long answer leaves in fewer messages than it has events, in order."""
    worker.backend.answer = lambda _: chunks(*PIECES)
    bodies = list(stream.StreamChatCompletionEvents(chat_request(model="stateless"), metadata=ada))
    assert "".join(PIECES) == sse.text(sse.chunks(b"".join(body.data for body in bodies)))
    assert len(PIECES) / 2 > len(bodies)


def test_typed_chunks_keep_their_order(worker: Worker, stream: Any, ada: Metadata) -> None:
    """Each chunk of a gRPC stream is a message of its own."""
    worker.backend.answer = lambda _: chunks(*PIECES)
    received = list(stream.StreamChatCompletion(chat_request(model="stateless"), metadata=ada))
    assert list(range(len(received))) == [chunk.sequence for chunk in received]
    assert PIECES == [chunk.choices[0].delta.content for chunk in received[1 : len(PIECES) + 1]]


def test_what_precedes_a_failure_is_written(worker: Worker, stream: Any, ada: Metadata) -> None:
    """A gRPC caller receives all chunks before the status of a failure that follows at once."""
    worker.backend.answer = lambda _: [*chunks("The ", "capital")[:2], StreamBroken("broke off")]
    answer = stream.StreamChatCompletion(chat_request(model="once"), metadata=ada)
    received = [next(answer).choices[0].delta.content for _ in range(3)]
    with pytest.raises(grpc.RpcError):
        next(answer)
    assert ["", "The ", "capital"] == received
    assert grpc.StatusCode.UNAVAILABLE == answer.code()


def test_the_event_of_a_failure_is_the_last_one(worker: Worker, stream: Any, ada: Metadata) -> None:
    """The events before a failure that follows at once leave with the event of the failure."""
    worker.backend.answer = lambda _: [*chunks("The ", "capital")[:2], StreamBroken("broke off")]
    bodies = list(stream.StreamChatCompletionEvents(chat_request(model="stateless"), metadata=ada))
    assert b'"error"' in bodies[-1].data.splitlines()[-2]
