"""The targets of a call: retries, fallbacks, deadlines, slots and costs."""

import asyncio

import pytest

from parley.core.errors import (
    DeadlineExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.messages.text_completion import as_message
from parley.v1.message_pb2 import Usage
from tests.rpc.scripted import completion
from tests.unit.routing.execution.stack import Stack, attempts


async def test_the_next_target_answers(stack: Stack) -> None:
    """If all targets of the model fail, its fallback answers; `model_id` is the model that answers."""
    execution = stack.answers(a=UpstreamTimeout("slow")).run()
    assert "Hello" == as_message(await execution.complete()).choices[0].message.content.string_value
    assert "m" == execution.model_id
    execution = stack.answers(b=UpstreamTimeout("slow")).run()
    await execution.complete()
    assert "spare" == execution.model_id
    assert [("a", "first", "failed", "UPSTREAM_TIMEOUT"), ("b", "fallback", "failed", "UPSTREAM_TIMEOUT")] == attempts(
        execution
    )[:2]
    assert ("c", "fallback", "completed", "") == attempts(execution)[2]


async def test_a_fallback_is_called_with_its_own_name_and_defaults(stack: Stack) -> None:
    """The instructions are those of the requested model if the fallback has none; errors name that model."""
    stack.answers(a=UpstreamTimeout("slow"), b=UpstreamTimeout("slow"))
    await stack.run().complete()
    (call,) = stack.backends["c"].calls
    assert ("spare", "m", True, 0) == (
        call.model,
        call.request.model,
        call.request.HasField("temperature"),
        call.request.temperature,
    )
    assert ["Be kind."] == [message.content.string_value for message in call.request.messages]
    assert not stack.backends["a"].calls[0].request.HasField("temperature")


async def test_a_temporary_failure_is_retried(stack: Stack) -> None:
    """After a temporary failure the same target is retried with a delay."""
    answers = [UpstreamUnavailable("down", cause="reset"), completion("back")]
    execution = stack.answers(a=lambda _: answers.pop(0)).run("alone")
    assert "back" == as_message(await execution.complete()).choices[0].message.content.string_value
    assert [("a", "first", "failed", "UPSTREAM_UNAVAILABLE"), ("a", "retry", "completed", "")] == attempts(execution)
    assert ["reset", None] == [one.error.cause if one.error else None for one in execution.attempts]
    assert 100 < execution.receipt().attempts[1].started_ms < 2000


async def test_credentials_that_every_target_rejects_are_a_misconfiguration(stack: Stack) -> None:
    """Each target that rejects the credentials is tried once."""
    rejected = UpstreamMisconfigured("not available")
    with pytest.raises(UpstreamMisconfigured):
        await stack.answers(a=rejected, b=rejected, c=rejected).run().complete()
    assert "abc" == stack.called()


async def test_a_target_that_does_not_support_a_parameter_is_skipped(stack: Stack) -> None:
    """If no target supports it, the error names the parameter."""
    unable = UnsupportedParameter("`audio` is not supported", param="audio")
    await stack.answers(a=unable).run().complete()
    assert "ab" == stack.called()
    with pytest.raises(UnsupportedParameter):
        await stack.answers(b=unable, c=unable).run().complete()


async def test_an_unsupported_parameter_is_temporary_while_targets_are_unhealthy(stack: Stack) -> None:
    """The error allows a retry if one target does not support the parameter and the others are unhealthy."""
    stack.answers(a=UnsupportedParameter("`audio` is not supported", param="audio"))
    for target in stack.router.targets:
        target.healthy = target.backend_name == "a"
    with pytest.raises(UpstreamUnavailable) as reported:
        await stack.run().complete()
    assert 1 == reported.value.retry_after


async def test_no_target_is_called_past_the_deadline(stack: Stack) -> None:
    """The caller's deadline ends the call, whichever candidates are left."""
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await stack.run(deadline=now - 1).complete()
    assert not stack.called()


async def test_slots_are_bounded(stack: Stack) -> None:
    """One call runs and one waits for a slot, for at most `connect`; other calls are rejected as rate limited."""
    gate = asyncio.Event()
    stack.answers(a=lambda _: gate)
    first = asyncio.ensure_future(stack.run("narrow").complete())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(stack.run("narrow").complete())
    await asyncio.sleep(0)
    with pytest.raises(ParleyError, match="too many requests") as third:
        await stack.run("narrow").complete()
    assert 1 == third.value.retry_after
    with pytest.raises(ParleyError, match="too many requests"):
        await second
    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await stack.run("narrow", deadline=now + 0.01).complete()
    gate.set()
    await first
    await stack.run("narrow").complete()
    assert 2 == len(stack.backends["a"].calls)


async def test_a_receipt_shows_the_cost(stack: Stack) -> None:
    """The cost follows the price table: cached tokens have their own price; without a price there is no cost."""
    answer = completion("Hello")
    answer.usage.CopyFrom(Usage(prompt_tokens=1000, completion_tokens=10, total_tokens=1010))
    answer.usage.prompt_tokens_details.cached_tokens = 400
    execution = stack.answers(a=answer).run("alone")
    await execution.complete()
    receipt = execution.receipt()
    assert (600 * 10 + 400 * 1 + 10 * 100) / 1e6 == pytest.approx(receipt.cost)
    assert ("alone", "a", "one", receipt.cost) == (
        receipt.attempts[0].model,
        receipt.attempts[0].backend,
        receipt.attempts[0].target_model,
        receipt.attempts[0].cost,
    )
    execution = stack.answers(a=UpstreamTimeout("slow")).run("m")
    await execution.complete()
    assert not execution.receipt().HasField("cost")
