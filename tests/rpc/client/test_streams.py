"""parley-client against the real server: streams, whole and broken."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest

import parley_client
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Audio, Delta
from tests.processes import until
from tests.rpc.client.conftest import Connect, Events
from tests.rpc.client.failing_server import FailingServer, Failure
from tests.rpc.conftest import Worker
from tests.rpc.scripted import USAGE, chunks, completion, split_completion


def broken(*texts: str) -> list[ChatCompletionChunk | Failure]:
    """Returns the chunks of an answer that breaks after these texts."""
    return [*chunks(*texts)[:-1], (grpc.StatusCode.UNAVAILABLE, {})]


def with_tool_call() -> ChatCompletion:
    """Returns an answer with text and two tool calls."""
    answer = completion("Let me see.")
    answer.choices[0].finish_reason = "tool_calls"
    for place, city in enumerate(("Paris", "Rome")):
        call = answer.choices[0].message.tool_calls.add(id=f"call-{place}", type="function")
        call.function.name, call.function.arguments = "get_weather", f'{{"city":"{city}"}}'
    return answer


def test_a_stream_ends_with_the_joined_answer(worker: Worker, client: Any) -> None:
    """The text arrives in pieces; the result has the whole text, usage, session and receipt."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    with client.chat.stream("Hi", model="kept") as stream:
        assert ["Hel", "lo"] == list(stream.text())
        answer = stream.result()
    assert ("Hello", "stop", 5) == (answer.text, answer.finish_reason, answer.usage.total_tokens)
    assert (answer.session_id is not None, "completed") == (True, answer.receipt.attempts[0].outcome)


def test_the_joined_answer_is_the_whole_one(worker: Worker, client: Any) -> None:
    """What is joined from a stream is equal to the answer of the unary call, tool calls included."""
    worker.backend.answer = lambda _: with_tool_call()
    whole = client.chat.create("Hi", store=False).raw
    worker.backend.answer = lambda _: split_completion(with_tool_call())
    with client.chat.stream("Hi", store=False) as stream:
        joined = stream.result().raw
    for answer in (whole, joined):
        answer.ClearField("id")
        answer.ClearField("created")
        answer.choices[0].message.ClearField("text")  # the older form is compared
    assert whole == joined
    assert ["Paris", "Rome"] == [call.function.arguments[9:-2] for call in joined.choices[0].message.tool_calls]


def test_a_broken_stream_continues_behind_what_was_delivered(
    server: FailingServer, connect: Connect, events: Events
) -> None:
    """The repeated answer begins with the delivered text, which is skipped, also in the middle of a chunk."""
    server.streams = [broken("The ca", "pital "), broken("The capital", " of"), chunks("The", " capital of", " France")]
    with connect(server.address, "sk-key").chat.stream("Hi") as stream:
        pieces = list(stream.text())
        answer = stream.result()
    assert ["The ca", "pital ", "of", " France"] == pieces
    assert ("The capital of France", "stop") == (answer.text, answer.finish_reason)
    assert ["parley retry", "parley retry", "parley call"] == [event for event, _ in events]
    keys = [call["idempotency-key"] for call in server.calls]
    assert (3, 3, 1) == (events[-1][1]["attempts"], len(keys), len(set(keys)))


def test_a_broken_tool_call_continues(server: FailingServer, connect: Connect) -> None:
    """The arguments of a tool call continue where they stopped, and the joined call is complete."""
    whole = split_completion(with_tool_call())
    half = ChatCompletionChunk.FromString(whole[0].SerializeToString())
    half.choices[0].ClearField("finish_reason")
    half.choices[0].delta.tool_calls[1].function.arguments = '{"ci'
    server.streams = [[half, (grpc.StatusCode.UNAVAILABLE, {})], whole]
    with connect(server.address, "sk-key").chat.stream("Hi") as stream:
        deltas = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls]
        answer = stream.result()
    assert ['{"ci', 'ty":"Rome"}'] == [call.function.arguments for call in deltas if call.index == 1]
    assert ['{"city":"Paris"}', '{"city":"Rome"}'] == [call.function.arguments for call in answer.tool_calls]


def test_a_stream_that_breaks_at_its_end_repeats_nothing(server: FailingServer, connect: Connect) -> None:
    """Finish reason and usage are delivered once, also if the stream breaks behind them."""
    whole = chunks("The capital")
    ending = [*chunks("The capital")[:-1], ChatCompletionChunk(), ChatCompletionChunk(usage=USAGE)]
    ending[1].choices.add(index=0, finish_reason="stop")
    unavailable: Failure = (grpc.StatusCode.UNAVAILABLE, {})
    server.streams = [[*ending[:2], unavailable], [*ending, unavailable], whole]
    with connect(server.address, "sk-key").chat.stream("Hi") as stream:
        received = list(stream)
        answer = stream.result()
    assert ["stop"] == [one.finish_reason for chunk in received for one in chunk.choices if one.finish_reason]
    assert [5] == [chunk.usage.total_tokens for chunk in received if chunk.HasField("usage")]
    assert ("stop", 5) == (answer.finish_reason, answer.usage.total_tokens)


def test_broken_audio_continues(server: FailingServer, connect: Connect) -> None:
    """Audio and its transcript continue where they stopped."""
    pieces = [ChatCompletionChunk() for _ in range(3)]
    for piece, data in zip(pieces, ("AAAA", "BBBB", "CCCC"), strict=True):
        piece.choices.add(index=0, delta=Delta(audio=Audio(data=data, transcript=data.lower())))
    server.streams = [[*pieces[:2], (grpc.StatusCode.UNAVAILABLE, {})], pieces]
    with connect(server.address, "sk-key").chat.stream("Hi") as stream:
        received = [one.delta.audio for chunk in stream for one in chunk.choices]
        audio = stream.result().message.audio
    assert "AAAABBBBCCCC" == "".join(one.data for one in received) == audio.data
    assert "aaaabbbbcccc" == "".join(one.transcript for one in received) == audio.transcript


@pytest.mark.parametrize("second", ["The town", "The"])
def test_another_answer_is_not_joined_to_what_was_delivered(
    server: FailingServer, connect: Connect, second: str
) -> None:
    """If the repeated answer differs, or is shorter, the stream fails and has what was delivered."""
    server.streams = [broken("The ca"), chunks(second)]
    with connect(server.address, "sk-key").chat.stream("Hi") as stream:
        pieces = []
        with pytest.raises(parley_client.BrokenStreamError) as caught:
            pieces += stream.text()
    assert "The ca" == caught.value.partial.text


def test_a_repeated_stream_is_replayed(worker: Worker, client: Any) -> None:
    """With the key of an earlier call the same answer is streamed again, and marked."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    answers, key = [], uuid.uuid4().hex
    for _ in range(2):
        with client.chat.stream("Hi", idempotency_key=key) as stream:
            answers.append(stream.result())
    assert [("Hello", False), ("Hello", True)] == [(answer.text, answer.replayed) for answer in answers]
    assert 1 == len(worker.backend.calls)


def test_leaving_the_block_cancels_the_call(worker: Worker, client: Any, events: Events) -> None:
    """The upstream call ends when the block of an unfinished stream is left."""
    worker.backend.answer = lambda _: [chunks("Hel")[0], asyncio.Event()]
    with client.chat.stream("Hi") as stream:
        assert "Hel" == next(iter(stream.text()))
    until(worker.backend.closed.is_set, "the end of the upstream call")
    until(lambda: events, "the event of the call")
    assert ("parley call", "CANCELLED") == (events[0][0], events[0][1]["code"])


def test_choices_and_unknown_fields_are_joined(worker: Worker, client: Any) -> None:
    """Each of the `n` choices is joined; lists among unknown fields are appended."""
    first, second = (ChatCompletionChunk() for _ in range(2))
    for index in (1, 0):
        first.choices.add(index=index, delta=Delta(content=f"{index}a", extra_json='{"x":[1],"y":1}'))
        second.choices.add(index=index, delta=Delta(content="b", extra_json='{"x":[2],"y":2}'), finish_reason="stop")
    worker.backend.answer = lambda _: [first, second]
    with client.chat.stream("Hi", n=2, store=False) as stream:
        choices = stream.result().raw.choices
    assert [(0, "0ab"), (1, "1ab")] == [(choice.index, choice.message.text) for choice in choices]
    assert '{"x":[1,2],"y":2}' == choices[0].message.extra_json


def test_a_failed_stream_raises_its_error(worker: Worker, client: Any) -> None:
    """A stream that fails before its first chunk raises the typed error."""
    with client.chat.stream("Hi", model="nope") as stream, pytest.raises(parley_client.NotFoundError) as caught:
        list(stream.text())
    assert grpc.StatusCode.NOT_FOUND is caught.value.code
