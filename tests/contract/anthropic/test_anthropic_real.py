"""The Anthropic backend with llama.cpp's implementation of the Messages API and the built-in model.

Nothing is scripted: this checks Parley's reading of Anthropic's reference against an independent implementation.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from parley.backends.anthropic.backend import Anthropic
from parley.backends.llama_cpp import command as llama_cpp_command
from parley.core.errors import ContextLengthExceeded
from tests.contract.backends import call, collect, reasons, text
from tests.contract.llama_cpp.server import start

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real server."""
    run_dir = tmp_path_factory.mktemp("messages")
    process = start(run_dir)
    yield llama_cpp_command.socket_path(run_dir, "local")
    process.terminate()
    process.wait(10)


@pytest_asyncio.fixture
async def backend(server: Path) -> AsyncIterator[Anthropic]:
    """The backend, connected to the real server."""
    made = Anthropic("http://local", None, max_tokens=40, unix_socket=server)
    yield made
    await made.close()


def fields(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns the fields of a deterministic call."""
    return {"temperature": 0, "messages": list(messages), **more}


FRANCE = fields({"role": "user", "content": "Name the capital of France."})


async def test_complete_and_streamed(backend: Anthropic) -> None:
    """A complete answer and a stream have equal text and usage."""
    non_streaming = await backend.complete(call(**FRANCE))
    chunks = await collect(backend, call(**FRANCE))
    assert "Paris" in non_streaming.choices[0].message.content.string_value
    assert non_streaming.choices[0].message.content.string_value == text(chunks)
    assert (["stop"], "stop") == (reasons(chunks), non_streaming.choices[0].finish_reason)
    counted = [chunk.usage for chunk in chunks if chunk.HasField("usage")]
    assert len(counted) > 1
    assert counted[0].prompt_tokens == non_streaming.usage.prompt_tokens > 0
    assert counted[-1].total_tokens == non_streaming.usage.total_tokens > non_streaming.usage.prompt_tokens


async def test_system_prompt(backend: Anthropic) -> None:
    """A system message reaches the model."""
    name = {"role": "system", "content": "Your name is Zorro."}
    answer = await backend.complete(call(**fields(name, {"role": "user", "content": "What is your name?"})))
    assert "Zorro" in answer.choices[0].message.content.string_value


async def test_limit_and_stop(backend: Anthropic) -> None:
    """A token limit and a stop sequence end the answer with their finish reasons."""
    short = await backend.complete(call(**FRANCE, max_tokens=3))
    stopped = await backend.complete(call(**FRANCE, stop=["xyz", "Paris"]))
    assert ("length", 3) == (short.choices[0].finish_reason, short.usage.completion_tokens)
    assert "stop" == stopped.choices[0].finish_reason
    assert "Paris" not in stopped.choices[0].message.content.string_value


async def test_continuation(backend: Anthropic) -> None:
    """The model continues its answer. Streaming only: otherwise this server repeats the prefix."""
    counting = fields(
        {"role": "user", "content": "Count from 1 to 8."}, {"role": "assistant", "content": "1, 2, 3, 4,"}
    )
    assert text(await collect(backend, call(**counting, continues=True))).startswith(" 5, 6")


async def test_tool_result(backend: Anthropic) -> None:
    """A tool result reaches the model."""
    function = {"name": "get_weather", "arguments": '{"city":"Bern"}'}
    answer = await backend.complete(
        call(
            **fields(
                {"role": "user", "content": "What is the weather in Bern?"},
                {"role": "assistant", "tool_calls": [{"id": "call:1", "type": "function", "function": function}]},
                {"role": "tool", "tool_call_id": "call:1", "content": "Sunny, 18 degrees"},
                tools=[TOOL],
            )
        )
    )
    assert "18" in answer.choices[0].message.content.string_value


async def test_too_long(backend: Anthropic) -> None:
    """A conversation over the context maps to ContextLengthExceeded, streaming or not."""
    long = call(**fields({"role": "user", "content": "word " * 5000}))
    with pytest.raises(ContextLengthExceeded):
        await backend.complete(long)
    with pytest.raises(ContextLengthExceeded):
        await collect(backend, long)
