"""Parameters that Parley adds to a request, and that a target rejects."""

import pytest

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    InvalidRequest,
    ParleyError,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamRejected,
)
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.unit.routing.execution.stack import Stack, attempts, read_text

_ABOUT_DEFAULTS = [
    UpstreamRejected("`temperature` must be at most 1", param="temperature", cause="HTTP 400: at most 1"),
    UpstreamRejected("use it", param="max_completion_tokens"),  # another name of the limit that is set
    UnsupportedParameter("`temperature` is not supported", param="temperature"),
]


@pytest.mark.parametrize("error", _ABOUT_DEFAULTS, ids=lambda error: f"{type(error).__name__} {error.param}")
async def test_a_rejected_default_is_a_misconfiguration(stack: Stack, error: ParleyError) -> None:
    """After a rejected default the next target is tried; the final error is a server error, and the log has it."""
    execution = stack.answers(a=error).run("preset")
    await execution.complete()
    assert "ab" == stack.called()
    assert [("a", "first", "failed", "UPSTREAM_UNAVAILABLE"), ("b", "fallback", "completed", "")] == attempts(execution)

    execution = stack.run("only")
    with pytest.raises(UpstreamMisconfigured, match="not available") as raised:
        await execution.complete()
    assert raised.value.param is None
    [attempt] = execution.attempts
    assert attempt.error is not None
    cause = attempt.error.cause
    assert cause is not None
    assert f"`defaults.{'temperature' if error.param == 'temperature' else 'max_tokens'}`" in cause
    assert (error.message in cause) != error.is_quoted
    assert (error.cause or "") in cause


@pytest.mark.parametrize("error", _ABOUT_DEFAULTS, ids=lambda error: f"{type(error).__name__} {error.param}")
async def test_a_rejected_parameter_of_the_caller_is_an_error_of_the_caller(stack: Stack, error: ParleyError) -> None:
    """A default that the request overrides is not an added parameter."""
    upstream = CreateChatCompletionRequest(temperature=1.6, max_completion_tokens=9)
    with pytest.raises(type(error)) as raised:
        await stack.answers(a=error).run("only", upstream).complete()
    assert error.param == raised.value.param


@pytest.mark.parametrize(
    "error", [ContextLengthExceeded("too long", param="max_tokens"), ContentPolicy("no", param="temperature")]
)
async def test_an_error_about_the_conversation_stays_whatever_it_names(stack: Stack, error: ParleyError) -> None:
    """A default token limit does not make a conversation shorter."""
    with pytest.raises(type(error)):
        await stack.answers(a=error).run("only").complete()


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRejected("no", param="top_k"),
        InvalidRequest("`extra_body.n` repeats a field of the request", param="extra_body.n"),
    ],
)
async def test_a_default_in_extra_body_json_is_an_added_parameter(stack: Stack, error: ParleyError) -> None:
    """Each key of the default counts, unless the request has its own `extra_body_json`."""
    with pytest.raises(UpstreamMisconfigured):
        await stack.answers(a=error).run("extra").complete()
    with pytest.raises(type(error)):
        await stack.run("extra", CreateChatCompletionRequest(extra_body_json='{"top_k": 1}')).complete()


async def test_a_rejected_stream_options_is_a_misconfiguration(stack: Stack) -> None:
    """`stream_options` is sent with every stream, whether or not the caller has set it."""
    error = UpstreamRejected("unknown parameter", param="stream_options")
    with pytest.raises(UpstreamMisconfigured):
        await read_text(stack.answers(a=error).run("alone"))
    upstream = CreateChatCompletionRequest()
    upstream.stream_options.include_usage = True
    with pytest.raises(UpstreamRejected):
        await read_text(stack.run("alone", upstream))
