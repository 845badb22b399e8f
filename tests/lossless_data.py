"""A request, an answer and a stream with every object that may have unknown members."""

from typing import Any

from hypothesis import strategies as st

from tests.lossless import KNOWN, with_members

_SCHEMA = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "string"}}}
_PARTS = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": _PARTS},
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "reasoning_content": "hm",
            "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}],
            "audio": {"id": "a1"},
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": "3", "function_call": {"name": "h", "arguments": "{}"}},
        {"role": "function", "name": "h", "content": "4"},
    ],
    "stream_options": {"include_usage": True},
    "logit_bias": {"50256": -100},
    "metadata": {"a": "b"},
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": _SCHEMA}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "p"}]},
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "wav"},
    "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bern"}}},
    "prompt_cache_options": {"mode": "explicit"},
    "moderation": {"model": "o", "policy": {"input": {"mode": "score"}, "output": {"mode": "block"}}},
    "functions": [{"name": "h", "parameters": {"type": "object"}}],
}  # fmt: skip
"""A request with every kind of object in it."""


def request_is_open(path: tuple[str, ...]) -> bool:
    """Returns whether an object of a request may have unknown members: all but maps of plain values."""
    return path not in (("logit_bias",), ("metadata",))


_RIVALS = [{"token": "H", "logprob": -0.25, "bytes": [72]}, {"token": "I", "logprob": -2.5}]
LOGPROBS: dict[str, Any] = {
    "content": [
        {"token": "H", "logprob": -0.25, "bytes": [72], "top_logprobs": _RIVALS},
        {"token": "i", "logprob": -1.5},
    ],
    "refusal": [{"token": "n", "logprob": -0.5, "top_logprobs": [{"token": "n", "logprob": -0.5}]}],
}
USAGE: dict[str, Any] = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cost_details": {"upstream": {"prompt": 1}},
}
_ANNOTATIONS = [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}, {"type": "file"}]
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi",
                "reasoning_content": "hm",
                "annotations": _ANNOTATIONS,
                "audio": {"id": "a1", "expires_at": 1, "data": "AA==", "transcript": "Hi"},
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
                ],
            },
            "logprobs": LOGPROBS,
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
}
"""An answer with every kind of object in it."""
_FUNCTION = {"type": "function", "function": {"name": "f", "arguments": '{"a":'}}
_CUSTOM = {"type": "custom", "custom": {"name": "g", "input": "x"}}
_DELTAS: list[Any] = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "h"},
    {"reasoning_content": "m"},
    {"content": "H"},
    {"content": "i"},
    {},
    {"annotations": _ANNOTATIONS[:1]},
    {"annotations": _ANNOTATIONS[1:]},
    {"audio": {"id": "a1", "data": "AA", "transcript": "H"}},
    {"audio": {"expires_at": 1, "data": "==", "transcript": "i"}},
    {"tool_calls": [{"index": 0, "id": "c1", **_FUNCTION}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}, {"index": 1, "id": "c2", **_CUSTOM}]},
    {"tool_calls": [{"index": 1, "custom": {"input": "y"}}]},
    {"content": "!"},
]
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
STREAM: list[Any] = [
    *(_CHUNK | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in _DELTAS),
    _CHUNK | {"choices": [{"index": 0, "delta": {"content": "?"}, "logprobs": LOGPROBS}]},
    _CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    _CHUNK | {"choices": [], "usage": USAGE},
]
"""The chunks of a streamed answer with every kind of object in it."""


def streams() -> st.SearchStrategy[list[Any]]:
    """Generates streams with unknown members in each object. No two chunks have members with the same names."""
    return with_members(STREAM).map(lambda chunks: [_named(chunk, index) for index, chunk in enumerate(chunks)])


def _named(data: Any, index: int) -> Any:
    if isinstance(data, list):
        return [_named(item, index) for item in data]
    if not isinstance(data, dict):
        return data
    return {name if name in KNOWN else f"{index} {name}": _named(value, index) for name, value in data.items()}
