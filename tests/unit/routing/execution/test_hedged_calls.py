"""Hedged calls: a second target answers if the first token is late."""

import asyncio
from contextlib import aclosing

import pytest

from parley.core.errors import (
    UpstreamRejected,
    UpstreamTimeout,
)
from parley.core.ports import UpstreamCall
from tests.rpc.scripted import chunks
from tests.unit.routing.execution.stack import Stack, attempts, broken_stream, read_text


async def test_a_rejected_request_does_not_wait_for_the_hedge(stack: Stack) -> None:
    """A rejection by the hedge does not end the call, because the first target may still answer."""
    upstream, never = asyncio.Event(), asyncio.Event()

    def rival(_: UpstreamCall) -> object:
        upstream.set()
        return [never]

    stack.answers(a=lambda _: [upstream, UpstreamRejected("no such thing")], b=rival)
    with pytest.raises(UpstreamRejected):
        await asyncio.wait_for(read_text(stack.run("hedged")), 60)
    assert stack.backends["b"].closed.is_set()
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *chunks("late")], b=UpstreamRejected("not here")).run("hedged")
    assert "late" == (await read_text(execution))[0]


async def test_a_late_first_token_is_hedged(stack: Stack) -> None:
    """The faster target answers and the other stream is closed; a fast first token is not hedged."""
    never = asyncio.Event()
    execution = stack.answers(a=lambda _: [never], b=chunks("Hello")).run("hedged")
    assert "Hello" == (await read_text(execution))[0]
    assert [("a", "first", "cancelled", ""), ("b", "hedge", "completed", "")] == attempts(execution)
    assert stack.backends["a"].closed.is_set()
    execution = stack.answers(a=chunks("Hi")).run("hedged")
    assert "Hi" == (await read_text(execution))[0]
    assert 1 == len(execution.receipt().attempts)


async def test_a_late_continuation_is_hedged(stack: Stack) -> None:
    """A silent target does not delay the rest of the answer."""
    stack.answers(a=broken_stream("The capital"), b=lambda _: [asyncio.Event()], c=chunks(" is Paris."))
    execution = stack.run("hasty")
    assert "The capital is Paris." == (await asyncio.wait_for(read_text(execution), 60))[0]
    assert [("b", "continuation", "cancelled"), ("c", "continuation", "completed")] == [
        one[:3] for one in attempts(execution)[1:]
    ]
    assert stack.backends["b"].closed.is_set()


async def test_a_failed_hedge_leaves_the_first_target_to_answer(stack: Stack) -> None:
    """The first target answers after the hedge fails; if both fail, the caller gets one of the errors."""
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *chunks("late")], b=UpstreamTimeout("b")).run("hedged")
    assert "late" == (await read_text(execution))[0]
    gate.clear()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, UpstreamTimeout("a")]).run("hedged")
    with pytest.raises(UpstreamTimeout, match=r"^[ab]$"):
        await read_text(execution)


async def test_the_loser_of_a_race_may_continue_a_broken_stream(stack: Stack) -> None:
    """Losing the race is not a failure."""
    slow = [asyncio.Event()]

    def second(_: UpstreamCall) -> object:
        return [slow.pop()] if slow else chunks(" Paris.")

    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *broken_stream("It is")], b=second).run("hedged")
    assert "It is Paris." == (await read_text(execution))[0]
    story = [("a", "first", "failed"), ("b", "hedge", "cancelled"), ("b", "continuation", "completed")]
    assert story == [one[:3] for one in attempts(execution)]


async def test_a_cancelled_call_closes_every_stream(stack: Stack) -> None:
    """The streams of hedges are closed too; the delivered output is estimated, and no attempt is recorded as failed."""
    never = asyncio.Event()
    stack.answers(a=lambda _: [never], b=lambda _: [never])
    execution = stack.run("hedged")
    task = asyncio.ensure_future(read_text(execution))
    while len(stack.backends["b"].calls) < 1:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait({task})
    assert stack.backends["a"].closed.is_set()
    assert stack.backends["b"].closed.is_set()
    assert ["cancelled", "cancelled"] == [one.outcome for one in execution.receipt().attempts]

    execution = stack.answers(a=lambda _: [*chunks("Hello there")[:1], never]).run("alone")
    async with aclosing(execution.stream()) as stream:
        await anext(stream)
    (left,) = execution.receipt().attempts
    assert ("cancelled", True, 3) == (left.outcome, left.estimated, left.usage.completion_tokens)
