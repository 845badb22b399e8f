"""Capabilities of the built-in model: supported parameters and tools, and continuations."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from parley.backends.llama_cpp import command as llama_cpp_command
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.config import LlamaCppBackend
from parley.core.errors import (
    UnsupportedParameter,
    UpstreamUnavailable,
)
from parley.core.ports import UpstreamCall
from tests.contract.backends import call, collect, failure, request, text
from tests.contract.llama_cpp.server import CONFIG, SEA, SHORT, TOOL, start
from tests.contract.llama_cpp.test_llama_cpp_answers import CITY
from tests.upstream import ScriptedUpstream


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
    shutil.copy(llama_cpp_command.capabilities_path(thinker), tmp_path / "llama.json")
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
    backend = LlamaCpp(llama_cpp_command.socket_path(tmp_path, "local"))
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
