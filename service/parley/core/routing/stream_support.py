"""Whole answers that are asked for as streams and joined: which requests may be, and which targets cannot stream."""

import re

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UnsupportedParameter,
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
    """Tells whether a stream can carry the answer as it would be whole.

    It cannot carry speech: OpenAI streams it in one format only (`pcm16`), and in pieces that are no file.
    """
    return not request.HasField("audio") and "audio" not in request.modalities


def cannot_stream(error: ParleyError) -> bool:
    """Tells whether a target refuses to stream, and might give the whole answer.

    OpenAI refuses accounts that are not verified (`param: "stream"`), Groq some formats, others models or endpoints;
    servers that do not know `stream_options` refuse that. What they have in common is the word.
    """
    if isinstance(error, ContentPolicy | ContextLengthExceeded | UpstreamUnreadable):
        return False
    text = f"{error.param} {error.message} {error.cause}"
    if isinstance(error, UpstreamRejected | UpstreamMisconfigured | UnsupportedParameter):
        return bool(_STREAM.search(text))
    unable = isinstance(error, UpstreamUnavailable | UpstreamUnrecognized)
    return unable and bool(_STREAM.search(text) and _UNABLE.search(text))
