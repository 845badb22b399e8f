"""The result of a completion, whole or joined from the chunks of a stream."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE

from parley_client.metadata import RateLimits, rate_limits, receipt
from parley_client.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley_client.v1.message_pb2 import ChunkChoice, Message, ToolCall, Usage
from parley_client.v1.receipt_pb2 import Receipt

TEXTS = ("content", "refusal", "reasoning_content")
"""The fields of a delta whose text is appended."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, and what the service returns beside it."""

    raw: ChatCompletion
    """The answer as the API defines it."""
    receipt: Receipt | None = None
    """The attempts of the call; None for a replayed answer."""
    limits: RateLimits | None = None
    """The rate limits of the key, where it has any."""
    replayed: bool = False
    """Whether an earlier call with the same idempotency key has produced the answer."""
    request_id: str | None = None
    """The call's id in the service's log."""

    @property
    def message(self) -> Message:
        """The message of the first choice; add it to `messages` to continue the conversation."""
        return self.raw.choices[0].message if self.raw.choices else Message(role="assistant")

    @property
    def text(self) -> str:
        """The text of the first choice; empty where tool calls or a refusal replace it."""
        return self.message.text or self.message.content.string_value  # older services set only `content`

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls of the first choice."""
        return self.message.tool_calls

    @property
    def finish_reason(self) -> str:
        """Why the model stopped; empty for an incomplete stream."""
        return self.raw.choices[0].finish_reason if self.raw.choices else ""

    @property
    def usage(self) -> Usage:
        """The token usage."""
        return self.raw.usage

    @property
    def model(self) -> str:
        """The id of the model that answered."""
        return self.raw.model

    @property
    def session_id(self) -> str | None:
        """The session of the turn; None without a session."""
        return self.raw.session_id if self.raw.HasField("session_id") else None


def completion(raw: ChatCompletion, initial: Mapping[str, Any], trailing: Mapping[str, Any]) -> Completion:
    """Returns the result of a call with its initial and trailing metadata."""
    replayed = initial.get("idempotent-replayed") == "true"
    limits = rate_limits({**initial, **trailing})
    return Completion(raw, receipt(trailing), limits, replayed, trailing.get("x-request-id"))


class Joined:
    """The chunks of a stream, joined."""

    def __init__(self) -> None:
        self._answer = ChatCompletion(object="chat.completion")
        self._messages: dict[int, Message] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Adds a chunk."""
        answer = self._answer
        if not answer.id:
            answer.id, answer.created, answer.model = chunk.id, chunk.created, chunk.model
        for field, value in chunk.ListFields():
            if field.name in {"session_id", "system_fingerprint", "service_tier"}:
                setattr(answer, field.name, value)
            elif field.name in {"usage", "moderation"}:
                getattr(answer, field.name).CopyFrom(value)
        _merge_extra(answer, chunk)
        for delta in chunk.choices:
            self._add_choice(delta)

    def _add_choice(self, added: ChunkChoice) -> None:
        choice = next((one for one in self._answer.choices if one.index == added.index), None)
        if choice is None:
            choice = self._answer.choices.add(index=added.index, message=Message(role="assistant"))
        if added.HasField("finish_reason"):
            choice.finish_reason = added.finish_reason
        if added.HasField("logprobs"):
            choice.logprobs.MergeFrom(added.logprobs)
        _merge_extra(choice, added)
        for name in TEXTS:
            if text := getattr(added.delta, name):
                self._texts.setdefault((added.index, name), []).append(text)
        _add_other_fields(choice.message, added.delta)

    def completion(self) -> ChatCompletion:
        """Returns the answer so far."""
        answer = ChatCompletion()
        answer.CopyFrom(self._answer)
        answer.choices.sort(key=lambda choice: choice.index)
        for choice in answer.choices:
            for name in TEXTS:
                _set_text(choice.message, name, "".join(self._texts.get((choice.index, name), ())))
            if not choice.message.HasField("content") and choice.HasField("finish_reason"):
                _set_no_content(choice.message)
        return answer


def _set_text(message: Message, name: str, text: str) -> None:
    if text and name == "content":
        message.content.string_value = message.text = text
    elif text:
        setattr(message, name, text)


def _set_no_content(message: Message) -> None:
    """Sets the content of a finished answer without text: null where something replaces it."""
    if message.tool_calls or message.refusal or message.HasField("function_call") or message.HasField("audio"):
        message.content.null_value = NULL_VALUE
    else:
        message.content.string_value = message.text = ""


def _add_other_fields(message: Message, delta: Any) -> None:
    message.annotations.extend(delta.annotations)
    for part in delta.tool_calls:
        while len(message.tool_calls) <= part.index:
            message.tool_calls.add(type="function")
        _append(message.tool_calls[part.index], part)
    for name in ("function_call", "audio"):
        if delta.HasField(name):
            _append(getattr(message, name), getattr(delta, name))
    _merge_extra(message, delta)


def _append(to: Any, part: Any) -> None:
    """Merges a delta of a tool call, a function call or audio: ids, names and types are replaced, texts appended."""
    for field, value in part.ListFields():
        if field.name in {"arguments", "input", "data", "transcript"}:
            setattr(to, field.name, getattr(to, field.name) + value)
        elif field.name in {"function", "custom"}:
            _append(getattr(to, field.name), value)
        elif field.name not in {"index", "extra", "extra_json"}:
            setattr(to, field.name, value or getattr(to, field.name))
    _merge_extra(to, part)


def _merge_extra(to: Any, part: Any) -> None:
    """Merges unknown fields as the service does: lists are appended, objects merged, other values replaced."""
    if part.extra_json:
        merged = _merged(json.loads(to.extra_json or "{}"), json.loads(part.extra_json))
        to.extra_json = json.dumps(merged, ensure_ascii=False, separators=(",", ":"))


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: _merged(old.get(name), value) for name, value in new.items()}
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return new
