"""Parses complete responses of OpenAI's chat completions.

Servers differ in their details; `choice` parses one choice, in streams and in complete responses alike. Malformed
optional data (usage, log probabilities, annotations) is omitted.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import NULL_VALUE

from parley.backends import lenient_json
from parley.backends.errors.classifier import SHAPE_ERRORS, ErrorInBody, MalformedResponse, shape_error
from parley.backends.lenient_json import Source, count, struct, text_or_none
from parley.backends.openai.choice import USUAL, ChoiceReader, ExpectedAnswer
from parley.backends.openai.content import KNOWN_OF_MESSAGE, TEXT_ONLY
from parley.backends.openai.usage import usage, usual_counts
from parley.backends.parsing.finish_reasons import MAY_BE_EMPTY, STOP
from parley.core.messages import extra_fields
from parley.core.messages.text_completion import TextCompletion, TokenCounts
from parley.core.streaming.accumulator import ChoiceAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.message_pb2 import Choice, Usage

METADATA_FIELDS = ("system_fingerprint", "service_tier", "moderation")
USUAL_FIELDS = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "error", "obfuscation", *METADATA_FIELDS[:2]}
)
KNOWN = USUAL_FIELDS | frozenset(METADATA_FIELDS)
"""Known fields of a response and of a chunk. OpenAI pads events with `obfuscation` to hide the length of tokens."""
_SUCCESS = (200, "0", "200")
_USUAL_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_USUAL_FIELDS_AND_METADATA = _USUAL_FIELDS | frozenset(METADATA_FIELDS)


def completion(
    data: bytes, expect: Callable[[], ExpectedAnswer], *, is_continued: bool = False
) -> ChatCompletion | TextCompletion:
    """Parses a complete response.

    Args:
        data: The body.
        expect: Returns the properties of the call, which most answers do not need.
        is_continued: Whether the answer may repeat text that the caller already has.

    Raises:
        MalformedResponse: If the body is not a valid answer.
        ErrorInBody: If the body is an error.
    """
    try:
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            return _completion(lenient_json.repaired(data), Source(data), expect(), is_repaired=True)
        if not is_continued and (read := _text_answer(answer, data)) is not None:
            return read
        return _completion(answer, Source(data), expect())
    except SHAPE_ERRORS as error:
        raise shape_error(error) from None


def _text_answer(answer: Any, data: bytes) -> TextCompletion | None:
    """Fast path: returns an answer that is one choice, with text only, and a complete usage; else None."""
    if answer.__class__ is not dict or not answer.keys() <= _USUAL_FIELDS_AND_METADATA or answer.get("moderation"):
        return None
    text = _only_text(answer.get("choices"))
    if text is None:
        return None
    used: TokenCounts | Usage | None = usual_counts(answer.get("usage"))
    if used is None:
        used = usage(answer.get("usage"), Source(data), "usage")
        if used is None or not (used.prompt_tokens and used.completion_tokens):
            return None
    read = TextCompletion(text, used)
    if len(answer) > len(_USUAL_FIELDS):
        read.system_fingerprint = text_or_none(answer.get("system_fingerprint"))
        read.service_tier = text_or_none(answer.get("service_tier"))
    return read


def _only_text(choices: Any) -> str | None:
    """Returns the text of the choice if there is exactly one, with plain text only; else None."""
    if choices.__class__ is not list or len(choices) != 1:
        return None
    choice = choices[0]
    message = choice.get("message")
    if not message or choice.get("finish_reason") != STOP or choice.get("logprobs") or not choice.keys() <= USUAL:
        return None
    text = message.get("content")
    if text.__class__ is not str or not text:
        return None
    has_only_text = len(message) == len(TEXT_ONLY) and "role" in message
    return text if has_only_text or (message.keys() <= KNOWN_OF_MESSAGE and _are_empty(message)) else None


def _are_empty(message: Mapping[str, Any]) -> bool:
    """Returns whether a message has no value beside its text: many servers send null or empty fields."""
    return not any(value for name, value in message.items() if name not in TEXT_ONLY)


def _completion(
    answer: Any, source: Source, expected_answer: ExpectedAnswer, *, is_repaired: bool = False
) -> ChatCompletion:
    if isinstance(answer, list) and answer:
        raise_named_error(b"", answer, b"")
    if answer.get("error"):
        raise ErrorInBody(answer)
    if not answer.get("choices"):
        raise_unmarked_error(answer)
        raise MalformedResponse("the answer has no choices")
    text = None if is_repaired or expected_answer.delivered else _only_text(answer["choices"])
    if text is not None:
        read = TextCompletion(text, None).message()
    else:
        read = ChatCompletion(choices=_choices(answer["choices"], source, expected_answer, is_repaired=is_repaired))
    if (used := usage(answer.get("usage"), source, "usage") or hidden_usage(answer, source)) is not None:
        read.usage.CopyFrom(used)
    if "timings" in answer and expected_answer.n > 1:  # llama.cpp counts the tokens of one choice only
        read.usage.ClearField("completion_tokens")
        read.usage.ClearField("total_tokens")
    copy_metadata(read, answer)
    if not answer.keys() <= KNOWN and (fields := source.unknown(answer, KNOWN | expected_answer.hidden_fields)):
        read.extra_json = extra_fields.dumps(fields)
    return read


def _choices(data: Any, source: Source, expected_answer: ExpectedAnswer, *, is_repaired: bool) -> list[Choice]:
    readers: dict[int, ChoiceReader] = {}
    choices_read: list[Choice] = []
    for position, item in enumerate(data):
        index = index_of(item, position)
        index = position if index in readers else index
        reader = readers[index] = ChoiceReader(index, expected_answer)
        reader.deltas.is_repaired = is_repaired
        reader.read(item, source, "choices", position)
        reader.end()
        choices_read.append(_accumulated(index, reader, item.get("message")))
    require_output(readers.values(), expected_answer)
    return choices_read


def _accumulated(index: int, reader: ChoiceReader, message: Any) -> Choice:
    accumulator = ChoiceAccumulator()
    for delta in reader.deltas.drain().choices:
        accumulator.add(delta)
    choice = accumulator.choice(index)
    if not choice.message.content.string_value:
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            choice.message.content.string_value = ""
        else:
            choice.message.content.null_value = NULL_VALUE
    return choice


def index_of(choice: Mapping[str, Any], position: int) -> int:
    """Returns the index of a choice, or its position if the index is missing or invalid."""
    index = count(choice.get("index"))
    return position if index is None else index


def require_output(choices: Collection[ChoiceReader], expected_answer: ExpectedAnswer) -> None:
    """Raises MalformedResponse if an answer is empty for no valid reason.

    Valid reasons are the token limit, a content filter, `stop`, and a continuation of an answer that was complete.
    """
    for choice in choices:
        if choice.has_output:
            return
    reasons = [choice.finish_reason() for choice in choices if choice.reason is not None]
    if not (reasons and (expected_answer.may_be_empty or MAY_BE_EMPTY.intersection(reasons))):
        raise MalformedResponse("the answer is empty")


def copy_metadata(answer: Any, data: Mapping[str, Any]) -> None:
    """Copies fingerprint, service tier and moderation result to `answer`, a completion or a chunk."""
    for name in METADATA_FIELDS[:2]:
        if name in data and (text := text_or_none(data.get(name))) is not None:
            setattr(answer, name, text)
    if data.get("moderation") and (read := struct(data["moderation"])) is not None:
        answer.moderation.CopyFrom(read)


def hidden_usage(answer: Mapping[str, Any], source: Source) -> Usage | None:
    """Parses a usage outside of its usual field: in a choice (Moonshot), or in `x_groq` (Groq)."""
    for position, choice in enumerate(answer.get("choices") or ()):
        if isinstance(choice, dict) and choice.get("usage"):
            return usage(choice["usage"], source, "choices", position, "usage")
    groq = answer.get("x_groq")
    return usage(groq.get("usage"), source, "x_groq", "usage") if isinstance(groq, dict) else None


def raise_unmarked_error(answer: Mapping[str, Any]) -> None:
    """Raises ErrorInBody for an object without choices that is an error without an `error` field."""
    if "error" in (answer.get("object"), answer.get("type")) or answer.get("detail"):  # FastChat, vLLM; FastAPI
        raise ErrorInBody(answer)
    code = answer.get("code")  # SiliconFlow; 0 and 200 report success
    if code and code not in _SUCCESS and isinstance(answer.get("message"), str) and "choices" not in answer:
        raise ErrorInBody(answer)
    status = answer.get("base_resp")  # MiniMax
    if isinstance(status, dict) and status.get("status_code"):
        raise ErrorInBody({"error": {"message": status.get("status_msg"), "code": status["status_code"]}})


def raise_named_error(name: bytes, event: Any, text: bytes) -> None:
    """Raises ErrorInBody for an event or body that is an error but not an object (Gemini sends a list)."""
    if isinstance(event, list) and event and isinstance(event[0], dict) and event[0].get("error"):
        raise ErrorInBody(event[0])
    if name == b"error":
        raise ErrorInBody({"message": text.decode(errors="replace")})
