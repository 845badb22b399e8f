"""Parameters of an upstream request that the caller did not send: a model's `defaults`, and what Parley adds.

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

SAME_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two names of one limit. A request that sets one gets no default for the other."""

_EXTRA = "extra_body_json"


def as_misconfigured(call: UpstreamCall, error: ParleyError) -> ParleyError:
    """Replaces an error that blames the caller for an added parameter with AddedParameterRejected.

    Errors about the length or the content of the conversation stay, whatever parameter the target names.
    """
    blames = isinstance(error, UpstreamRejected | UnsupportedParameter | InvalidRequest)
    if not blames or isinstance(error, ContextLengthExceeded | ContentPolicy) or not error.param:
        return error
    name = error.param.partition(".")[0].partition("[")[0]
    origin = _origin(call, name)
    return error if origin is None else AddedParameterRejected(call.request.model, origin, error)


def _origin(call: UpstreamCall, name: str) -> str | None:
    """Returns the origin of an added parameter as text for the log; None if the caller sent the parameter."""
    for default in call.defaults:
        if name in (default, SAME_LIMIT.get(default)):
            return f"`defaults.{default}`"
        if default == _EXTRA and name in ("extra_body", *_keys(call.request.extra_body_json)):
            return f"`defaults.{default}`"
    if name == "stream_options" and not call.request.HasField("stream_options"):
        return "`stream_options`, which Parley adds to streams,"
    return None


def _keys(text: str) -> Iterable[str]:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ()
    return data.keys() if isinstance(data, dict) else ()
