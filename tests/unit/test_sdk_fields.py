"""Every field of chat completions in OpenAI's package is a field of the protos, or omitted for a reason."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pydantic
import pytest
from google.protobuf.descriptor import Descriptor
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from typing_extensions import get_type_hints, is_typeddict

from parley.v1 import chat_completions_pb2 as protos

FREE = {"google.protobuf.Value", "google.protobuf.Struct"}
"""What is carried as it is, whatever fields it has."""

OMITTED = {
    "request.stream_options.include_obfuscation": "streams are not padded, as with false",
    "completion.metadata": "labels are kept with the turn; the package has them for completions that are fetched again",
    "chunk.obfuscation": "padding of the upstream's own chunks, which are joined and split again",
}


def fields(kind: Any) -> dict[str, Any]:
    """Returns the names and types of the fields of a package's type; none for other types."""
    if is_typeddict(kind):
        return get_type_hints(kind)
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {}


def missing(kind: Any, message: Descriptor | None, path: str) -> Iterator[str]:
    """Yields the paths of fields that the message lacks; `message` is None for a field that is no message."""
    if get_origin(kind) is not None:
        for part in get_args(kind):
            yield from missing(part, message, path)
    for name, inner in fields(kind).items():
        field = message.fields_by_name.get(name) if message else None
        at = f"{path}.{name}"
        if field is None:
            yield at
        elif field.message_type is None or field.message_type.full_name not in FREE:
            yield from missing(inner, field.message_type, at)


@pytest.mark.parametrize(
    ("kind", "message", "path"),
    [
        (CompletionCreateParamsNonStreaming, protos.CreateChatCompletionRequest, "request"),
        (CompletionCreateParamsStreaming, protos.CreateChatCompletionRequest, "request"),
        (ChatCompletion, protos.ChatCompletion, "completion"),
        (ChatCompletionChunk, protos.ChatCompletionChunk, "chunk"),
    ],
)
def test_no_field_of_the_package_is_missing(kind: Any, message: Any, path: str) -> None:
    """Requests, answers and chunks, to the last level, as the installed version of the package has them."""
    expected = {at for at in OMITTED if at.startswith(f"{path}.")}
    assert expected == set(missing(kind, message.DESCRIPTOR, path))
