"""Typed content parts as the JSON objects of OpenAI's API (API reference: chat completions, content parts)."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parley.core.messages import extra_fields
from parley.core.messages.json_values import MAX_TEXT_DEPTH, is_deep
from parley.rpc.message_validation import Fault
from parley.v1.message_pb2 import AudioContent, ContentPart, FileContent, ImageContent

_MIME_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_MAX_DEPTH = MAX_TEXT_DEPTH - 2  # a part is in an array, which is in the text of the unknown fields of its message
_TOO_DEEP = f"`{{}}` is nested too deeply; it may have at most {_MAX_DEPTH} levels"
_ONE_OF = "text, image, audio, file, refusal or json"


@dataclass(slots=True)
class JsonParts:
    """Content parts as JSON.

    Attributes:
        data: The parts; their numbers are written as they were received.
        texts: The text of each part.
        has_unknown: Whether a part has fields that a Value may not represent exactly.
        faults: What is wrong with the parts; the other attributes are then incomplete.
    """

    data: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    has_unknown: bool = False
    faults: list[Fault] = field(default_factory=list)


def read_parts(parts: Iterable[ContentPart], path: str) -> JsonParts:
    """Returns typed parts as JSON; `path` is that of the field, for example `messages[0].parts`."""
    read = JsonParts()
    for index, part in enumerate(parts):
        at, kind = f"{path}[{index}]", part.WhichOneof("content")
        if kind is None:
            read.faults.append((at, f"`{at}` must have one of {_ONE_OF}", "missing"))
        elif faults := list(_FAULTS[kind](getattr(part, kind), f"{at}.{kind}")) if kind in _FAULTS else []:
            read.faults += faults
        else:
            _add(read, part, _DATA[kind](part), at)
    return read


def _add(read: JsonParts, part: ContentPart, data: dict[str, Any], at: str) -> None:
    unknown = extra_fields.loads(part.extra_json) if part.HasField("extra_json") else {}
    read.faults += _unknown_faults(unknown, data, f"{at}.extra_json")
    read.has_unknown |= bool(unknown) or part.HasField("json")
    read.data.append(data | unknown)
    read.texts.append(with_members(part.json or extra_fields.dumps(data), part.extra_json))


def with_members(text: str, more: str) -> str:
    """Returns the text of a JSON object with the members of another one at its end; "" is an object without members."""
    if not more:
        return text
    members = (one.strip()[1:-1].strip() for one in (text, more))
    return f"{{{','.join(filter(None, members))}}}"


def _unknown_faults(unknown: dict[str, Any], data: dict[str, Any], at: str) -> Iterator[Fault]:
    for key in sorted(unknown.keys() & data.keys()):
        yield f"{at}.{key}", f"`{at}.{key}` repeats a field of the part"
    if is_deep(unknown, _MAX_DEPTH):
        yield at, _TOO_DEEP.format(at)


def _image_faults(image: ImageContent, at: str) -> Iterator[Fault]:
    yield from _source_faults(image, "url", image.url, at)


def _file_faults(file: FileContent, at: str) -> Iterator[Fault]:
    yield from _source_faults(file, "file_id", file.file_id, at)


def _source_faults(media: ImageContent | FileContent, name: str, reference: str, at: str) -> Iterator[Fault]:
    """Checks that media have either bytes with their type, or a reference in the field `name`."""
    if bool(reference) == bool(media.data):
        yield at, f"`{at}` must have either `{name}` or `data`", "missing"
    elif media.data and not _MIME_TYPE.fullmatch(media.mime_type):
        yield f"{at}.mime_type", f"`{at}.mime_type` must be the media type of `data`, for example image/png", "missing"
    elif reference and media.HasField("mime_type"):
        yield f"{at}.mime_type", f"`{at}.mime_type` is for `data`; leave it out beside `{name}`"


def _audio_faults(audio: AudioContent, at: str) -> Iterator[Fault]:
    for name, value in (("data", audio.data), ("format", audio.format)):
        if not value:
            yield f"{at}.{name}", f"`{at}.{name}` is required", "missing"


def _json_faults(text: str, at: str) -> Iterator[Fault]:
    data = extra_fields.read_object(text) or {}
    if not isinstance(data.get("type"), str):
        yield at, f"`{at}` must be the text of a JSON object with a `type`"
    elif is_deep(data, _MAX_DEPTH):
        yield at, _TOO_DEEP.format(at)


def _image(image: ImageContent) -> dict[str, Any]:
    url = image.url or _data_url(image)
    return {"url": url} | ({"detail": image.detail} if image.HasField("detail") else {})


def _audio(audio: AudioContent) -> dict[str, Any]:
    return {"data": b64encode(audio.data).decode(), "format": audio.format}


def _file(file: FileContent) -> dict[str, Any]:
    name = {"filename": file.filename} if file.HasField("filename") else {}
    return name | ({"file_id": file.file_id} if file.file_id else {"file_data": _data_url(file)})


def _data_url(media: ImageContent | FileContent) -> str:
    """Returns bytes as a `data:` URL (RFC 2397)."""
    return f"data:{media.mime_type};base64,{b64encode(media.data).decode()}"


_FAULTS: dict[str, Callable[[Any, str], Iterator[Fault]]] = {
    "image": _image_faults,
    "audio": _audio_faults,
    "file": _file_faults,
    "json": _json_faults,
}
_DATA: dict[str, Callable[[ContentPart], dict[str, Any]]] = {
    "text": lambda part: {"type": "text", "text": part.text},
    "image": lambda part: {"type": "image_url", "image_url": _image(part.image)},
    "audio": lambda part: {"type": "input_audio", "input_audio": _audio(part.audio)},
    "file": lambda part: {"type": "file", "file": _file(part.file)},
    "refusal": lambda part: {"type": "refusal", "refusal": part.refusal},
    "json": lambda part: extra_fields.loads(part.json),
}
