"""Finds the text in messages and deltas. Content is a string, a list of parts, or nested lists."""

from collections.abc import Iterator, Mapping
from typing import Any

from parley.backends.parsing.deltas import CONTENT, REASONING, REFUSAL

REFERENCE = "annotation"
"""Kind of a part that is not text, such as a citation."""

# Part type: kind of text, and the fields that may hold it. Sources: OpenAI (Responses and chat completions), Mistral
# (reasoning), Anthropic through proxies.
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text": (CONTENT, ("text", "content")),
    "output_text": (CONTENT, ("text", "content")),
    "input_text": (CONTENT, ("text", "content")),
    "thinking": (REASONING, ("thinking", "text", "content")),
    "reasoning": (REASONING, ("reasoning", "text", "content", "summary")),
    "reasoning_text": (REASONING, ("text", "content")),
    "reasoning_content": (REASONING, ("reasoning_content", "text", "content")),
    "summary_text": (REASONING, ("text", "content")),
    "refusal": (REFUSAL, ("refusal", "text", "content")),
}
_Path = tuple[str | int, ...]

TEXT_ONLY = frozenset({"role", "content"})
KNOWN_OF_MESSAGE = TEXT_ONLY | {
    "annotations",
    "audio",
    "function_call",
    "reasoning",
    "reasoning_content",
    "refusal",
    "tool_calls",
}
_TEXT_FIELDS = frozenset({"content", "reasoning_content", "reasoning"})
_EMPTY: tuple[object, ...] = (None, "", [])


def texts(data: Any, kind: str, path: _Path) -> Iterator[tuple[str, Any, _Path]]:
    """Yields (kind, text, path) for each text of a content, in order; an unknown part is yielded as an annotation."""
    if isinstance(data, str):
        yield kind, data, path
    elif isinstance(data, list):
        for position, item in enumerate(data):
            yield from texts(item, kind, (*path, position))
    elif isinstance(data, dict):
        inner, names = _PARTS.get(data.get("type") or "text", ("", ()))
        found = next((name for name in names if data.get(name)), None)
        if not inner:
            yield REFERENCE, data, path
        elif found is not None:
            yield from texts(data[found], kind if inner is CONTENT else inner, (*path, found))
    elif data is not None:
        raise TypeError(f"a text has the type {type(data).__name__}")


def text_field(delta: Mapping[str, Any]) -> str:
    """Returns the field that has the text of a delta without anything else; an empty string for any other delta.

    A role is nothing else: it is known. Many servers send the other fields of a message as null.
    """
    if len(delta) == 1:
        [field] = delta
    else:
        others = [name for name, value in delta.items() if name != "role" and value not in _EMPTY]
        field = others[0] if len(others) == 1 and delta.keys() <= KNOWN_OF_MESSAGE else ""
    return field if field in _TEXT_FIELDS and delta[field] and delta[field].__class__ is str else ""
