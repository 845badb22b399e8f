"""When the messages of a stream are written: plain text at once, other chunks when the handler waits."""

import asyncio
from typing import Any

from parley.core.streaming.plain_text import plain_text
from parley.rpc.call import Call, set_current
from parley.rpc.stream_output import MessageOutput
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta


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
        batch = plain_text(_chunk(text))
        assert batch is not None
        output.add(batch)
    assert [_chunk("a").SerializeToString()] == written.messages, "one write at a time"
    await output.drain()
    assert [_chunk(text).SerializeToString() for text in "ab"] == written.messages


async def test_other_chunks_are_written_when_the_handler_waits() -> None:
    """The last of them leaves with the status."""
    written, output = await _output()
    output.add([_chunk("a"), _chunk("b")])
    assert [] == written.messages
    assert _chunk("b").SerializeToString() == await output.finish()
    assert [_chunk("a").SerializeToString()] == written.messages
