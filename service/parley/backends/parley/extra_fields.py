"""Moves unknown fields of another Parley's responses from `extra` to `extra_json`, the form used in the service."""

from typing import Any

import orjson
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from parley.core.messages.proto_json import from_struct
from parley.v1.chat_completions_pb2 import ChatCompletionChunk

_JSON = (Struct, Value, ListValue)


def as_text(message: Message) -> None:
    """Moves `extra` of a message and its submessages to `extra_json`, unless that is already set."""
    for field, value in message.ListFields():
        if field.name == "extra":
            _move(message, value)
        elif field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                if isinstance(item, Message) and not isinstance(item, _JSON):
                    as_text(item)


def chunk_as_text(chunk: ChatCompletionChunk) -> None:
    """Does the same for a chunk, with a fast path for chunks of text only."""
    if len(chunk.choices) != 1 or chunk.HasField("usage") or chunk.HasField("extra"):
        as_text(chunk)
        return
    choice = chunk.choices[0]
    is_text = bool(choice.delta.content) and len(choice.delta.ListFields()) == 1
    if not is_text or choice.HasField("extra") or choice.HasField("logprobs"):
        as_text(choice)


def _move(message: Any, extra: Struct) -> None:
    if not message.HasField("extra_json"):
        message.extra_json = orjson.dumps(from_struct(extra)).decode()
    message.ClearField("extra")
