"""Parameters that a request to a target has and the caller has not sent: a model's `defaults`, and what Parley adds.

A target that refuses one of them is misconfigured: the caller cannot change it.
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
"""The two names of one limit: a request that has either needs no default for the other."""

_EXTRA = "extra_body_json"


def as_misconfigured(call: UpstreamCall, error: ParleyError) -> ParleyError:
    """Returns the error of a target; where it blames the caller for an added parameter, one that does not.

    What is too long or not allowed is the conversation, whatever parameter a target names.
    """
    blames = isinstance(error, UpstreamRejected | UnsupportedParameter | InvalidRequest)
    if not blames or isinstance(error, ContextLengthExceeded | ContentPolicy) or not error.param:
        return error
    name = error.param.partition(".")[0].partition("[")[0]
    origin = _origin(call, name)
    return error if origin is None else AddedParameterRejected(call.request.model, origin, error)


def _origin(call: UpstreamCall, name: str) -> str | None:
    """Returns where a parameter comes from, in words for the log; None where it is the caller's."""
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
