"""Duplicate keys of a JSON body are refused: two parsers would read them differently."""

import json
from typing import Any

import aiohttp
import pytest

from tests.edge.errors import PATHS, message_of
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGES = '"messages": [{"role": "user", "content": "Hi"}]'
TOOL = '"tools": [{"type": "function", "function": {"name": "f", "parameters": %s}}]'
BODIES = {
    "a known field": ('"temperature": 1.5, "temperature": null', "temperature", "is given twice"),
    "null first": ('"temperature": null, "temperature": 1.5', "temperature", "is given twice"),
    "a list": (MESSAGES, "messages", "is given twice"),
    "escaped": (r'"temperature": 0, "temp\u0065rature": 1.5', "temperature", "is given twice"),
    "another escape": (r'"stream": false, "str\u0065am": true', "stream", "is given twice"),
    "both names": ('"session_id": "a", "chatSessionId": "b"', "chatSessionId", "is given twice"),
    "camel case": ('"max_tokens": 5, "maxTokens": 6', "maxTokens", "is given twice"),
    "camel case first": ('"maxTokens": 6, "max_tokens": 5', "max_tokens", "is given twice"),
    "an unknown field": ('"top_k": 1, "top_k": 2', "top_k", "is given twice"),
    "an escaped unknown field": (r'"a\/b": 1, "a/b": 2', "a/b", "is given twice"),
    "a surrogate pair": ('"\U0001f600": 1, "\\ud83d\\ude00": 2', "\U0001f600", "is given twice"),
    "in an unknown field": ('"vendor": [{"a": {"b": 1, "c": 2, "b": 3}}]', "vendor", "has the key `b` twice"),
    "around an object": ('"vendor": {"a": 1, "b": {"a": 2}, "a": 3}', "vendor", "has the key `a` twice"),
    "in extra_body": ('"extra_body": {"a": 1, "a": 2}', "extra_body", "has the key `a` twice"),
    "deep in extra_body": ('"extra_body": {"a": {"b": 1, "b": 2}}', "extra_body", "has the key `b` twice"),
    "beside extra_body": ('"extra_body": {"a": 1}, "a": 2', "a", "is given twice"),
    "before extra_body": ('"a": 2, "extra_body": {"a": 1}', "extra_body", "has the key `a`, which is also given"),
    "in a map": ('"metadata": {"a": "1", "a": "2"}', "metadata", "has the key `a` twice"),
    "in a map of numbers": (r'"logit_bias": {"1": 1, "\u0031": 2}', "logit_bias", "has the key `1` twice"),
    "in a schema": (TOOL % '{"type": "object", "type": "array"}', "tools[0].function.parameters", "has the key `type`"),
    "in a tool": ('"tools": [{"type": "function", "type": "custom"}]', "tools[0].type", "is given twice"),
    "in a choice": ('"tool_choice": {"type": "a", "type": "b"}', "tool_choice", "has the key `type` twice"),
    "in a format": ('"response_format": {"type": "text", "type": "x"}', "response_format.type", "is given twice"),
}
DISTINCT = [
    '"vendor": [{"a": 1}, {"a": 2}, {"b": {"a": 3}, "a": {"b": 4}}]',
    r'"vendor": {"a\\u0062": 1, "ab": 2, "a\nb": 3, "anb": 4, "\\n": 5, "\n": 6}',
    TOOL % '{"type": "object", "properties": {"type": {"type": "string"}}}',
]


@pytest.mark.parametrize("name", BODIES)
async def test_row_18_duplicate_keys_are_refused(client: aiohttp.ClientSession, worker: Worker, name: str) -> None:
    """A duplicate key is a 400 that names it, at every depth and however it is escaped; the worker does not answer.

    Kind: two parsers that read the same body differently.
    """
    text, param, rule = BODIES[name]
    prefix = "" if "messages" in param else f"{MESSAGES}, "
    body = f'{{"model": "m", {prefix}{text}, {text}}}' if text == MESSAGES else f'{{"model": "m", {prefix}{text}}}'
    async with client.post(PATHS["openai"], data=body, headers={"content-type": "application/json"}) as response:
        error = (await response.json())["error"]
    assert (400, param) == (response.status, error["param"])
    assert f"`{param}` {rule}" in error["message"]
    assert [] == worker.calls


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_duplicate_key_is_refused_in_each_dialect(
    client: aiohttp.ClientSession, worker: Worker, dialect: str
) -> None:
    """The error has the format of the dialect; in /upchatty a second `temperature` does not evade its range."""
    body = f'{{"model": "m", {MESSAGES}, "temperature": 1.5, "temperature": null}}'
    async with client.post(PATHS[dialect], data=body, headers={"content-type": "application/json"}) as response:
        assert (422 if dialect == "fastapi" else 400) == response.status
        assert "`temperature`" in message_of(dialect, await response.json())
    assert [] == worker.calls


@pytest.mark.parametrize("text", DISTINCT)
async def test_equal_keys_of_different_objects_are_allowed(
    client: aiohttp.ClientSession, worker: Worker, text: str
) -> None:
    """Only keys of the same object are duplicates."""
    body = f'{{"model": "m", {MESSAGES}, {text}}}'
    async with client.post(PATHS["openai"], data=body, headers={"content-type": "application/json"}) as response:
        assert 200 == response.status
    sent: dict[str, Any] = json.loads("{" + text + "}")
    if "vendor" in sent:
        assert sent == json.loads(worker.request.extra_body_json)


async def test_duplicate_keys_of_a_fork_are_refused(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The body of a fork has the same rule, for known and for unknown keys."""
    for text in ('{"through_turn": 1, "through_turn": 2}', '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 2}}'):
        async with client.post("/api/v1/sessions/s/fork", data=text) as response:
            assert 400 == response.status
    assert [] == worker.calls
