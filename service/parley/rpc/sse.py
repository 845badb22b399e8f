"""Server-sent events (WHATWG HTML, 9.2), with `finish_reason: null` as OpenAI sends it.

Almost every chunk of a stream is a piece of text: its event is built from constant bytes around the text.
"""

from collections.abc import Sequence
from functools import lru_cache

import orjson

from parley.core.errors import ParleyError
from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports.plain_text import PlainText
from parley.rpc import errors
from parley.rpc.error_catalogue import OPENAI_CODES, SERVICE
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

DONE = b"data: [DONE]\n\n"
# A comment without an empty line after it. The empty line would end an event without data, which clients must ignore
# (WHATWG HTML, 9.2.6), but some parse it as JSON (openai-go before pull request 621).
KEEP_ALIVE = b": keep-alive\n"

_ALWAYS = {"index": 0, "delta": {}, "finish_reason": None}


class EventWriter:
    """Writes the chunks of one stream as events.

    Args:
        include_usage: Whether to write usage; without it a chunk of usage only has no event.
        nulls: Whether absent fields that OpenAI always sends are written as null.
    """

    __slots__ = (
        "_after_text",
        "_after_text_event",
        "_before_text",
        "_head",
        "_include_usage",
        "_kind",
        "_nulls",
        "_stamp",
    )

    def __init__(self, *, include_usage: bool, nulls: bool = False) -> None:
        self._include_usage = include_usage
        self._nulls = nulls
        self._after_text = b'},"logprobs":null,"finish_reason":null}' if nulls else b'},"finish_reason":null}'
        self._head: bytes | None = None
        self._kind = ""
        self._stamp = self._before_text = self._after_text_event = b""

    def text_event(self, text: PlainText) -> bytes:
        """Returns the event of a text."""
        if text.stamp is not self._stamp or text.kind is not self._kind:
            self._surround_text(text)
        return b"%b%b%b" % (self._before_text, orjson.dumps(text.text), self._after_text_event)

    def events(self, chunks: Sequence[ChatCompletionChunk]) -> Sequence[bytes]:
        """Returns the events of a batch of chunks; `[DONE]` follows the last chunk of a stream."""
        events = [event for chunk in chunks if (event := self.event(chunk))]
        if chunks and not chunks[-1].choices:
            events.append(DONE)
        return events

    def event(self, chunk: ChatCompletionChunk) -> bytes:
        """Returns the chunk's event; empty if the caller gets none."""
        hidden = not self._include_usage
        if hidden and not chunk.choices and not (chunk.HasField("moderation") or chunk.HasField("extra_json")):
            return b""
        if self._head is None:
            self._head = _head(chunk)
        choices = b",".join([self._choice(choice) for choice in chunk.choices])
        return b"%b%b]%b}\n\n" % (self._head, choices, _tail(chunk, without_usage=hidden))

    def _surround_text(self, text: PlainText) -> None:
        """Builds what surrounds the text of the events of plain text."""
        stamp = ChatCompletionChunk.FromString(text.stamp)
        if self._head is None:
            self._head = _head(stamp)
        self._before_text = b'%b{"index":0,"delta":{"%b":' % (self._head, text.kind.encode())
        self._after_text_event = b"%b]%b}\n\n" % (self._after_text, _tail(stamp, without_usage=True))
        self._stamp, self._kind = text.stamp, text.kind

    def _choice(self, choice: ChunkChoice) -> bytes:
        delta = choice.delta
        fields = delta.ListFields()
        if len(fields) == 1 and len(choice.ListFields()) == 2 and (kind := _text_kind(delta)):  # noqa: PLR2004 - index, delta
            text = orjson.dumps(fields[0][1])
            return b'{"index":%d,"delta":{"%b":%b%b' % (choice.index, kind, text, self._after_text)
        if not fields or delta.role:
            return _bare_choice(choice.SerializeToString(), nulls=self._nulls)
        return _choice_json(choice, nulls=self._nulls)


def error_event(error: ParleyError, form: str | None = None) -> bytes:
    """Returns the last event of a stream that fails after its first byte.

    Args:
        error: The failure.
        form: The format of the dialect: `text` for `{"error": message}`, `detail` for `{"detail": message}`, else
            OpenAI's.
    """
    if form == "text":
        body: dict[str, object] = {"error": error.message}
    elif form == "detail":
        body = {"detail": error.message}
    else:
        body = {"error": _openai_error(error)}
    return b"data: %b\n\n" % orjson.dumps(body)


def _openai_error(error: ParleyError) -> dict[str, object]:
    """Returns the same object as the edge's openai dialect for the same failure before the first byte."""
    code = errors.code(error)
    kind = SERVICE[error.reason].openai_type
    return {"message": error.message, "type": kind, "param": error.param, "code": OPENAI_CODES.get(code, code)}


def _choice_json(choice: ChunkChoice, *, nulls: bool) -> bytes:
    return dumps(from_message(choice, nulls=True) if nulls else {**_ALWAYS, **from_message(choice)})


def _text_kind(delta: Delta) -> bytes:
    """Returns the name of the text of a delta that has one field; an empty one if it is no text."""
    return b"content" if delta.content else b"reasoning_content" if delta.reasoning_content else b""


@lru_cache(64)
def _bare_choice(choice: bytes, *, nulls: bool) -> bytes:
    """Returns the JSON of a serialized choice with a role or a finish reason, which is the same in most streams."""
    return _choice_json(ChunkChoice.FromString(choice), nulls=nulls)


def _head(chunk: ChatCompletionChunk) -> bytes:
    stamp = ChatCompletionChunk(id=chunk.id, object=chunk.object, created=chunk.created, model=chunk.model)
    if chunk.HasField("session_id"):
        stamp.session_id = chunk.session_id
    return b'data: %b,"choices":[' % orjson.dumps(from_message(stamp))[:-1]


def _tail(chunk: ChatCompletionChunk, *, without_usage: bool) -> bytes:
    rest: dict[str, object] = {}
    if chunk.HasField("usage") and not without_usage:
        rest["usage"] = from_message(chunk.usage)
    if chunk.HasField("system_fingerprint"):
        rest["system_fingerprint"] = chunk.system_fingerprint
    if chunk.HasField("service_tier"):
        rest["service_tier"] = chunk.service_tier
    if chunk.HasField("moderation"):
        rest["moderation"] = from_message(chunk.moderation)
    if chunk.HasField("extra_json"):
        rest |= from_message(ChatCompletionChunk(extra_json=chunk.extra_json))
    return b",%b" % dumps(rest)[1:-1] if rest else b""
