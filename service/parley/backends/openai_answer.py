"""From the JSON of OpenAI's chat completions to the messages.

Many servers speak this JSON, each a little differently: what is missing or null is left out, what is unknown is passed
over. What has the wrong shape raises Malformed.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from parley.backends.failures import SHAPE_ERRORS, ErrorInBody, Malformed
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.message_pb2 import (
    Audio,
    Choice,
    CompletionTokensDetails,
    CustomCall,
    FunctionCall,
    Logprobs,
    Message,
    PromptTokensDetails,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
)

_DEEPEST = 24  # levels of JSON: each takes three of messages, which may have 100
_UNLIKELY = -9999.0  # how OpenAI writes a probability of next to nothing


def completion(data: bytes, top: int, said: str = "") -> ChatCompletion:
    """Reads a whole answer. At most `top` rivals of each token are kept, and `said` is taken off its beginning.

    Raises Malformed, ErrorInBody.
    """
    try:
        answer = orjson.loads(data)
        if answer.get("error"):
            raise ErrorInBody(answer)
        read = [choice(item, place, top) for place, item in enumerate(answer["choices"])]
        found = ChatCompletion(choices=read, usage=usage(answer.get("usage") or {}))
        tag(found, answer)
    except SHAPE_ERRORS as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    if not read:
        raise Malformed("the answer has no choices")
    if said:
        _take_off(said, found)
    return found


def _take_off(said: str, answer: ChatCompletion) -> None:
    for answered in answer.choices:
        text = answered.message.content.string_value
        if text.startswith(said):
            answered.message.content.string_value = text.removeprefix(said)


def tag(answer: Any, data: Mapping[str, Any]) -> None:
    """Copies what the upstream says about itself."""
    if data.get("system_fingerprint"):
        answer.system_fingerprint = data["system_fingerprint"]
    if data.get("service_tier"):
        answer.service_tier = data["service_tier"]
    if data.get("moderation"):
        answer.moderation.CopyFrom(struct(data["moderation"]))


def choice(data: Mapping[str, Any], place: int, top: int) -> Choice:
    """Reads one of the answers."""
    index = data.get("index")
    return Choice(
        index=place if index is None else index,
        message=message(data["message"]),
        finish_reason=data.get("finish_reason") or None,
        logprobs=logprobs(data.get("logprobs"), top),
    )


def message(data: Mapping[str, Any]) -> Message:
    """Reads an assistant's message. Null or missing content is an explicit null."""
    read = Message(role=data.get("role") or "assistant", content=content(data.get("content")))
    reasoning = data.get("reasoning_content") or data.get("reasoning")
    if isinstance(reasoning, str):
        read.reasoning_content = reasoning
    if data.get("refusal"):
        read.refusal = data["refusal"]
    if data.get("tool_calls"):
        read.tool_calls.extend(tool_call(item) for item in data["tool_calls"])
    if data.get("function_call"):
        read.function_call.CopyFrom(FunctionCall(**_named(data["function_call"], "arguments")))
    if data.get("annotations"):
        read.annotations.extend(struct(item) for item in data["annotations"])
    if data.get("audio"):
        read.audio.CopyFrom(audio(data["audio"]))
    return read


def content(data: Any) -> Value:
    """Returns a message's content as a Value: text mostly, null, or a list of parts."""
    if isinstance(data, str):
        return Value(string_value=data)
    if data is None:
        return Value(null_value=NULL_VALUE)
    _check_depth(data)
    parts = ListValue()
    parts.extend(data)
    return Value(list_value=parts)


def tool_call(data: Mapping[str, Any]) -> ToolCall:
    """Reads a tool call."""
    call = ToolCall(id=data.get("id") or "", type=data.get("type") or "function")
    if data.get("custom"):
        call.custom.CopyFrom(CustomCall(**_named(data["custom"], "input")))
    else:
        call.function.CopyFrom(FunctionCall(**_named(data["function"], "arguments")))
    return call


def _named(data: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Reads a name, and text that some servers send as the JSON that it should be the text of."""
    value = data.get(text)
    if value is not None and not isinstance(value, str):
        value = orjson.dumps(value).decode()
    return {"name": data.get("name") or "", text: value}


def audio(data: Mapping[str, Any]) -> Audio:
    """Reads spoken output, or a piece of it."""
    return Audio(
        id=data.get("id") or "",
        expires_at=data.get("expires_at"),
        data=data.get("data"),
        transcript=data.get("transcript"),
    )


def struct(data: Mapping[str, Any]) -> Struct:
    """Returns a JSON object as a Struct. Raises ValueError where it nests more deeply than messages may."""
    _check_depth(data)
    read = Struct()
    read.update(data)
    return read


def _check_depth(data: Any, levels: int = _DEEPEST) -> None:
    """Protobuf writes what nests too deeply, and nobody can read it then."""
    if levels == 0:
        raise ValueError("the answer nests too deeply")
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _check_depth(value, levels - 1)


def logprobs(data: Mapping[str, Any] | None, top: int) -> Logprobs | None:
    """Reads the probabilities of the tokens; None where there are none."""
    if not data:
        return None
    return Logprobs(
        content=[token(item, top) for item in data.get("content") or ()],
        refusal=[token(item, top) for item in data.get("refusal") or ()],
    )


def token(data: Mapping[str, Any], top: int) -> TokenLogprob:
    """Reads one token's probability and those of its likeliest `top` rivals: llama.cpp sends 20 unasked."""
    rivals = data.get("top_logprobs") or ()
    return TokenLogprob(
        token=data["token"],
        logprob=_logprob(data),
        bytes=data.get("bytes"),
        top_logprobs=[
            TopLogprob(token=rival["token"], logprob=_logprob(rival), bytes=rival.get("bytes"))
            for rival in rivals[:top]
        ],
    )


def _logprob(data: Mapping[str, Any]) -> float:
    value = data.get("logprob")
    return _UNLIKELY if value is None else value


def usage(data: Mapping[str, Any]) -> Usage:
    """Reads what the answer cost; the three numbers of OpenAI are always set."""
    prompt = data.get("prompt_tokens") or 0
    produced = data.get("completion_tokens") or 0
    read = Usage(
        prompt_tokens=prompt,
        completion_tokens=produced,
        total_tokens=data.get("total_tokens") or prompt + produced,
        **_counts(data, _DEEPSEEK),
    )
    if isinstance(cost := data.get("cost"), int | float):  # Perplexity has an object here
        read.cost = cost
    if isinstance(details := data.get("cost_details"), dict):
        read.cost_details.CopyFrom(struct(details))
    if details := data.get("prompt_tokens_details"):
        read.prompt_tokens_details.CopyFrom(PromptTokensDetails(**_counts(details, _PROMPT)))
    if details := data.get("completion_tokens_details"):
        read.completion_tokens_details.CopyFrom(CompletionTokensDetails(**_counts(details, _PRODUCED)))
    return read


_DEEPSEEK = ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens")
_PROMPT = tuple(field.name for field in PromptTokensDetails.DESCRIPTOR.fields)
_PRODUCED = tuple(field.name for field in CompletionTokensDetails.DESCRIPTOR.fields)


def _counts(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: data.get(name) for name in names}
