"""Behavior of the backend for any-llm-sdk, beyond the contract suite, with the real packages."""

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from parley.backends.any_llm.backend import AnyLLM
from parley.config import ConfigError, Metadata
from parley.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from tests.contract import anthropic_api
from tests.contract.backends import KEY, call, collect, failure, reasons, text, words
from tests.contract.http_vendors import OPENAI
from tests.upstream import USAGE, Events, Json, Raw, ScriptedUpstream, chunk, completion, ending

WITHOUT = """
import sys
sys.modules["any_llm"] = None
from pathlib import Path
from parley.backends.factory import make_backend
from parley.config import AnyLLMBackend
make_backend("tail", AnyLLMBackend(kind="any_llm", provider="openai"), Path("."))
"""


@pytest_asyncio.fixture
async def backend(upstream: ScriptedUpstream) -> AsyncIterator[AnyLLM]:
    """The backend with the provider `openai`, connected to the scripted upstream."""
    made = AnyLLM("openai", KEY, upstream.url)
    yield made
    await made.close()


async def test_request(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """Parameters are sent under the provider's names; schemas keep their key order."""
    schema = '{"type":"object","properties":{"zeta":{},"alpha":{},"mid":{}}}'
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.25,
        "stop": ["x"],
        "seed": 7,
        "verbosity": "low",
        "logit_bias": {"5": 1},
    }
    function = {"name": "f", "parameters_json": schema}
    await backend.complete(call(**fields, tools=[{"type": "function", "function": function}], metadata={"k": "v"}))
    sent = upstream.requests[0].json
    expected = {"model": "target-1", "messages": [{"role": "user", "content": "hi"}], **fields}
    assert expected == {name: sent[name] for name in expected}
    assert ["zeta", "alpha", "mid"] == list(sent["tools"][0]["function"]["parameters"]["properties"])
    assert "metadata" not in sent
    assert f"Bearer {KEY}" == upstream.requests[0].headers["authorization"]


async def test_extra_body_is_json_and_nothing_else(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """Keys of `extra_body` only affect the JSON body, even if the package has an argument of that name."""
    extra: dict[str, Any] = {
        "top_k": 5,
        "api_base": "http://127.0.0.1:1",
        "timeout": 0.001,
        "extra_headers": {"authorization": "x"},
    }
    upstream_call = call()
    upstream_call.request.extra_body.update(extra)
    await backend.complete(upstream_call)
    sent = upstream.requests[0]
    assert extra == {name: sent.json[name] for name in extra}
    assert f"Bearer {KEY}" == sent.headers["authorization"]


async def test_extra_body_that_repeats_a_field(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """A key of `extra_body` that is a field of the request is rejected."""
    upstream_call = call()
    upstream_call.request.extra_body.update({"seed": 5})
    assert InvalidRequest is type(await failure(backend, upstream_call))
    assert not upstream.requests


BIG = '{"z":18446744073709551616,"a":1.5}'
CACHED = {"role": "user", "content": "hi", "extra_json": '{"cache_control":{"type":"ephemeral"}}'}


async def test_unknown_fields(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """A package that sends messages unchanged receives all unknown fields, including large integers."""
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_json": BIG}
    await backend.complete(
        call(
            messages=[CACHED, {"role": "assistant", "tool_calls": [called]}],
            tools=[{"type": "web_search", "extra_json": BIG}],
            extra_body_json=f'{{"own":{BIG}}}',
        )
    )
    sent = upstream.requests[0].json
    big = {"z": 18446744073709551616, "a": 1.5}
    assert {"type": "ephemeral"} == sent["messages"][0]["cache_control"]
    assert big.items() <= sent["messages"][1]["tool_calls"][0].items()
    assert ([{"type": "web_search"} | big], big) == (sent["tools"], sent["own"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [CACHED]}, "messages[0].cache_control"),
        ({"tools": [{"type": "function", "function": {"name": "f", "extra_json": BIG}}]}, "tools[0].function.a"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"response_format": {"type": "json_object", "extra_json": '{"schema":{}}'}}, "response_format.schema"),
    ],
)
async def test_unknown_fields_that_a_package_would_lose(
    upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    """Unknown fields that a translating package would drop are rejected."""
    backend = AnyLLM("anthropic", KEY, f"http://{upstream.address}")
    failed = await failure(backend, call(**fields))
    await backend.close()
    assert (UnsupportedParameter, param, []) == (type(failed), failed.param, upstream.requests)


async def test_tools_that_must_not_be_called(upstream: ScriptedUpstream) -> None:
    """With `tool_choice: none` tools are dropped; unknown fields of earlier answers are accepted."""
    backend = AnyLLM("anthropic", KEY, f"http://{upstream.address}")
    upstream.answer(anthropic_api.message(anthropic_api.text_block("x")))
    earlier = {"role": "assistant", "content": "a", "extra_json": '{"reasoning_details":[]}'}
    user = {"role": "user", "content": "hi"}
    await backend.complete(call(messages=[user, earlier, user], tools=[{"type": "web_search"}], tool_choice="none"))
    await backend.close()
    assert "tools" not in upstream.requests[0].json


async def test_signed_thinking(upstream: ScriptedUpstream) -> None:
    """A vendor's signed thinking is sent back in the next turn."""
    backend = AnyLLM("anthropic", KEY, f"http://{upstream.address}")
    thinking = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}
    upstream.answer(
        anthropic_api.message(thinking, use, stop_reason="tool_use"),
        anthropic_api.message(anthropic_api.text_block("x")),
    )
    tools = [{"type": "function", "function": {"name": "f"}}]
    delivered = (await backend.complete(call(tools=tools))).choices[0].message
    upstream_call = call(
        tools=tools, messages=[{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "c", "content": "1"}]
    )
    upstream_call.request.messages.insert(1, delivered)
    await backend.complete(upstream_call)
    await backend.close()
    assert [thinking, use] == upstream.requests[1].json["messages"][1]["content"]


async def test_complete_answer(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """Tool calls, reasoning and metadata are parsed."""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    upstream.answer(completion(None, tool_calls=calls, reasoning_content="hmm"))
    answer = await backend.complete(call())
    message = answer.choices[0].message
    assert ("c", "f", '{"x": 1}') == (
        message.tool_calls[0].id,
        message.tool_calls[0].function.name,
        message.tool_calls[0].function.arguments,
    )
    assert ("hmm", "fp_scripted") == (message.reasoning_content, answer.system_fingerprint)


async def test_stream(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """Text, reasoning and tool calls are streamed, followed by the usage."""
    piece = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    rest = {"index": 0, "function": {"arguments": "}"}}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "reasoning_content": "hm"},
        {"content": "Hel"},
        {"content": "lo."},
        {"tool_calls": [piece]},
        {"tool_calls": [rest]},
    ]
    upstream.answer(Events([*(chunk(delta) for delta in deltas), *ending("tool_calls")]))
    chunks = await collect(backend, call())
    delivered = [choice.delta for one in chunks for choice in one.choices]
    assert ("Hello.", ["tool_calls"]) == (text(chunks), reasons(chunks))
    assert "hm" == "".join(delta.reasoning_content for delta in delivered)
    assert ["{", "}"] == [found.function.arguments for delta in delivered for found in delta.tool_calls]
    assert USAGE["total_tokens"] == max(one.usage.total_tokens for one in chunks)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (307, UpstreamMisconfigured),
        (400, UpstreamRejected),
        (401, UpstreamMisconfigured),
        (402, UpstreamQuotaExhausted),
        (403, UpstreamMisconfigured),
        (404, UpstreamMisconfigured),
        (408, UpstreamUnavailable),
        (409, UpstreamUnrecognized),
        (422, UpstreamRejected),
        (429, UpstreamRateLimited),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (504, UpstreamUnavailable),
        (529, UpstreamUnavailable),
    ],
)
async def test_status(
    backend: AnyLLM, upstream: ScriptedUpstream, status: int, error: type[ParleyError], stream: bool
) -> None:
    """Each status maps to its error. The package does not retry or follow redirects."""
    upstream.answer(OPENAI.answers(status, "because", Location=upstream.url))
    failed = await failure(backend, call(), stream=stream)
    assert error is type(failed)
    assert 1 == len(upstream.requests)
    assert "because" in words(failed)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({"Retry_After": "7"}, 7.0), ({"retry_after_ms": "1500", "Retry_After": "2"}, 1.5), ({}, None)],
)
async def test_retry_after(
    backend: AnyLLM, upstream: ScriptedUpstream, headers: dict[str, str], expected: float | None
) -> None:
    """The retry delay is parsed from the headers."""
    upstream.answer(OPENAI.answers(429, **headers))
    assert expected == (await failure(backend, call())).retry_after


async def test_package_refines_the_kind(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """The package's exception type decides if the provider's code is not specific."""
    upstream.answer(OPENAI.answers(400, "token limit reached"))
    failed = await failure(backend, call())
    assert (ContextLengthExceeded, "token limit reached") == (type(failed), failed.message)


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", '{"choices": 3}', '{"choices": [{"message": 1}]}'])
async def test_malformed_answer(backend: AnyLLM, upstream: ScriptedUpstream, body: str) -> None:
    """A malformed response maps to UpstreamUnreadable, which is not retried."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    upstream.answer(Raw([head + body]))
    failed = await failure(backend, call())
    assert UpstreamUnreadable is type(failed)
    assert failed.cause


async def test_unparsable_stream(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """Invalid JSON in a stream raises StreamBroken."""
    upstream.answer(Events([chunk({"content": "Hel"}), "data: {oops\n\n", *ending()]))
    assert StreamBroken is type(await failure(backend, call(), stream=True))


async def test_unsupported_parameter(upstream: ScriptedUpstream) -> None:
    """A parameter that the provider or its package does not support is rejected by name, and nothing is sent."""
    tail = AnyLLM("llamafile", None, upstream.url)
    formatted = await failure(tail, call(response_format={"type": "json_object"}))
    unheard = await failure(AnyLLM("anthropic", KEY, upstream.url), call(verbosity="low"))
    assert [UnsupportedParameter] * 2 == [type(formatted), type(unheard)]
    assert ("response_format", "verbosity") == (formatted.param, unheard.param)
    assert '`verbosity` is not supported by the model "myapp-123"' == unheard.message
    assert not upstream.requests


async def test_invalid_value(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """A value that the package rejects names the field."""
    failed = await failure(backend, call(reasoning_effort="enormous"))
    assert (UpstreamRejected, "reasoning_effort") == (type(failed), failed.param)
    assert not upstream.requests


@pytest.mark.parametrize(
    ("provider", "message"),
    [("nobody", "not a supported provider"), ("together", r"pip install any-llm-sdk\[together\]")],
)
async def test_provider_that_cannot_be_created(provider: str, message: str) -> None:
    """An unknown provider, or one whose package is not installed, raises ConfigError."""
    with pytest.raises(ConfigError, match=message):
        AnyLLM(provider, KEY)


def test_without_the_package() -> None:
    """Without the extra, start-up fails with a message that says what to install."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert "ConfigError: backends.tail.kind: " in last
    assert "pip install 'parley-gateway[any-llm]'" in last


async def test_the_models_of_a_provider_are_read(backend: AnyLLM, upstream: ScriptedUpstream) -> None:
    """The package passes on fields that OpenAI's own list does not have."""
    upstream.answer(Json({"object": "list", "data": [{"id": "m", "owned_by": "lab", "context_window": 8192}]}))
    assert {"m": Metadata(owner="lab", context_length=8192)} == await backend.list_models()
    upstream.answer(Json({}, status=500))
    with pytest.raises(UpstreamUnavailable) as raised:
        await backend.list_models()
    assert KEY not in str(raised.value.cause)


def test_a_provider_without_a_list_is_rejected_at_the_start() -> None:
    """Which providers have one, the package says."""
    with pytest.raises(ConfigError, match="discover: any-llm-sdk cannot list the models of 'minimax'; remove it"):
        AnyLLM("minimax", KEY, discover=True)
