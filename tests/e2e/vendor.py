"""Answers of OpenAI's API in the formats of its reference ("Chat completions"), for the scripted upstream.

Each call creates a new answer, which a test may change.
"""

from collections.abc import Iterable
from typing import Any

from tests.upstream import DONE, Events

ANSWER_ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
MODEL = "scripted-1"
TAGS = {"service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}
USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {
        "cached_tokens": 1024,
        "audio_tokens": 3,
        "text_tokens": 1100,
        "image_tokens": 14,
        "cache_write_tokens": 0,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 32,
        "audio_tokens": 5,
        "accepted_prediction_tokens": 2,
        "rejected_prediction_tokens": 1,
        "text_tokens": 41,
    },
}

LOGPROBS: dict[str, Any] = {
    "content": [
        {
            "token": "Hello",
            "logprob": -0.31725305,
            "bytes": [72, 101, 108, 108, 111],
            "top_logprobs": [
                {"token": "Hello", "logprob": -0.31725305, "bytes": [72, 101, 108, 108, 111]},
                {"token": "Hi", "logprob": -1.3190403, "bytes": [72, 105]},
            ],
        },
        {
            # Half of a character: only the bytes identify it.
            "token": "\\xf0\\x9f",
            "logprob": -0.02380986,
            "bytes": [240, 159],
            "top_logprobs": [
                {"token": "\\xf0\\x9f", "logprob": -0.02380986, "bytes": [240, 159]},
                {"token": "<|end|>", "logprob": -3.787621, "bytes": None},
            ],
        },
    ],
    "refusal": None,
}

CITATION = {
    "type": "url_citation",
    "url_citation": {
        "end_index": 985,
        "start_index": 764,
        "title": "Page title…",
        "url": "https://example.com/news?a=1&b=2",
    },
}

AUDIO = {
    "id": "audio_6725224ac62481908ab55dc283289d87",
    "expires_at": 1730234762,
    "data": "UklGRiQAAABXQVZFZm10IBAAAAABAAEA",
    "transcript": "Yes: golden retrievers are known to be friendly.",
}

PARALLEL_CALLS: list[dict[str, Any]] = [
    {
        "id": "call_DdmO9pD3xa9XTPNJ32zg2hcA",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'},
    },
    {
        "id": "call_ABCDEFabcdef0123456789xy",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Bogotá"}'},
    },
]


def choice(content: str | None = "Hello! How can I assist you today?", index: int = 0, **more: Any) -> dict[str, Any]:
    """Returns one choice; `finish_reason` and `logprobs` belong to the choice, other fields to its message."""
    finish = more.pop("finish_reason", "tool_calls" if more.get("tool_calls") else "stop")
    logprobs = more.pop("logprobs", None)
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": [], **more}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def complete_answer(*choices: dict[str, Any]) -> dict[str, Any]:
    """Returns a complete answer."""
    return {
        "id": ANSWER_ID,
        "object": "chat.completion",
        "created": 1741569952,
        "model": MODEL,
        "choices": list(choices or (choice(),)),
        "usage": USAGE,
        **TAGS,
    }


def stream(deltas: Iterable[dict[str, Any]], finish: str = "stop", index: int = 0) -> Events:
    """Returns the stream of one choice: the role first, the finish reason and the usage last."""
    first = {"role": "assistant", "content": "", "refusal": None}
    steps = [chunk(delta, index=index) for delta in (first, *deltas)]
    return Events([*steps, chunk({}, finish, index), {**chunk({}), "choices": [], "usage": USAGE}, DONE])


def chunk(
    delta: dict[str, Any], finish: str | None = None, index: int = 0, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns one chunk of a stream with `stream_options.include_usage`."""
    return {
        "id": ANSWER_ID,
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": MODEL,
        **TAGS,
        "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
        "usage": None,
    }


def text(*pieces: str) -> Events:
    """Returns the stream of a text."""
    return stream([{"content": piece} for piece in pieces])


def calls_in_pieces(calls: list[dict[str, Any]], size: int = 7) -> Events:
    """Returns the stream of tool calls: id and name of each call first, then its arguments in pieces."""
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        started = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [started]})
        for at in range(0, len(arguments), size):
            piece = {"index": index, "function": {"arguments": arguments[at : at + size]}}
            deltas.append({"tool_calls": [piece]})
    return stream(deltas, "tool_calls")


def error(message: str, kind: str = "invalid_request_error", **more: str | None) -> dict[str, Any]:
    """Returns the body of an error; `param` and `code` may be null."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None, **more}}
