"""Continuation of a broken stream at the next target."""

import pytest

from parley.core.errors import (
    ContentPolicy,
    StreamBroken,
    UpstreamRejected,
)
from parley.core.messages.text_completion import as_message
from parley.core.ports import RequestShape, UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Delta, Usage
from tests.rpc.scripted import USAGE, chunks
from tests.unit.routing.execution.stack import Stack, attempts, broken_stream, read_text
from tests.unit.routing.routes import ANYONE


async def test_a_broken_stream_continues_at_the_next_target(stack: Stack) -> None:
    """The next target continues from the delivered text, and the usage is the sum of both."""
    stack.answers(a=broken_stream("The capital", " is"), b=chunks(" Paris", "."))
    execution = stack.run()
    text, answer = await read_text(execution)
    assert "The capital is Paris." == text
    call = stack.backends["b"].calls[0]
    assert (True, "assistant", "The capital is") == (
        call.has_prefill,
        call.request.messages[-1].role,
        call.request.messages[-1].content.string_value,
    )
    assert [("a", "first", "failed", "STREAM_BROKEN"), ("b", "continuation", "completed", "")] == attempts(execution)
    first, second = execution.receipt().attempts
    assert (True, 4, False) == (first.estimated, first.usage.completion_tokens, second.estimated)
    assert (
        first.usage.total_tokens + USAGE.total_tokens
        == answer.usage.total_tokens
        == execution.receipt().usage.total_tokens
    )
    assert "stop" == answer.choices[0].finish_reason


async def test_a_target_that_cannot_continue_answers_from_the_beginning(stack: Stack) -> None:
    """A target that cannot continue is called once, one that rejects prefill twice; the delivered prefix is skipped."""
    stack.answers(a=broken_stream("The capital"), b=chunks("The cap", "ital is Paris."))
    stack.backends["b"].supports_prefill = False
    execution = stack.run()
    assert "The capital is Paris." == (await read_text(execution))[0]
    assert ["first", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]

    def refuse(call: UpstreamCall) -> object:
        return UpstreamRejected("no prefill") if call.has_prefill else chunks("The capital is Paris.")

    stack.backends["b"].supports_prefill = True
    execution = stack.answers(a=broken_stream("The capital"), b=refuse).run()
    assert "The capital is Paris." == (await read_text(execution))[0]
    assert [("b", "continuation", "failed"), ("b", "skip_prefix", "completed")] == [
        one[:3] for one in attempts(execution)[1:]
    ]


async def test_a_continuation_of_a_final_message_may_be_continued(stack: Stack) -> None:
    """A target that starts again repeats the delivered text; one that rejects the request ends the call."""
    request = CreateChatCompletionRequest(continue_final_message=True)
    request.messages.add(role="assistant").content.string_value = '{"a":'
    request.response_format.type = "json_object"
    stack.answers(a=broken_stream(" 1,"), b=chunks(" 1,", ' "b": 2}'))
    assert ' 1, "b": 2}' == (await read_text(stack.run(request=request)))[0]
    request.ClearField("response_format")
    execution = stack.answers(b=UpstreamRejected("no prefill"), c=UpstreamRejected("no prefill")).run(request=request)
    with pytest.raises(StreamBroken):
        await read_text(execution)
    assert ["first", "continuation", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]


async def test_an_answer_that_does_not_start_with_the_delivered_text_is_a_prefix_mismatch(stack: Stack) -> None:
    """The next target is tried; if none fits, the caller gets the error with which the stream first broke."""
    for backend in stack.backends.values():
        backend.supports_prefill = False
    execution = stack.answers(a=broken_stream("The capital"), b=chunks("A city"), c=chunks("The capital!")).run()
    assert "The capital!" == (await read_text(execution))[0]
    assert ("b", "skip_prefix", "prefix_mismatch", "") == attempts(execution)[1]
    execution = stack.answers(c=chunks("A town")).run()
    with pytest.raises(StreamBroken, match="m broke off"):
        await read_text(execution)
    assert "prefix_mismatch" == execution.receipt().attempts[2].outcome


async def test_a_restarted_answer_that_ends_within_the_delivered_text_is_a_prefix_mismatch(stack: Stack) -> None:
    """The answer is not complete without the delivered text, also if the target sends no finish reason."""
    for backend in stack.backends.values():
        backend.supports_prefill = False
    stack.answers(a=broken_stream("The capital"), b=chunks("The")[:-1], c=chunks("The capital."))
    execution = stack.run()
    assert "The capital." == (await read_text(execution))[0]
    assert ("b", "skip_prefix", "prefix_mismatch", "") == attempts(execution)[1]


async def test_only_reasoning_was_delivered_before_a_stream_broke(stack: Stack) -> None:
    """There is no text to continue from: the next target answers from the beginning, and its reasoning is removed."""
    thought = ChatCompletionChunk()
    thought.choices.add(index=0, delta=Delta(reasoning_content="Hm"))
    stack.answers(a=[thought, StreamBroken("m broke off")], b=[thought, *chunks("Paris.")])
    execution = stack.run()
    text, answer = await read_text(execution)
    assert ("Paris.", "Hm") == (text, answer.choices[0].message.reasoning_content)
    assert ["first", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]


async def test_rejected_content_ends_a_continued_stream(stack: Stack) -> None:
    """A rejection within the stream is final, whichever attempt it ends; no further target is called."""
    stack.answers(a=broken_stream("The"), b=[*chunks(" bad")[:-1], ContentPolicy("content rejected")])
    with pytest.raises(ContentPolicy):
        await read_text(stack.run())
    assert "ab" == stack.called()


async def test_tool_calls_are_not_continued(stack: Stack) -> None:
    """A stream that breaks within a tool call fails, and no other target is called."""
    call = ChatCompletionChunk()
    call.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="call_1")
    with pytest.raises(StreamBroken):
        await read_text(stack.answers(a=[call, StreamBroken("m broke off")]).run())
    assert "a" == stack.called()


async def test_a_restarted_non_streaming_answer_may_be_continued(stack: Stack) -> None:
    """A restarted answer is continued from its new beginning, without the output of the first target."""
    call = ChatCompletionChunk()
    call.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="call_1")
    stack.answers(a=[call, StreamBroken("m broke off")], b=broken_stream("The capital"), c=chunks(" is Paris."))
    execution = stack.run()
    answer = as_message(await execution.complete())
    assert "The capital is Paris." == answer.choices[0].message.content.string_value
    assert not answer.choices[0].message.tool_calls
    assert "The capital" == stack.backends["c"].calls[0].request.messages[-1].content.string_value
    assert ["first", "fallback", "continuation"] == [one.kind for one in execution.receipt().attempts]


async def test_a_continuation_sends_the_prefill_beside_plain_texts(stack: Stack) -> None:
    """The request of a continuation has the delivered text, so that it is not sent from the texts of the first one."""
    stack.answers(a=broken_stream("The capital"), b=chunks(" is Paris."))
    request = CreateChatCompletionRequest(model="hedged")
    request.messages.add(role="user").content.string_value = "Where?"
    model = stack.router.model(ANYONE, "hedged")
    shape = RequestShape(frozenset(), [("user", "Where?")])
    execution = stack.router.new_execution(
        model, request, request.messages, session_id=None, deadline=None, shape=shape
    )
    assert "The capital is Paris." == (await read_text(execution))[0]
    [first], [second] = stack.backends["a"].calls, stack.backends["b"].calls
    assert (shape, None) == (first.shape, second.shape)


async def test_a_model_may_forbid_continuation(stack: Stack) -> None:
    """With `on_stream_failure: fail` no other target is called."""
    with pytest.raises(StreamBroken):
        await read_text(stack.answers(a=broken_stream("The")).run("strict"))
    assert "a" == stack.called()


async def test_implausible_token_counts_break_nothing(stack: Stack) -> None:
    """The sum of usages saturates if the count of a backend leaves no room."""
    absurd = ChatCompletionChunk(usage=Usage(prompt_tokens=2**32 - 1, completion_tokens=1, total_tokens=2**32 - 1))
    execution = stack.answers(a=[absurd, *broken_stream("One")], b=chunks(" two")).run()
    text, answer = await read_text(execution)
    assert ("One two", 2**32 - 1) == (text, answer.usage.total_tokens)
    assert 2**32 - 1 == execution.receipt().usage.total_tokens


async def test_a_stream_that_breaks_after_its_last_choice_is_complete(stack: Stack) -> None:
    """A stream is complete if all choices have finished; missing usage is estimated."""
    last = chunks("Hello")[-1]
    last.ClearField("usage")
    execution = stack.answers(a=[*chunks("Hello")[:-1], last, StreamBroken("m broke off")]).run()
    text, answer = await read_text(execution)
    assert ("Hello", 2, "a") == (text, answer.usage.completion_tokens, stack.called())


async def test_a_continuation_may_break_too(stack: Stack) -> None:
    """The next target continues from all of the delivered text."""
    stack.answers(a=broken_stream("One"), b=broken_stream(" two"), c=chunks(" three"))
    execution = stack.run()
    assert "One two three" == (await read_text(execution))[0]
    assert "One two" == stack.backends["c"].calls[0].request.messages[-1].content.string_value
    assert "m" == execution.model_id


async def test_a_stream_that_breaks_before_its_first_token_falls_back(stack: Stack) -> None:
    """The role alone is not a token: it is not delivered, and the next attempt is no continuation."""
    role = ChatCompletionChunk()
    role.choices.add(index=0, delta=Delta(role="assistant"))
    execution = stack.answers(a=[role, StreamBroken("m broke off")], b=chunks("Hello")).run()
    assert "Hello" == (await read_text(execution))[0]
    assert not stack.backends["b"].calls[0].has_prefill
