"""When the messages of a stream are written: plain text at once, other chunks when the handler waits."""

import asyncio
from typing import Any

from parley.core.ports.plain_text import PlainText
from parley.rpc.call import Call, set_current
from parley.rpc.http_body import http_body
from parley.rpc.sse import EventWriter
from parley.rpc.stream_output import EventOutput, MessageOutput
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

body = http_body("text/event-stream")


class RecordedWrites:
    """A context that records the messages written to it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def write(self, message: bytes) -> None:
        """Records a message, and ends in the next turn of the event loop."""
        self.messages.append(message)
        loop = asyncio.get_running_loop()
        loop.call_soon((written := loop.create_future()).set_result, None)
        await written


def _chunk(text: str) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta(content=text))])


def _plain(text: str) -> PlainText:
    return PlainText("content", text, len(text))


def _stamped(text: str) -> PlainText:
    """Returns a text as StreamShaper does."""
    made = _plain(text)
    made.stamp, made.sequence = ChatCompletionChunk(id="x", created=1, model="m").SerializeToString(), 1
    return made


async def _output() -> tuple[RecordedWrites, MessageOutput]:
    task = asyncio.current_task()
    assert task is not None
    set_current(Call("StreamChatCompletion", "1", "1", {}, task, headers_sent=True))
    context: Any = RecordedWrites()
    return context, MessageOutput(context)


async def test_plain_text_is_written_in_the_turn_that_adds_it() -> None:
    """Nothing follows a piece of text at once, so that it need not wait for another turn of the event loop."""
    written, output = await _output()
    for text in ("a", "b"):
        output.add(_plain(text))
    assert [_chunk("a").SerializeToString()] == written.messages, "one write at a time"
    await output.drain()
    assert [_chunk(text).SerializeToString() for text in "ab"] == written.messages


async def test_plain_text_follows_what_waits() -> None:
    """A text leaves after the chunks that were added before it; either shows that the stream has started."""
    written, output = await _output()
    output.add([_chunk("a")])
    output.add(_plain("b"))
    await output.drain()
    assert [_chunk(text).SerializeToString() for text in "ab"] == written.messages
    written, output = await _output()
    output.add(_plain("a"))
    assert output.started
    await output.drain()


async def test_events_that_wait_leave_as_one_message() -> None:
    """Texts that are added during a write are one message after it."""
    context, _ = await _output()
    written: Any = context
    output = EventOutput(written, EventWriter(include_usage=False))
    texts = [_stamped(text) for text in "abc"]
    for text in texts:
        output.add(text)
    await output.drain()
    first, *others = map(EventWriter(include_usage=False).text_event, texts)
    assert [body(first), body(b"".join(others))] == context.messages


async def test_other_chunks_are_written_when_the_handler_waits() -> None:
    """The last of them leaves with the status."""
    written, output = await _output()
    output.add([_chunk("a"), _chunk("b")])
    assert [] == written.messages
    assert _chunk("b").SerializeToString() == await output.finish()
    assert [_chunk("a").SerializeToString()] == written.messages
