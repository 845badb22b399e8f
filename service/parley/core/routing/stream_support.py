"""Decides which non-streaming answers may be requested as streams, and recognizes targets that cannot stream."""

import re

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_STREAM = re.compile(r"\bstream", re.IGNORECASE)
_UNABLE = re.compile(r"HTTP 501|unsupported|disabled|(?:no[tr]?|n't) (?:support|implement|enabl|allow)", re.IGNORECASE)


def may_be_streamed(request: CreateChatCompletionRequest) -> bool:
    """Returns whether a stream can carry the same answer as a request without streaming.

    It cannot carry audio: OpenAI streams audio only as `pcm16`, in parts that are not a file.
    """
    return not request.HasField("audio") and "audio" not in request.modalities


def cannot_stream(error: ParleyError) -> bool:
    """Returns whether a target rejects streaming and may answer without it.

    OpenAI rejects accounts that are not verified (`param: "stream"`), Groq some formats, other backends some models or
    endpoints; servers without `stream_options` reject that field. All of these errors contain the word "stream".
    """
    if isinstance(error, ContentPolicy | ContextLengthExceeded | UpstreamUnreadable):
        return False
    detail = error.detail if isinstance(error, UpstreamError) else None
    text = f"{error.param} {error.message} {error.cause} {detail}"
    if isinstance(error, UpstreamRejected | UpstreamMisconfigured | UnsupportedParameter):
        return bool(_STREAM.search(text))
    unable = isinstance(error, UpstreamUnavailable | UpstreamUnrecognized)
    return unable and bool(_STREAM.search(text) and _UNABLE.search(text))
