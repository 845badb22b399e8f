"""Vendors' variants of chunks and responses in OpenAI's format: one row for each variant.

Each row has the chunks of a stream, the message of a complete response if the vendor has that form, and the expected
result. The formats come from the vendors' documentation and public reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.upstream import DONE, USAGE, Step, chunk

TOOL = "get_weather"
ARGUMENTS = '{"city":"Bern"}'
GENERATED = "call_generated"
"""Stands for an id that Parley has generated."""


@dataclass(frozen=True)
class Shape:
    """One variant: the `steps` of a stream before `[DONE]`, the `complete_answer` message, and the expected result.

    `message` is the expected message as JSON, without its role; `calls` are `(id, name, arguments)`.
    """

    steps: Sequence[Step]
    message: dict[str, Any]
    complete_answer: dict[str, Any] | None = None
    calls: Sequence[tuple[str, str, str]] = ()
    reason: str = "stop"
    fields: dict[str, Any] = field(default_factory=dict)


def _text(*parts: Any, **fields: Any) -> Shape:
    """Creates the content parts of the text "Hi"."""
    return Shape(
        [*(chunk({"content": part}) for part in parts), chunk(finish="stop")], {"content": "Hi"}, fields=fields
    )


_THINKS = {"reasoning_content": "hm", "content": "Hi"}
_DETAILS = {
    "reasoning_details": [
        {"type": "reasoning.encrypted", "data": "x", "id": "rs_1", "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.summary", "summary": "h", "index": 1},
        {"type": "reasoning.text", "text": "m", "signature": None, "index": 2},
        {"type": "reasoning.text", "text": None, "signature": "s", "index": 2},
    ]
}
_NAMES = (TOOL, "get_time", "f", "g")
OFFER: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": name}} for name in _NAMES]}
TEXTS: dict[str, Shape] = {
    "OpenAI": Shape(
        [
            chunk({"role": "assistant", "content": "", "refusal": None}, obfuscation="x"),
            chunk({"content": "H"}, usage=None, obfuscation="xyz"),
            chunk({"content": "i"}),
            chunk(finish="stop"),
            chunk(choices=[], usage=USAGE),
        ],
        {"content": "Hi"},
        {"content": "Hi", "refusal": None, "annotations": []},
    ),
    "Azure, with the prompt's filter results first": Shape(
        [chunk(choices=[], prompt_filter_results=[{"prompt_index": 0}]), *(chunk({"content": "Hi"}, "stop"),)],
        {"content": "Hi"},
    ),
    "the role in every delta (OpenRouter)": Shape(
        [chunk({"role": "assistant", "content": piece}) for piece in ("H", "i")] + [chunk({"content": ""}, "stop")],
        {"content": "Hi"},
    ),
    "Mistral, thinking in parts": Shape(
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]}),
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}], "closed": True}]}),
            chunk({"content": [{"type": "text", "text": "H"}]}),
            chunk({"content": "i"}, "stop"),
        ],
        _THINKS,
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "H"},
                {"type": "text", "text": "i"},
            ]
        },
    ),
    "parts of parts, and texts among them": Shape(
        [chunk({"content": [["H", {"type": "output_text", "text": [{"text": "i"}]}], None]}, "stop")],
        {"content": "Hi"},
        {"content": [["H", {"type": "output_text", "text": [{"text": "i"}]}], None]},
    ),
    "reasoning as a part": Shape(
        [chunk({"content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Hi"}]}, "stop")],
        _THINKS,
        {"content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Hi"}]},
    ),
    "reasoning as a summary": Shape(
        [chunk({"reasoning": [{"type": "summary_text", "text": "hm"}]}), chunk({"content": "Hi"}, "stop")],
        _THINKS,
        {"reasoning": [{"type": "summary_text", "text": "hm"}], "content": "Hi"},
    ),
    "reasoning_details alone (MiniMax)": Shape(
        [
            chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "h"}]}),
            chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "m"}]}),
            chunk({"content": "Hi"}, "stop"),
        ],
        _THINKS | {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": text} for text in ("h", "m")]},
    ),
    "reasoning_details alone, each with all of the text (MiniMax's documentation)": Shape(
        [
            chunk({"reasoning_details": [{"text": "h"}]}),
            chunk({"reasoning_details": [{"text": "hm"}]}),
            chunk({"reasoning_details": [{"text": "hm"}], "content": "Hi"}, "stop"),
        ],
        _THINKS | {"reasoning_details": [{"text": "h"}, {"text": "hm"}, {"text": "hm"}]},
    ),
    "reasoning_details of every type, alone (OpenRouter)": Shape(
        [chunk(_DETAILS), chunk({"content": "Hi"}, "stop")],
        _THINKS | _DETAILS,
        _DETAILS | {"content": "Hi"},
    ),
    "reasoning_details beside reasoning (OpenRouter)": Shape(
        [
            chunk({"reasoning": "h", "reasoning_details": [{"type": "reasoning.text", "text": "h"}]}),
            chunk({"reasoning": "m", "content": ""}),
            chunk({"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "m"}]}),
            chunk({"content": "Hi"}, "stop"),
        ],
        _THINKS | {"reasoning_details": [{"type": "reasoning.text", "text": text} for text in ("h", "m")]},
    ),
    "reasoning_details without a text, and of another shape": Shape(
        [chunk({"content": "Hi", "reasoning_details": [{"text": 5}, "x", {"summary": ["h"]}]}, "stop")],
        {"content": "Hi", "reasoning_details": [{"text": 5}, "x", {"summary": ["h"]}]},
        {"content": "Hi", "reasoning_details": [{"text": 5}, "x", {"summary": ["h"]}]},
    ),
    "a refusal as a part": Shape(
        [chunk({"content": [{"type": "refusal", "refusal": "No."}]}, "stop")],
        {"content": None, "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}]},
    ),
    "a reference among the parts (Mistral)": Shape(
        [chunk({"content": [{"type": "text", "text": "Hi"}, {"type": "reference", "reference_ids": [1]}]}, "stop")],
        {"content": "Hi", "annotations": [{"type": "reference", "reference_ids": [1]}]},
        {"content": [{"type": "text", "text": "Hi"}, {"type": "reference", "reference_ids": [1]}]},
    ),
    "reasoning_content (DeepSeek)": Shape(
        [
            chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
            chunk({"content": None, "reasoning_content": "hm"}),
            chunk({"content": "Hi", "reasoning_content": None}, "stop", usage=USAGE),
        ],
        _THINKS,
        {"content": "Hi", "reasoning_content": "hm"},
    ),
    "reasoning (Groq, OpenRouter, vLLM, Ollama)": Shape(
        [
            chunk({"role": "assistant", "content": "", "reasoning": "hm"}),
            chunk({"role": "assistant", "content": "Hi"}, "stop"),
        ],
        _THINKS,
        {"content": "Hi", "reasoning": "hm"},
    ),
    "both names of reasoning, text and reasoning together": Shape(
        [chunk({"reasoning": "hm", "reasoning_content": "hm", "content": "Hi"}, "stop")],
        _THINKS,
        {"reasoning": "hm", "reasoning_content": "hm", "content": "Hi"},
    ),
    "a complete message beside each delta, and a running index (Foundry Local, Perplexity)": Shape(
        [
            {"choices": [{"index": 1, "delta": {"content": "H"}, "message": {"content": "H"}, "finish_reason": None}]},
            {"choices": [{"index": 2, "delta": {"content": "i"}, "message": {"content": "Hi"}, "finish_reason": None}]},
            {"choices": [{"index": 3, "delta": {}, "message": {"content": "Hi"}, "finish_reason": "stop"}]},
        ],
        {"content": "Hi"},
    ),
    "a message instead of a delta": Shape(
        [{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}],
        {"content": "Hi"},
    ),
    "no index at all": Shape([{"choices": [{"delta": {"content": "Hi"}}]}], {"content": "Hi"}),
    "an index that is a text": Shape([{"choices": [{"index": "0", "delta": {"content": "Hi"}}]}], {"content": "Hi"}),
    "an index that cannot be": Shape([{"choices": [{"index": -1, "delta": {"content": "Hi"}}]}], {"content": "Hi"}),
    "placeholders for the reason": Shape(
        [
            *(chunk({"content": piece}, reason) for piece, reason in (("H", ""), ("", "null"), ("i", "None"))),
            chunk(finish="stop"),
        ],
        {"content": "Hi"},
    ),
    "the reason in every chunk": Shape(
        [chunk({"content": piece}, "stop") for piece in "Hi"], {"content": "Hi"}, {"content": "Hi"}
    ),
    "no end but [DONE]": Shape([chunk({"content": "Hi"})], {"content": "Hi"}),
    "a null choice": Shape([chunk(choices=[None]), chunk({"content": "Hi"}, "stop")], {"content": "Hi"}),
    "heartbeats of every kind": Shape(
        [
            ": OPENROUTER PROCESSING\n\n",
            "data:\n\n",
            "data: \n\n",
            "data: ping\n\n",
            "data: null\n\n",
            "data: []\n\n",
            "data: 1\n\n",
            'data: "pong"\n\n',
            "event: ping\ndata: {}\n\n",
            'event: heartbeat\ndata: {"type": "ping"}\n\n',
            "event: keepalive\ndata: now\n\n",
            "retry: 3000\nid: 7\n\n",
            chunk({"content": "H"}),
            "data: \n\ndata: [1, 2]\n\n",
            chunk({"content": "i"}, "stop"),
        ],
        {"content": "Hi"},
    ),
    "events with names": Shape(
        ['event: message\ndata: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\n'],
        {"content": "Hi"},
    ),
    "legacy functions, the name in each chunk": Shape(
        [
            chunk({"function_call": {"name": "f", "arguments": '{"x"'}}),
            chunk({"function_call": {"name": "f", "arguments": ":1}"}}),
            chunk(finish="function_call"),
        ],
        {"content": None, "function_call": {"name": "f", "arguments": '{"x":1}'}},
        {"content": None, "function_call": {"name": "f", "arguments": {"x": 1}}},
        reason="function_call",
    ),
    "an image, which is no text (OpenRouter)": Shape(
        [chunk({"content": "", "images": [{"type": "image_url"}]}), chunk(finish="stop")],
        {"content": "", "images": [{"type": "image_url"}]},
        {"content": "", "images": [{"type": "image_url"}]},
    ),
    "nothing but the limit": Shape(
        [chunk({"content": ""}, "length")], {"content": ""}, {"content": ""}, reason="length"
    ),
    "nothing but the filter": Shape(
        [chunk({"content": ""}, "content_filter")], {"content": ""}, {"content": ""}, reason="content_filter"
    ),
    "nothing, at a stop sequence": Shape(
        [chunk({"content": ""}, "stop")], {"content": ""}, {"content": ""}, fields={"stop": ["\n"]}
    ),
}
_LONE = r'data: {"choices": [{"delta": {"content": "a\ud83d"}}]}'
_HALVES = [_LONE, r'data: {"choices": [{"delta": {"content": "\ude00b"}}]}']
_MARK = b"\xef\xbb\xbf"


def _raw(*texts: bytes) -> list[Step]:
    """Creates chunks whose contents are these bytes, unescaped."""
    chunks: list[Step] = [b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % text for text in texts]
    return [*chunks, chunk(finish="stop")]


BYTES: dict[str, Shape] = {
    "halves of a pair in two events": Shape([f"{half}\n\n" for half in _HALVES], {"content": "a\U0001f600b"}),
    "half a pair, and no other half": Shape([f"{_LONE}\n\n", chunk({"content": "b"})], {"content": "a\ufffdb"}),
    "half a pair at the end": Shape([f"{_LONE}\n\n"], {"content": "a\ufffd"}),
    "a lone second half": Shape([f"{_HALVES[1]}\n\n"], {"content": "\ufffdb"}),
    "halves of a pair in reasoning": Shape(
        [f"{half}\n\n".replace('"content"', '"reasoning"') for half in _HALVES] + [chunk({"content": "c"})],
        {"reasoning_content": "a\U0001f600b", "content": "c"},
    ),
    "bytes that are no UTF-8": Shape(_raw(b"a\xffb"), {"content": "a\ufffdb"}),
    "the bytes of a character in two events": Shape(_raw(b"a\xf0\x9f", b"\x98\x80b"), {"content": "a\U0001f600b"}),
    "the bytes of a character in three events": Shape(_raw(b"\xf0", b"\x9f\x98", b"\x80b"), {"content": "\U0001f600b"}),
    "the first bytes of a character only": Shape(_raw(b"a\xe2\x82"), {"content": "a\ufffd"}),
    "control characters": Shape(_raw(b"a\tb\x01"), {"content": "a\tb\x01"}),
    "a byte order mark": Shape(
        [b'\xef\xbb\xbfdata: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'], {"content": "Hi"}
    ),
    "a byte order mark in each event": Shape(
        [b'data: \xef\xbb\xbf{"choices": [{"delta": {"content": "%b"}}]}\n\n' % part for part in (b"H", b"i")],
        {"content": "Hi"},
    ),
    "NaN and infinities": Shape(
        ['data: {"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": NaN, "cost": -Infinity}}\n\n'],
        {"content": "Hi"},
    ),
}


def with_end(shape: Shape, reason: str) -> list[Step]:
    """Appends the end of a stream, unless the steps have one."""
    choices = [choice for step in shape.steps if isinstance(step, dict) for choice in step["choices"]]
    has_end = any(choice and choice.get("finish_reason") for choice in choices)
    return [*shape.steps, *([] if has_end else [chunk(finish=reason)]), DONE]
