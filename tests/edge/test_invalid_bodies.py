"""Invalid and valid bodies of requests, as the edge parses them."""

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.edge.errors import PATHS, REQUEST, shown
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")
BODIES = [
    "{",
    '{"model":',
    '{"model": "m",}',
    "nope",
    "[]",
    "null",
    '"text"',
    '{"model": "\\ud800"}',
    '{"model": 123}',
    '{"model": {}}',
    '{"model": true}',
    '{"model": ["m"]}',
    '{"messages": "no"}',
    '{"messages": 1}',
    '{"messages": [1]}',
    '{"messages": [{"role": 1}]}',
    '{"messages": [{"role": {}}]}',
    '{"messages": [{}, {"tool_calls": "x"}]}',
    '{"messages": [{"tool_calls": [{"function": {"name": 3}}]}]}',
    '{"stream": 1}',
    '{"stream": {}}',
    '{"stream_options": 1}',
    '{"stream_options": {"include_usage": "x"}}',
    '{"temperature": "hot"}',
    '{"temperature": [1]}',
    '{"n": 1.5}',
    '{"n": -1}',
    '{"seed": "x"}',
    '{"logit_bias": 1}',
    '{"logit_bias": []}',
    '{"logit_bias": {"1": "x"}}',
    '{"metadata": {"a": 1}}',
    '{"tools": "x"}',
    '{"tools": [{"function": {"parameters": []}}]}',
    '{"tools": [{"function": {"parameters": "x"}}]}',
    '{"modalities": [{}]}',
    '{"modalities": [1]}',
    '{"response_format": "json"}',
    '{"chatSessionId": 1}',
    '{"session_id": {}}',
    '{"model": "a", "model": "b"}',
    '{"chatSessionId": "a", "session_id": "b"}',
    '{"messages": [{"role": "a", "name": "b", "name": "c"}]}',
    '{"model": []}',
    '{"unknown": [{}], "mod\\u0065l": []}',
    '{"chatSessionId": ["a"]}',
    '{"messages": {"role": "user", "content": "x"}}',
    '{"messages": [{"role": ["a"]}]}',
    '{"tools": {"type": "function"}}',
    '{"modalities": "text"}',
    '{"response_format": []}',
    '{"metadata": []}',
    '{"metadata": {"a": []}}',
    '{"metadata": {"a": "{", "b": {}}}',
    '{"logit_bias": {"1": {}}}',
    '{"stream": "true"}',
    '{"stream": "false"}',
    '{"stream": "yes"}',
    '{"stream": []}',
    '{"seed": 9223372036854775808}',
    '{"seed": 18446744073709551616}',
    '{"seed": 1e400}',
    '{"temperature": -1e400}',
    '{"messages": [{"role": "user", "content": "a\\ud83d"}]}',
    '{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\ude00"}]}]}',
    '{"tools": [{"type": "function", "function": {"parameters": {"\\uD800": 1}}}]}',
    '{"x": ["\\\\ud83d", "\\ud83d\\ude00\\ud83d"]}',
    '{"\\udc00": 1}',
    '{"seed": -9223372036854775809}',
    '{"max_tokens": 10000000000}',
    '{"max_tokens": 1e400}',
    '{"messages": [null]}',
    '{"messages": [[]]}',
    '{"messages": [{"role": "user", "tool_calls": [null]}]}',
    '{"messages": [{"role": 1, "name": {}}, 5], "n": "x", "tools": [{"function": {"strict": 1}}]}',
    '{"modalities": [null]}',
    '{"metadata": {"a": null}}',
    '{"logit_bias": {"1": 1e400}}',
    '{"logprobs": "yes"}',
    '{"top_k": 1, "extra_body_json": "{}"}',
    '{"extra_body": {}, "extra_body": {}}',
    '{"x": "\\ud800"}',
    '{"x": "\\q"}',
    '{"x": 01}',
    '{"x": {"a" 1}}',
    '{"messages": [{"content": [1 2]}]}',
    '{"messages": [{}}',
    "{} {}",
    '{"seed": 1e40,}',
]
GOOD = [
    '{"model": null, "messages": [], "tools": null, "metadata": null, "stop": ["a"], "n": null, "stream": null}',
    '{"metadata": {"a": "{", "b": "\\"{", "c": "[{"}, "logit_bias": {}, "tool_choice": {"type": "function"}}',
    '{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\"seed\\": 1e400"}]}], "seed": 1e3}',
    '{"messages":[],"tools" : [ ] , "functions"\t:\n[]}',
    '{"extra_body": {"a": 1e300}, "stop": [1, 1e300], "n": "2"}',
    '{"extra_body": {"a": 1e400}}',
    '{"stop": [1, 1e400]}',
    '{"user": "\\ud83d\\ude00 \\\\ud83d", "x": "\\\\\\\\ud83d"}',
    '{"seed": -9223372036854775808, "max_tokens": 4294967295}',
]


@pytest.mark.parametrize("body", GOOD)
async def test_valid_bodies_reach_the_worker(client: aiohttp.ClientSession, worker: Worker, body: str) -> None:
    """Null, arrays for fields of any JSON, and strings that look like JSON are valid."""
    async with client.post(PATHS["openai"], data=body, headers={"content-type": "application/json"}) as response:
        assert 200 == response.status, await response.text()
    assert ["CreateChatCompletionJson"] == worker.calls


def complete_answer(body: str) -> str:
    """Adds the required fields to a body that is an object without them."""
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in REQUEST.items() if f'"{key}"' not in body]
    is_object = body.startswith('{"') and body.endswith("}") and "mod\\u0065l" not in body
    return "{" + ", ".join([*members, body[1:]]) if is_object else body


@pytest.mark.parametrize("dialect", PATHS)
async def test_every_invalid_body_is_reported_as_in_the_documents(
    client: aiohttp.ClientSession, worker: Worker, golden: Callable[[str, Any], None], dialect: str
) -> None:
    """Malformed JSON and wrong types are reported with the field, and never reach the worker."""
    seen = {}
    for body in BODIES:
        data, headers = complete_answer(body), {"content-type": "application/json"}
        async with client.post(PATHS[dialect], data=data, headers=headers) as response:
            seen[body] = await shown(response)
            assert (422 if dialect == "fastapi" else 400) == response.status
    assert [] == worker.calls
    golden(f"bodies_{dialect}", seen)


@pytest.mark.parametrize(
    ("depth", "message"),
    [(200, "The request body is nested too deeply"), (100_000, "The request body is nested too deeply")],
)
async def test_a_body_that_is_nested_too_deeply_is_a_400(
    client: aiohttp.ClientSession, worker: Worker, depth: int, message: str
) -> None:
    """A deeply nested body is an error, not a stack overflow."""
    body = '{"extra_body":' + '{"a":' * depth + "1" + "}" * depth + "}"
    async with client.post(PATHS["chipp"], data=body, headers={"content-type": "application/json"}) as response:
        assert {"error": message} == await response.json()
        assert 400 == response.status
    assert [] == worker.calls


async def test_unknown_fields_are_ignored(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Unknown fields and query parameters of a client are ignored."""
    async with client.post(
        PATHS["openai"], json=REQUEST | {"unknown": {"a": [1]}}, params={"api-version": "1"}
    ) as response:
        assert 200 == response.status
    assert "m" == worker.request.model
