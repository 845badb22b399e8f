"""Parameters of an upstream request that the caller did not send: those of the configuration, and what Parley adds.

A target that rejects one of them is misconfigured, because the caller cannot change it.
"""

from collections.abc import Iterable

import orjson

from parley.core.errors import (
    AddedParameterRejected,
    ContentPolicy,
    ContextLengthExceeded,
    InvalidRequest,
    ParleyError,
    UnsupportedParameter,
    UpstreamRejected,
)
from parley.core.ports import UpstreamCall
from parley.core.ports.parameters import SAME_LIMIT, TargetParameters
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_EXTRA = "extra_body_json"


def as_misconfigured(call: UpstreamCall, error: ParleyError) -> ParleyError:
    """Replaces an error that blames the caller for an added parameter with AddedParameterRejected.

    An error about a parameter that the target renames gets the name that the caller has used. Errors about the length
    or the content of the conversation stay, whatever parameter the target names.
    """
    blames = isinstance(error, UpstreamRejected | UnsupportedParameter | InvalidRequest)
    if not blames or isinstance(error, ContextLengthExceeded | ContentPolicy) or not error.param:
        return error
    name = error.param.partition(".")[0].partition("[")[0]
    origin = _origin(call, name)
    if origin is not None:
        return AddedParameterRejected(call.request.model, origin, error)
    if call.parameters is not None and (own := call.parameters.caller_name(name)) != name:
        error.param = own + error.param.removeprefix(name)
    return error


def _origin(call: UpstreamCall, name: str) -> str | None:
    """Returns the origin of an added parameter as text for the log; None if the caller sent the parameter."""
    for default in call.defaults:
        if name in (default, SAME_LIMIT.get(default)):
            return f"`defaults.{default}`"
        if default == _EXTRA and name in ("extra_body", *_keys(call.request.extra_body_json)):
            return f"`defaults.{default}`"
    if call.parameters is not None and (found := _of_target(call, call.parameters, name)):
        return found
    if name == "stream_options" and not call.request.HasField("stream_options"):
        return "`stream_options`, which Parley adds to streams,"
    return None


def _of_target(call: UpstreamCall, parameters: TargetParameters, name: str) -> str | None:
    """Returns the origin of a parameter that the target sets; None if it sets none with this name."""
    if name in parameters.set:
        return f"`set.{name}` of the target"
    names = {parameters.caller_name(name), name, SAME_LIMIT.get(name, name)}
    if name in parameters.default and not any(_is_sent(call.request, one) for one in names):
        return f"`default.{name}` of the target"
    return None


def _is_sent(request: CreateChatCompletionRequest, name: str) -> bool:
    """Returns whether a request has a parameter, as a field or in `extra_body`."""
    if name in request.extra_body.fields or name in _keys(request.extra_body_json):
        return True
    return any(field.name == name for field, _ in request.ListFields())


def _keys(text: str) -> Iterable[str]:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ()
    return data.keys() if isinstance(data, dict) else ()
