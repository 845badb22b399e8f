"""Fixtures: real servers of the built-in model, and its backend."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from parley.backends.llama_cpp import command as llama_cpp_command
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.config import LlamaCppBackend
from tests.contract.llama_cpp.server import CONFIG, start

THINKS = (
    "{% for t in tools %}{{t|tojson}}{% endfor %}{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}"
    "{% if m.tool_calls %}<tool_call>{{m.tool_calls|tojson}}</tool_call>{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n"
    "{% endif %}{% endif %}"
)


@pytest.fixture(scope="session")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of one real server for all tests."""
    run_dir = tmp_path_factory.mktemp("llama")
    process = start(run_dir)
    yield llama_cpp_command.socket_path(run_dir, "local")
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a server with the same weights and a chat template with tools and reasoning."""
    folder = tmp_path_factory.mktemp("thinker")
    file = folder / "thinker.gguf"
    weights = llama_cpp_launch.model_path(CONFIG).read_bytes()
    length, offset = template_of(weights)
    file.write_bytes(
        weights[:offset] + THINKS.encode() + b"{#".ljust(length - len(THINKS) - 2) + b"#}" + weights[offset + length :]
    )
    process = start(folder, LlamaCppBackend(kind="llama_cpp", model_path=file, context=1024, slots=1))
    yield llama_cpp_command.socket_path(folder, "local")
    process.terminate()
    process.wait(10)
    file.unlink()


def template_of(weights: bytes) -> tuple[int, int]:
    """Returns length and offset of the chat template in a GGUF file."""
    key = b"tokenizer.chat_template"
    offset = weights.index(key) + len(key) + 4  # follows the type, which is string
    return int.from_bytes(weights[offset : offset + 8], "little"), offset + 8


@pytest_asyncio.fixture
async def backend(socket: Path) -> AsyncIterator[LlamaCpp]:
    """The backend of the built-in model."""
    made = LlamaCpp(socket)
    yield made
    await made.close()
