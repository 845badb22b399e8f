"""The texts of messages as the units of a guard, each with the function that replaces it.

Every text that a model reads or has written is a unit. Fields that Parley does not know are units of the kind OTHER,
which are removed as a whole where a guard redacts a part of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.struct_pb2 import Struct

from parley.core.guards.decisions import Span, redacted
from parley.core.messages.extra_fields import dumps, loads
from parley.core.messages.proto_json import from_struct
from parley.guard.v1 import guard_pb2 as guard
from parley.guard.v1.guard_pb2 import Unit
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Choice, Message

_PART_TEXTS = {"text": guard.KIND_CONTENT, "refusal": guard.KIND_REFUSAL}
_PLAIN_PART = frozenset({"type", "cache_control", *_PART_TEXTS})
_NOT_TEXT = frozenset({"image_url", "input_audio", "file"})
_MEDIA_FIELDS = frozenset(
    {"images", "image", "videos", "video"}
)  # unknown fields of messages, as OpenRouter's `images`
_EXACT = frozenset({"content", "annotations"})  # fields that `extra_json` may have in an exact form; see message.proto
_NOT_UNKNOWN = _EXACT | _MEDIA_FIELDS


class Text(NamedTuple):
    """A text.

    Attributes:
        unit: The text as a guard receives it.
        replace: Replaces the text in its message.
    """

    unit: Unit
    replace: Callable[[str], None]


def request_texts(request: CreateChatCompletionRequest) -> list[Text]:
    """Returns the texts of a request's messages, and of its predicted output."""
    texts = [text for number, message in enumerate(request.messages) for text in message_texts(message, number)]
    if request.HasField("prediction"):
        texts += _content_texts(request.prediction, "assistant", None)
    return texts


def history_units(messages: Sequence[Message]) -> list[Unit]:
    """Returns the texts of earlier messages, which cannot be replaced."""
    units = [text.unit for number, message in enumerate(messages) for text in message_texts(message, number)]
    for unit in units:
        unit.history = True
    return units


def message_texts(message: Message, number: int | None = None) -> list[Text]:
    """Returns the texts of a message that are not empty, in the order in which a model writes them.

    Args:
        message: The message.
        number: Its position in the request; None for an answer.
    """
    text = message.content.string_value
    if text and message.role and len(message.ListFields()) == 2:  # noqa: PLR2004 - nothing else, as in most messages
        unit = _unit(guard.KIND_CONTENT, text, message.role, number)
        return [Text(unit, _member_setter(message, message.content, "string_value"))]
    texts = [*_model_texts(message, number), *_content_texts(message, message.role, number)]
    texts += [*_call_texts(message, number), *_other_texts(message, number)]
    return texts


def redact(texts: Sequence[Text], spans: Mapping[int, Sequence[Span]]) -> None:
    """Replaces the spans of the texts, by the position of their unit."""
    for number, found in spans.items():
        texts[number].replace(redacted(texts[number].unit.text, found))


def choice_texts(answer: ChatCompletion, position: int) -> list[Text]:
    """Returns the texts of a choice; of the first one also the unknown fields of the answer."""
    choice = answer.choices[position]
    texts = [*message_texts(choice.message), *_unknown_texts(choice, choice.message.role, None)]
    return texts if position else [*texts, *_unknown_texts(answer, choice.message.role, None)]


def drop_repetitions(choice: Choice) -> None:
    """Removes what may repeat the text of a choice that has been redacted, apart from unknown fields of tool calls."""
    choice.ClearField("logprobs")
    choice.ClearField("extra_json")
    choice.message.ClearField("annotations")
    choice.message.ClearField("extra_json")


def has_media(message: Message) -> bool:
    """Returns whether an answer has images, sound or files."""
    parts = message.content.list_value.values
    return (
        bool(message.audio.data)
        or has_media_fields(message.extra_json)
        or any(not _NOT_TEXT.isdisjoint(part.struct_value.fields) for part in parts)
    )


def has_media_fields(extra_json: str) -> bool:
    """Returns whether unknown fields of a message have images or videos."""
    return any(f'"{name}"' in extra_json for name in _MEDIA_FIELDS) and not _MEDIA_FIELDS.isdisjoint(
        _members(extra_json)
    )


def without_media(extra_json: str) -> str:
    """Returns unknown fields of a message without images and videos; empty if there are none."""
    return _filtered(extra_json, lambda name: name not in _MEDIA_FIELDS)


def unreadable_part(request: CreateChatCompletionRequest) -> str | None:
    """Returns the path of the first image, sound or file of a request, which no guard can read; None without one."""
    for number, message in enumerate(request.messages):
        if message.HasField("audio"):
            return f"messages[{number}].audio"
        if has_media_fields(message.extra_json):
            return f"messages[{number}]"
        for part, value in enumerate(message.content.list_value.values):
            fields = value.struct_value.fields
            if not _NOT_TEXT.isdisjoint(fields) or _PART_TEXTS.keys().isdisjoint(fields):
                return f"messages[{number}].content[{part}]"
    return None


def _unit(kind: guard.Kind.ValueType, text: str, role: str, number: int | None, part: int | None = None) -> Unit:
    return Unit(kind=kind, text=text, role=role, message=number, part=part)


def _model_texts(message: Message, number: int | None) -> Iterator[Text]:
    """Yields the texts that only models write."""
    for name, kind in (("reasoning_content", guard.KIND_REASONING), ("refusal", guard.KIND_REFUSAL)):
        if text := getattr(message, name):
            yield Text(_unit(kind, text, message.role, number), _field_setter(message, name))
    if transcript := message.audio.transcript:
        yield Text(_unit(guard.KIND_TRANSCRIPT, transcript, message.role, number), _transcript_setter(message))


def _content_texts(message: Any, role: str, number: int | None) -> Iterator[Text]:
    content = message.content
    if content.string_value:
        unit = _unit(guard.KIND_CONTENT, content.string_value, role, number)
        yield Text(unit, _member_setter(message, content, "string_value"))
    for part, value in enumerate(content.list_value.values):
        fields = value.struct_value.fields
        for name, kind in _PART_TEXTS.items():
            if name in fields and fields[name].string_value:
                unit = _unit(kind, fields[name].string_value, role, number, part)
                yield Text(unit, _member_setter(message, fields[name], "string_value"))
        if more := fields.keys() - _PLAIN_PART - _NOT_TEXT:
            text = dumps(from_struct(Struct(fields={name: fields[name] for name in more})))
            yield Text(
                _unit(guard.KIND_OTHER, text, role, number, part), _member_remover(message, value.struct_value, more)
            )


def _call_texts(message: Message, number: int | None) -> Iterator[Text]:
    calls: list[tuple[int | None, Any, str]] = []
    for index, call in enumerate(message.tool_calls):
        calls += [(index, call.function, "arguments"), (index, call.custom, "input")]
    calls.append((None, message.function_call, "arguments"))
    for position, called, name in calls:
        if text := getattr(called, name):
            unit = _unit(guard.KIND_TOOL_ARGUMENTS, text, message.role, number)
            unit.tool_name = called.name
            if position is not None:
                unit.tool_call = position
            yield Text(unit, _field_setter(called, name))


def _other_texts(message: Message, number: int | None) -> Iterator[Text]:
    if text := _unknown_fields(message):
        yield Text(_unit(guard.KIND_OTHER, text, message.role, number), _remover(message, keep=_NOT_UNKNOWN))
    if message.annotations:
        text = dumps([from_struct(one) for one in message.annotations])
        yield Text(_unit(guard.KIND_OTHER, text, message.role, number), _annotations_remover(message))
    calls = [inner for call in message.tool_calls for inner in (call, call.function, call.custom)]
    for inner in (message.audio, *calls, message.function_call):
        yield from _unknown_texts(inner, message.role, number)


def _unknown_texts(carrier: Any, role: str, number: int | None) -> Iterator[Text]:
    """Yields the unknown fields of an object that is no message of a conversation."""
    if carrier.extra_json:
        yield Text(_unit(guard.KIND_OTHER, carrier.extra_json, role, number), _remover(carrier))


def _unknown_fields(message: Message) -> str:
    """Returns the text of the unknown fields without exact forms of known ones and media; empty if there are none."""
    return _filtered(message.extra_json, lambda name: name not in _NOT_UNKNOWN)


def _filtered(extra_json: str, is_kept: Callable[[str], bool]) -> str:
    """Returns the unknown fields whose names are kept; empty if there are none."""
    data = _members(extra_json)
    kept = {name: value for name, value in data.items() if is_kept(name)}
    if len(kept) == len(data):
        return extra_json
    return dumps(kept) if kept else ""


def _members(extra_json: str) -> dict[str, Any]:
    """Returns unknown fields; none for text that is not an object, which only another service can send."""
    if not extra_json:
        return {}
    try:
        data = loads(extra_json)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _keep(carrier: Any, is_kept: Callable[[str], bool]) -> None:
    """Removes the unknown fields whose names are not kept, and text that is not an object."""
    text = _filtered(carrier.extra_json, is_kept)
    if text and _members(text):
        carrier.extra_json = text
    else:
        carrier.ClearField("extra_json")


def _remover(carrier: Any, *, keep: frozenset[str] = frozenset()) -> Callable[[str], None]:
    return lambda _: _keep(carrier, keep.__contains__)


def _annotations_remover(message: Message) -> Callable[[str], None]:
    def replace(_: str) -> None:
        _keep(message, lambda name: name != "annotations")
        message.ClearField("annotations")

    return replace


def _field_setter(message: Any, name: str) -> Callable[[str], None]:
    return lambda text: setattr(message, name, text)


def _transcript_setter(message: Message) -> Callable[[str], None]:
    def replace(text: str) -> None:
        message.audio.transcript = text
        message.audio.ClearField("data")  # it says the same

    return replace


def _member_setter(message: Any, value: Any, name: str) -> Callable[[str], None]:
    def replace(text: str) -> None:
        _drop_exact(message)
        setattr(value, name, text)

    return replace


def _member_remover(message: Any, struct: Struct, names: set[str]) -> Callable[[str], None]:
    def replace(_: str) -> None:
        _drop_exact(message)
        for name in names:
            del struct.fields[name]

    return replace


def _drop_exact(message: Any) -> None:
    """Removes the exact text of the content, which would replace the redacted content; see message.proto."""
    _keep(message, lambda name: name != "content")
