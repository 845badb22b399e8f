"""Converts requests to the JSON body of Anthropic's Messages API.

Fields with an equivalent are translated. Fields without one are rejected unless their value has no effect; no field is
silently ignored. Parley's own fields are not sent. Source: Messages API reference; effort, structured outputs, service
tiers.
"""

from typing import Any

from parley.backends.anthropic.messages import conversation
from parley.backends.anthropic.tools import tools
from parley.backends.capabilities import unsupported
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.json_fidelity import PARLEY_FIELDS, exact_schema, json_object, merge_extra
from parley.core.errors import InvalidRequest
from parley.core.messages.proto_json import from_struct, from_value
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

SENT = frozenset(
    {
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "user",
        "safety_identifier",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "extra_body",
        "extra_body_json",
    }
)
"""Request fields that are translated."""

_NO_OP_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
}
_MAX_TEMPERATURE = 1.0
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}


def body(call: UpstreamCall, max_tokens: int, *, stream: bool, policy: ExtraBodyPolicy = EVERYTHING) -> dict[str, Any]:
    """Returns the body, to be serialized by `extra_fields.dump_bytes`.

    Args:
        call: The call.
        max_tokens: Token limit of a request that sets none.
        stream: Whether the answer is streamed.
        policy: The vendor parameters that are passed on.

    Raises:
        UnsupportedParameter: If the API has no equivalent of a field.
        InvalidRequest: If a schema, `extra_body`, a content part or a tool call is invalid.
    """
    request = call.request
    _reject_unsupported(request)
    system, messages = conversation(call)
    sent: dict[str, Any] = {"model": call.model or request.model, "max_tokens": _limit(request, max_tokens)}
    if system:
        sent["system"] = system
    sent["messages"] = messages
    sent |= _sampling(request) | tools(request) | _output(request) | _caller(request)
    if stream:
        sent["stream"] = True
    merge_extra(sent, call, policy, reserved=sent.keys())
    return sent


def _reject_unsupported(request: CreateChatCompletionRequest) -> None:
    """Raises UnsupportedParameter for a field without an equivalent, unless its value has no effect."""
    for field, value in request.ListFields():
        if field.name in SENT or field.name in PARLEY_FIELDS:
            continue
        json_value = list(value) if field.is_repeated else value
        if json_value not in _NO_OP_VALUES.get(field.name, ()):
            raise unsupported(f"`{field.name}`", request.model, field.name)
    _reject_unknown(request.stream_options.extra_json, "stream_options", request.model, "include_obfuscation")


def _limit(request: CreateChatCompletionRequest, default: int) -> int:
    """Returns the token limit: the smaller one if both `max_tokens` and `max_completion_tokens` are set."""
    limits = [request.max_completion_tokens] if request.HasField("max_completion_tokens") else []
    limits += [request.max_tokens] if request.HasField("max_tokens") else []
    return min(limits, default=default)


def _sampling(request: CreateChatCompletionRequest) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    if request.HasField("temperature"):
        if request.temperature > _MAX_TEMPERATURE:
            raise unsupported("`temperature` above 1", request.model, "temperature")
        sent["temperature"] = request.temperature
    if request.HasField("top_p"):
        sent["top_p"] = request.top_p
    if stop := from_value(request.stop):
        sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return sent


def _output(request: CreateChatCompletionRequest) -> dict[str, Any]:
    """Returns the fields for the output format and the reasoning effort."""
    sent: dict[str, Any] = {}
    config: dict[str, Any] = {}
    effort = request.reasoning_effort
    if effort == "none":
        sent["thinking"] = {"type": "disabled"}
    elif effort in _EFFORTS:
        config["effort"] = effort
    elif request.HasField("reasoning_effort"):
        raise unsupported(f"`reasoning_effort` `{effort}`", request.model, "reasoning_effort")
    if (schema := _schema(request)) is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    return sent | {"output_config": config} if config else sent


def _schema(request: CreateChatCompletionRequest) -> Any:
    """Returns the JSON Schema of the answer; None for text.

    The API always enforces the schema, so `strict` has no effect; `name` is only a label.
    """
    response_format = request.response_format
    if response_format.type in ("", "text"):
        return None
    if response_format.type != "json_schema":
        raise unsupported(
            f"`response_format` of the type `{response_format.type}`", request.model, "response_format.type"
        )
    path = "response_format.json_schema"
    if response_format.json_schema.description:
        raise unsupported(f"`{path}.description`", request.model, f"{path}.description")
    _reject_unknown(response_format.extra_json, "response_format", request.model)
    _reject_unknown(response_format.json_schema.extra_json, path, request.model, "schema")
    if response_format.json_schema.HasField("schema_json"):
        return exact_schema(response_format.json_schema.schema_json, "schema_json")
    if not response_format.json_schema.HasField("schema"):
        raise InvalidRequest(f"`{path}.schema` is required and must be an object", param=f"{path}.schema")
    return from_struct(response_format.json_schema.schema)


def _reject_unknown(extra_json: str, path: str, model: str, *but: str) -> None:
    """Raises UnsupportedParameter for unknown fields of a translated object, except those in `but`."""
    for key in sorted(json_object(extra_json or "{}", f"{path}.extra_json").keys() - set(but)):
        raise unsupported(f"`{path}.{key}`", model, f"{path}.{key}")


def _caller(request: CreateChatCompletionRequest) -> dict[str, Any]:
    """Returns the fields for the user id and the service tier."""
    sent: dict[str, Any] = {}
    if request.HasField("service_tier"):
        if request.service_tier not in _TIERS:
            raise unsupported(f"`service_tier` `{request.service_tier}`", request.model, "service_tier")
        sent["service_tier"] = _TIERS[request.service_tier]
    named = sorted({name for name in (request.user, request.safety_identifier) if name})
    if len(named) > 1:
        raise unsupported("`user` beside another `safety_identifier`", request.model, "user")
    if named:
        sent["metadata"] = {"user_id": named[0]}
    return sent
