"""Validation of requests. The messages are those of the API documents.

The values of a field that Parley interprets are a closed list: the roles, which sessions and translations depend on. A
field that only a backend interprets (`tool_choice`, formats, modes, tiers, types of objects) accepts any value: a
backend rejects those that it does not support. The fields that belong to a known value are required.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, starmap
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest, Violation
from parley.core.messages import extra_fields, functions
from parley.core.ports import RequestShape
from parley.rpc.field_rules import (
    CHAT_RANGES,
    ENTRIES,
    FUNCTION_CALLS,
    LABELS,
    LOGIT_BIAS,
    MAX_ENTRIES,
    MAX_NAME_LENGTH,
    TOOL_CHOICES,
)
from parley.rpc.message_validation import CONTENT_TYPES, Fault, is_plain_text, message_faults, part_faults
from parley.rpc.request_shape import shape_of
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_FIRST = ("model", "messages")
# A backend that accepts less rejects the name itself.
_NAME = re.compile(rf"[^\s\x00-\x1f\x7f]{{1,{MAX_NAME_LENGTH}}}")
_NAME_RULE = f"letters, digits and signs such as _ - and ., without spaces, at most {MAX_NAME_LENGTH}"
_AUDIO_FORMATS = "wav, aac, mp3, flac, opus, pcm16"
_OR_BACKEND_SPECIFIC = "or a word of the backend's own"
_MAX_VIOLATIONS = 100  # in one error; a body has room for a million
MODEL_REQUIRED = Violation("model", "`model` is required and must be a string", "missing")


def validate(
    request: CreateChatCompletionRequest,
    is_stream: bool,
    model_required: bool = False,
    found: Sequence[Violation] = (),
    shape: RequestShape | None = None,
) -> None:
    """Checks a request.

    Args:
        request: The request, without the values that are in `found`.
        is_stream: Whether the method returns a stream.
        model_required: Whether the request must name a model.
        found: Violations that the edge has found in the JSON. They replace those found here about the same field.
        shape: The shape of the request, if it is known. Fields that were cleared since may be part of it.

    Raises:
        InvalidRequest: With all violations, or the first hundred.
    """
    fields, texts = shape or shape_of(request)
    checks = _checks(fields, is_stream, texts is not None)
    violations: list[Violation] = []
    for check in checks:
        faults = check(request)
        if faults:
            violations.extend(starmap(Violation, islice(faults, _MAX_VIOLATIONS - len(violations))))
    if model_required and not request.HasField("model"):
        violations.append(MODEL_REQUIRED)
    if found:
        violations = [*found, *(one for one in violations if not any(_is_within(one, other) for other in found))]
    if violations:
        raise InvalidRequest.of(sorted(violations, key=_rank))


def _is_within(violation: Violation, other: Violation) -> bool:
    return violation.field == other.field or violation.field.startswith((f"{other.field}.", f"{other.field}["))


def _rank(violation: Violation) -> int:
    """Returns the sort key of the documents' order: first the model, then the messages."""
    name = violation.field.partition(".")[0].partition("[")[0]
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _model(request: CreateChatCompletionRequest) -> Iterable[Fault]:
    return () if request.model else [("model", MODEL_REQUIRED.message, "string_too_short")]


def _messages(request: CreateChatCompletionRequest) -> Iterable[Fault]:
    messages = request.messages
    if not messages:
        return [("messages", "`messages` must be a non-empty array", "too_short")]
    return () if all(map(is_plain_text, messages)) else _message_faults(messages)


def _message_faults(messages: Iterable[Message]) -> Iterator[Fault]:
    for index, message in enumerate(messages):
        if not is_plain_text(message):
            yield from message_faults(message, f"messages[{index}]")


def _continuation(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if not (request.continue_final_message and request.messages):
        return
    path, last = f"messages[{len(request.messages) - 1}]", request.messages[-1]
    if last.role != "assistant" or not last.content.string_value or last.tool_calls or last.HasField("function_call"):
        yield path, f"`{path}` must be an assistant message with text alone where `continue_final_message` is true"


def _ranges(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    for name, (low, high) in CHAT_RANGES.items():
        if request.HasField(name) and not low <= (value := getattr(request, name)) <= high:  # type: ignore[arg-type]
            kind = "greater_than_equal" if value < low else "less_than_equal"
            yield name, f"`{name}` must be between {low} and {high}", kind
    if request.HasField("top_logprobs") and not request.logprobs:
        yield "top_logprobs", "`top_logprobs` needs `logprobs` to be true"


def _stream_fields(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if request.stream:
        yield "stream", "`stream` is true, but this method does not stream; call StreamChatCompletion"
    if request.HasField("stream_options"):
        yield "stream_options", "`stream_options` needs `stream` to be true"


def _stop(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    stop = request.stop
    kind = stop.WhichOneof("kind")
    items = stop.list_value.values
    texts = all(item.WhichOneof("kind") == "string_value" for item in items)
    if kind not in (None, "string_value", "null_value") and not (kind == "list_value" and texts):
        yield "stop", "`stop` must be a string or an array of strings"


def _tools(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    for index, tool in enumerate(request.tools):
        path = f"tools[{index}]"
        if not tool.type:
            yield (
                f"{path}.type",
                f"`{path}.type` must be function or custom, or a type of the backend's own",
                "missing",
            )
        elif tool.type == "custom" and not tool.custom.name:
            yield f"{path}.custom.name", f"`{path}.custom.name` is required", "missing"
        elif tool.type == "function":
            yield from _function(tool.function, f"{path}.function")
    yield from _choice(request.tool_choice, "tool_choice", TOOL_CHOICES, bool(request.tools))


def _functions(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    for index, function in enumerate(request.functions):
        yield from _function(function, f"functions[{index}]")
    for index in functions.conflicts(request):
        path = f"functions[{index}].name"
        yield path, f"`{path}` is already the name of another tool or function; rename it, or define both alike"
    yield from _choice(request.function_call, "function_call", FUNCTION_CALLS, bool(request.functions))


def _function(function: Any, path: str) -> Iterator[Fault]:
    if not _NAME.fullmatch(function.name):
        yield f"{path}.name", f"`{path}.name` is required: {_NAME_RULE}"
    if function.HasField("parameters_json"):
        yield from _schema(function.parameters_json, f"{path}.parameters_json")


def _schema(text: str, path: str) -> Iterator[Fault]:
    if not extra_fields.is_schema(text):
        yield path, f"`{path}` must be the text of a JSON object"
    elif key := extra_fields.repeated_key(text):
        yield path, f"`{path}` has the key `{key}` twice"


def _choice(choice: Value, name: str, allowed: tuple[str, ...], offered: bool) -> Iterator[Fault]:
    kind = choice.WhichOneof("kind")
    if kind == "string_value" and not choice.string_value:
        own = "a word of the backend's own, or an object that names one"
        yield name, f"`{name}` must be {', '.join(allowed)}, {own}"
    elif kind not in (None, "null_value", "string_value", "struct_value"):
        yield name, f"`{name}` must be a string or an object"
    elif not offered and (kind == "struct_value" or choice.string_value == "required"):
        yield name, f"`{name}` names what to call, but nothing is offered; add `tools` or `functions`"


def _response_format(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if not request.HasField("response_format"):
        return
    response_format = request.response_format
    if not response_format.type:
        own = "or a type of the backend's own"
        yield "response_format.type", f"`response_format.type` must be text, json_object or json_schema, {own}"
    elif response_format.type == "json_schema":
        path = "response_format.json_schema"
        if not _NAME.fullmatch(response_format.json_schema.name):
            yield f"{path}.name", f"`{path}.name` is required: {_NAME_RULE}"
        if response_format.json_schema.HasField("schema_json"):
            yield from _schema(response_format.json_schema.schema_json, f"{path}.schema_json")


def _entries(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    counts = [(name, len(getattr(request, name))) for name in ENTRIES]
    counts.append(("stop", len(request.stop.list_value.values)))
    for name, count in counts:
        if count > MAX_ENTRIES:
            yield name, f"`{name}` may have at most {MAX_ENTRIES} entries, not {count}", "too_long"


def _maps(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    low, high = LOGIT_BIAS
    if not all(token and low <= bias <= high for token, bias in request.logit_bias.items()):
        yield "logit_bias", f"`logit_bias` must map token ids to numbers between {low} and {high}"
    count, key_length, value_length = LABELS
    labels = request.metadata.items()
    if len(labels) > count or any(len(key) > key_length or len(value) > value_length for key, value in labels):
        limits = f"{count} labels, keys to {key_length} characters, values to {value_length}"
        yield "metadata", f"`metadata` may have at most {limits}"


def _audio(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if not request.HasField("audio"):
        return
    voice = request.audio.voice
    fields = voice.struct_value.fields
    if not (voice.string_value or ("id" in fields and fields["id"].string_value)):
        yield "audio.voice", "`audio.voice` is required and must be a string, or an object with an `id`"
    if not request.audio.format:
        yield "audio.format", f"`audio.format` must be {_AUDIO_FORMATS} {_OR_BACKEND_SPECIFIC}"


def _prediction(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if not request.HasField("prediction"):
        return
    if not request.prediction.type:
        yield "prediction.type", f"`prediction.type` must be content {_OR_BACKEND_SPECIFIC}"
    elif request.prediction.type == "content" and not request.prediction.content.HasField("string_value"):
        path = "prediction.content"
        if any(part_faults(request.prediction.content, path)):
            yield path, f"`{path}` is required and must be {CONTENT_TYPES}"


def _user_location(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    location = request.web_search_options.user_location
    if location.type == "approximate" and not location.HasField("approximate"):
        path = "web_search_options.user_location.approximate"
        yield path, f"`{path}` is required and must be an object"


def _moderation(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if not request.HasField("moderation"):
        return
    if not request.moderation.model:
        yield "moderation.model", "`moderation.model` is required and must be a string"
    policy = request.moderation.policy
    for name, rule in (("input", policy.input), ("output", policy.output)):
        if policy.HasField(name) and not rule.mode:  # type: ignore[arg-type]
            path = f"moderation.policy.{name}.mode"
            yield path, f"`{path}` must be score, block {_OR_BACKEND_SPECIFIC}"


def _extra_body(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    if request.HasField("extra_body_json") and not _is_object(request.extra_body_json):
        yield "extra_body_json", "`extra_body_json` must be the text of a JSON object"


_Check = Callable[[CreateChatCompletionRequest], Iterable[Fault]]
# Each check with the fields that it depends on: it is skipped if none of them is set. Without fields it always runs.
_CHECKS: tuple[tuple[_Check, frozenset[str]], ...] = (
    (_model, frozenset({"model"})),
    (_messages, frozenset()),
    (_continuation, frozenset({"continue_final_message"})),
    (_ranges, frozenset(CHAT_RANGES)),
    (_stop, frozenset({"stop"})),
    (_tools, frozenset({"tools", "tool_choice"})),
    (_functions, frozenset({"functions", "function_call"})),
    (_response_format, frozenset({"response_format"})),
    (_entries, frozenset({*ENTRIES, "stop"})),
    (_maps, frozenset({"logit_bias", "metadata"})),
    (_audio, frozenset({"audio"})),
    (_prediction, frozenset({"prediction"})),
    (_user_location, frozenset({"web_search_options"})),
    (_moderation, frozenset({"moderation"})),
    (_extra_body, frozenset({"extra_body_json"})),
)
_STREAM_FIELDS = frozenset({"stream", "stream_options"})
# By descriptor: `ListFields` makes anew, at each call, those that nothing holds.
_NAMES = {field: field.name for field in CreateChatCompletionRequest.DESCRIPTOR.fields}


@lru_cache(maxsize=256)  # the sets of fields that callers send; few of the possible ones
def _checks(fields: frozenset[FieldDescriptor], is_stream: bool, has_plain_texts: bool) -> tuple[_Check, ...]:
    """Returns the checks of a request that sets these fields; plain texts need none."""
    named = {_NAMES[field] for field in fields}
    checks = tuple(check for check, names in _CHECKS if not (names and names.isdisjoint(named)))
    if has_plain_texts:
        checks = tuple(check for check in checks if check is not _messages)
    return checks if is_stream or _STREAM_FIELDS.isdisjoint(named) else (*checks, _stream_fields)


def _is_object(text: str) -> bool:
    return extra_fields.read_object(text) is not None
