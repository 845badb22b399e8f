"""Tests of the execution of a call, whole and streamed, with backends scripted at their port."""

import asyncio
from contextlib import aclosing

import pytest

from parley.config import parse
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.ports import Caller, UpstreamCall
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Delta, Usage
from tests.rpc.scripted import USAGE, ScriptedBackend, chunks, completion

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  c: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - id: m
    targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}]
    fallbacks: [spare]
    instructions: "Be kind."
  - {id: spare, targets: [{backend: c}], defaults: {temperature: 0}}
  - {id: alone, targets: [{backend: a, model: one}]}
  - {id: hedged, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], hedge: 20ms}
  - {id: hasty, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], fallbacks: [spare], hedge: 20ms}
  - {id: strict, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}], on_stream_failure: fail}
  - {id: only, targets: [{backend: a}], defaults: &set {temperature: 1.5, max_tokens: 10}}
  - {id: extra, targets: [{backend: a}], defaults: {extra_body_json: '{"top_k": 0, "n": 2}'}}
  - {id: preset, targets: [{backend: a, weight: 1000000000}, {backend: b}], defaults: *set}
  - {id: narrow, targets: [{backend: a, model: two, max_concurrent: 1, max_queued: 1}], timeouts: {connect: 50ms}}
prices:
  a/one: {prompt: 10, completion: 100, cached_prompt: 1}
  c: {prompt: 1, completion: 2}
"""
ANYONE = Caller("default", "key_1")


class Stack:
    """A router with three scripted backends: `a` has nearly all the weight, then `b`, then the fallback's `c`."""

    def __init__(self) -> None:
        self.backends = {name: ScriptedBackend() for name in "abc"}
        self.router = Router(parse(CONFIG, "f"), self.backends)

    def answers(self, **answers: object) -> "Stack":
        """Scripts the answers of backends: a completion, chunks, an exception, or a function of the call."""
        for name, answer in answers.items():
            self.backends[name].answer = answer if callable(answer) else lambda _, answer=answer: answer  # type: ignore[misc]
        return self

    def run(
        self, model: str = "m", request: CreateChatCompletionRequest | None = None, deadline: float | None = None
    ) -> Execution:
        """Prepares the execution of a call."""
        upstream = request or CreateChatCompletionRequest()
        found = self.router.model(ANYONE, model)
        return self.router.new_execution(found, upstream, upstream.messages, session_id=None, deadline=deadline)

    def called(self) -> str:
        """Returns the called backends, sorted: `aab`."""
        return "".join(name * len(self.backends[name].calls) for name in "abc")


@pytest.fixture
def stack() -> Stack:
    """The router and its backends."""
    return Stack()


def _broken(*texts: str) -> list[object]:
    """Returns a stream that breaks after these texts."""
    return [*chunks(*texts)[:-1], StreamBroken("m broke off", cause="cut")]


async def _text(execution: Execution) -> tuple[str, ChatCompletion]:
    """Reads a stream; returns its text, and the accumulated answer."""
    accumulator = CompletionAccumulator(ChatCompletion())
    text = ""
    async for chunk in execution.stream():
        text += "".join(choice.delta.content for choice in chunk.choices)
        accumulator.add(chunk)
    return text, accumulator.completion()


def _story(execution: Execution) -> list[tuple[str, str, str, str]]:
    return [(one.backend, one.kind, one.outcome, one.reason) for one in execution.receipt().attempts]


async def test_the_next_target_answers(stack: Stack) -> None:
    """If all targets of the model fail, its fallback answers; `model_id` is the model that answers."""
    execution = stack.answers(a=UpstreamTimeout("slow")).run()
    assert "Hello" == (await execution.complete()).choices[0].message.content.string_value
    assert "m" == execution.model_id
    execution = stack.answers(b=UpstreamTimeout("slow")).run()
    await execution.complete()
    assert "spare" == execution.model_id
    assert [("a", "first", "failed", "UPSTREAM_TIMEOUT"), ("b", "fallback", "failed", "UPSTREAM_TIMEOUT")] == _story(
        execution
    )[:2]
    assert ("c", "fallback", "completed", "") == _story(execution)[2]


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
    """The same target is retried after a delay."""
    answers = [UpstreamUnavailable("down", cause="reset"), completion("back")]
    execution = stack.answers(a=lambda _: answers.pop(0)).run("alone")
    assert "back" == (await execution.complete()).choices[0].message.content.string_value
    assert [("a", "first", "failed", "UPSTREAM_UNAVAILABLE"), ("a", "retry", "completed", "")] == _story(execution)
    assert ["reset", None] == execution.failure_causes()
    assert 100 < execution.receipt().attempts[1].started_ms < 2000


async def test_credentials_that_every_target_rejects_are_a_misconfiguration(stack: Stack) -> None:
    """Each target is tried once."""
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


async def test_a_broken_stream_continues_at_the_next_target(stack: Stack) -> None:
    """The next target continues from the delivered text, and the usage is the sum of both."""
    stack.answers(a=_broken("The capital", " is"), b=chunks(" Paris", "."))
    execution = stack.run()
    text, answer = await _text(execution)
    assert "The capital is Paris." == text
    call = stack.backends["b"].calls[0]
    assert (True, "assistant", "The capital is") == (
        call.has_prefill,
        call.request.messages[-1].role,
        call.request.messages[-1].content.string_value,
    )
    assert [("a", "first", "failed", "STREAM_BROKEN"), ("b", "continuation", "completed", "")] == _story(execution)
    first, second = execution.receipt().attempts
    assert (True, 4, False) == (first.estimated, first.usage.completion_tokens, second.estimated)
    assert (
        first.usage.total_tokens + USAGE.total_tokens
        == answer.usage.total_tokens
        == execution.receipt().usage.total_tokens
    )
    assert "stop" == answer.choices[0].finish_reason


async def test_a_target_that_cannot_continue_answers_from_the_beginning(stack: Stack) -> None:
    """The prefix is skipped. A target that cannot continue is called once, one that rejects prefill twice."""
    stack.answers(a=_broken("The capital"), b=chunks("The cap", "ital is Paris."))
    stack.backends["b"].supports_prefill = False
    execution = stack.run()
    assert "The capital is Paris." == (await _text(execution))[0]
    assert ["first", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]

    def refuse(call: UpstreamCall) -> object:
        return UpstreamRejected("no prefill") if call.has_prefill else chunks("The capital is Paris.")

    stack.backends["b"].supports_prefill = True
    execution = stack.answers(a=_broken("The capital"), b=refuse).run()
    assert "The capital is Paris." == (await _text(execution))[0]
    assert [("b", "continuation", "failed"), ("b", "skip_prefix", "completed")] == [
        one[:3] for one in _story(execution)[1:]
    ]


async def test_a_continuation_of_a_final_message_may_be_continued(stack: Stack) -> None:
    """A target that starts again repeats the delivered text; one that rejects the request ends the call."""
    request = CreateChatCompletionRequest(continue_final_message=True)
    request.messages.add(role="assistant").content.string_value = '{"a":'
    request.response_format.type = "json_object"
    stack.answers(a=_broken(" 1,"), b=chunks(" 1,", ' "b": 2}'))
    assert ' 1, "b": 2}' == (await _text(stack.run(request=request)))[0]
    request.ClearField("response_format")
    execution = stack.answers(b=UpstreamRejected("no prefill"), c=UpstreamRejected("no prefill")).run(request=request)
    with pytest.raises(StreamBroken):
        await _text(execution)
    assert ["first", "continuation", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]


async def test_an_answer_that_does_not_start_with_the_delivered_text_is_a_prefix_mismatch(stack: Stack) -> None:
    """The next target is tried; if none fits, the caller gets the error with which the stream first broke."""
    for backend in stack.backends.values():
        backend.supports_prefill = False
    execution = stack.answers(a=_broken("The capital"), b=chunks("A city"), c=chunks("The capital!")).run()
    assert "The capital!" == (await _text(execution))[0]
    assert ("b", "skip_prefix", "prefix_mismatch", "") == _story(execution)[1]
    execution = stack.answers(c=chunks("A town")).run()
    with pytest.raises(StreamBroken, match="m broke off"):
        await _text(execution)
    assert "prefix_mismatch" == execution.receipt().attempts[2].outcome


async def test_a_restarted_answer_that_ends_within_the_delivered_text_is_a_prefix_mismatch(stack: Stack) -> None:
    """The answer is not complete without the delivered text, also if the target sends no finish reason."""
    for backend in stack.backends.values():
        backend.supports_prefill = False
    stack.answers(a=_broken("The capital"), b=chunks("The")[:-1], c=chunks("The capital."))
    execution = stack.run()
    assert "The capital." == (await _text(execution))[0]
    assert ("b", "skip_prefix", "prefix_mismatch", "") == _story(execution)[1]


async def test_only_reasoning_was_delivered_before_a_stream_broke(stack: Stack) -> None:
    """There is no text to continue from: the next target answers from the beginning, and its reasoning is removed."""
    thought = ChatCompletionChunk()
    thought.choices.add(index=0, delta=Delta(reasoning_content="Hm"))
    stack.answers(a=[thought, StreamBroken("m broke off")], b=[thought, *chunks("Paris.")])
    execution = stack.run()
    text, answer = await _text(execution)
    assert ("Paris.", "Hm") == (text, answer.choices[0].message.reasoning_content)
    assert ["first", "skip_prefix"] == [one.kind for one in execution.receipt().attempts]


async def test_rejected_content_ends_a_continued_stream(stack: Stack) -> None:
    """A rejection within the stream is final, whichever attempt it ends; no further target is called."""
    stack.answers(a=_broken("The"), b=[*chunks(" bad")[:-1], ContentPolicy("content rejected")])
    with pytest.raises(ContentPolicy):
        await _text(stack.run())
    assert "ab" == stack.called()


async def test_tool_calls_are_not_continued(stack: Stack) -> None:
    """A stream that breaks within a tool call fails, and no other target is called."""
    call = ChatCompletionChunk()
    call.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="call_1")
    with pytest.raises(StreamBroken):
        await _text(stack.answers(a=[call, StreamBroken("m broke off")]).run())
    assert "a" == stack.called()


async def test_a_restarted_whole_answer_may_be_continued(stack: Stack) -> None:
    """It continues from its new beginning, without the output of the first target."""
    call = ChatCompletionChunk()
    call.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="call_1")
    stack.answers(a=[call, StreamBroken("m broke off")], b=_broken("The capital"), c=chunks(" is Paris."))
    execution = stack.run()
    answer = await execution.complete()
    assert "The capital is Paris." == answer.choices[0].message.content.string_value
    assert not answer.choices[0].message.tool_calls
    assert "The capital" == stack.backends["c"].calls[0].request.messages[-1].content.string_value
    assert ["first", "fallback", "continuation"] == [one.kind for one in execution.receipt().attempts]


async def test_a_model_may_forbid_continuation(stack: Stack) -> None:
    """With `on_stream_failure: fail` no other target is called."""
    with pytest.raises(StreamBroken):
        await _text(stack.answers(a=_broken("The")).run("strict"))
    assert "a" == stack.called()


async def test_implausible_token_counts_break_nothing(stack: Stack) -> None:
    """The sum of usages saturates if the count of a backend leaves no room."""
    absurd = ChatCompletionChunk(usage=Usage(prompt_tokens=2**32 - 1, completion_tokens=1, total_tokens=2**32 - 1))
    execution = stack.answers(a=[absurd, *_broken("One")], b=chunks(" two")).run()
    text, answer = await _text(execution)
    assert ("One two", 2**32 - 1) == (text, answer.usage.total_tokens)
    assert 2**32 - 1 == execution.receipt().usage.total_tokens


async def test_a_stream_that_breaks_after_its_last_choice_is_complete(stack: Stack) -> None:
    """All choices have finished; only the usage is missing, and is estimated."""
    last = chunks("Hello")[-1]
    last.ClearField("usage")
    execution = stack.answers(a=[*chunks("Hello")[:-1], last, StreamBroken("m broke off")]).run()
    text, answer = await _text(execution)
    assert ("Hello", 2, "a") == (text, answer.usage.completion_tokens, stack.called())


async def test_a_continuation_may_break_too(stack: Stack) -> None:
    """The next target continues from all of the delivered text."""
    stack.answers(a=_broken("One"), b=_broken(" two"), c=chunks(" three"))
    execution = stack.run()
    assert "One two three" == (await _text(execution))[0]
    assert "One two" == stack.backends["c"].calls[0].request.messages[-1].content.string_value
    assert "m" == execution.model_id


async def test_a_stream_that_breaks_before_its_first_token_falls_back(stack: Stack) -> None:
    """The role alone is not a token: it is not delivered, and the next attempt is not a continuation."""
    role = ChatCompletionChunk()
    role.choices.add(index=0, delta=Delta(role="assistant"))
    execution = stack.answers(a=[role, StreamBroken("m broke off")], b=chunks("Hello")).run()
    assert "Hello" == (await _text(execution))[0]
    assert not stack.backends["b"].calls[0].has_prefill


async def test_a_rejected_request_does_not_wait_for_the_hedge(stack: Stack) -> None:
    """A rejection by the hedge does not end the call, because the first target may still answer."""
    upstream, never = asyncio.Event(), asyncio.Event()

    def rival(_: UpstreamCall) -> object:
        upstream.set()
        return [never]

    stack.answers(a=lambda _: [upstream, UpstreamRejected("no such thing")], b=rival)
    with pytest.raises(UpstreamRejected):
        await asyncio.wait_for(_text(stack.run("hedged")), 10)
    assert stack.backends["b"].closed.is_set()
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *chunks("late")], b=UpstreamRejected("not here")).run("hedged")
    assert "late" == (await _text(execution))[0]


async def test_a_late_first_token_is_hedged(stack: Stack) -> None:
    """The faster target answers and the other stream is closed; a fast first token is not hedged."""
    never = asyncio.Event()
    execution = stack.answers(a=lambda _: [never], b=chunks("Hello")).run("hedged")
    assert "Hello" == (await _text(execution))[0]
    assert [("a", "first", "cancelled", ""), ("b", "hedge", "completed", "")] == _story(execution)
    assert stack.backends["a"].closed.is_set()
    execution = stack.answers(a=chunks("Hi")).run("hedged")
    assert "Hi" == (await _text(execution))[0]
    assert 1 == len(execution.receipt().attempts)


async def test_a_late_continuation_is_hedged(stack: Stack) -> None:
    """A silent target does not delay the rest of the answer."""
    stack.answers(a=_broken("The capital"), b=lambda _: [asyncio.Event()], c=chunks(" is Paris."))
    execution = stack.run("hasty")
    assert "The capital is Paris." == (await asyncio.wait_for(_text(execution), 10))[0]
    assert [("b", "continuation", "cancelled"), ("c", "continuation", "completed")] == [
        one[:3] for one in _story(execution)[1:]
    ]
    assert stack.backends["b"].closed.is_set()


async def test_a_failed_hedge_leaves_the_first_target_to_answer(stack: Stack) -> None:
    """If both fail, the caller gets the error of one of them."""
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *chunks("late")], b=UpstreamTimeout("b")).run("hedged")
    assert "late" == (await _text(execution))[0]
    gate.clear()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, UpstreamTimeout("a")]).run("hedged")
    with pytest.raises(UpstreamTimeout, match=r"^[ab]$"):
        await _text(execution)


async def test_the_loser_of_a_race_may_continue_a_broken_stream(stack: Stack) -> None:
    """Losing the race is not a failure."""
    slow = [asyncio.Event()]

    def second(_: UpstreamCall) -> object:
        return [slow.pop()] if slow else chunks(" Paris.")

    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, gate.set)
    execution = stack.answers(a=lambda _: [gate, *_broken("It is")], b=second).run("hedged")
    assert "It is Paris." == (await _text(execution))[0]
    story = [("a", "first", "failed"), ("b", "hedge", "cancelled"), ("b", "continuation", "completed")]
    assert story == [one[:3] for one in _story(execution)]


async def test_a_cancelled_call_closes_every_stream(stack: Stack) -> None:
    """The streams of hedges are closed too; the delivered output is estimated, and no attempt has failed."""
    never = asyncio.Event()
    stack.answers(a=lambda _: [never], b=lambda _: [never])
    execution = stack.run("hedged")
    task = asyncio.ensure_future(_text(execution))
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


_OF_DEFAULTS = [
    UpstreamRejected("`temperature` must be at most 1", param="temperature", cause="HTTP 400: at most 1"),
    UpstreamRejected("use it", param="max_completion_tokens"),  # another name of the limit that is set
    UnsupportedParameter("`temperature` is not supported", param="temperature"),
]


@pytest.mark.parametrize("error", _OF_DEFAULTS, ids=lambda error: f"{type(error).__name__} {error.param}")
async def test_a_rejected_default_is_a_misconfiguration(stack: Stack, error: ParleyError) -> None:
    """The next target is tried; without one the caller gets a server error, and the log has the rejected default."""
    execution = stack.answers(a=error).run("preset")
    await execution.complete()
    assert "ab" == stack.called()
    assert [("a", "first", "failed", "UPSTREAM_UNAVAILABLE"), ("b", "fallback", "completed", "")] == _story(execution)

    execution = stack.run("only")
    with pytest.raises(UpstreamMisconfigured, match="not available") as raised:
        await execution.complete()
    assert raised.value.param is None
    [cause] = execution.failure_causes()
    assert cause is not None
    assert f"`defaults.{'temperature' if error.param == 'temperature' else 'max_tokens'}`" in cause
    assert error.message in cause
    assert (error.cause or "") in cause


@pytest.mark.parametrize("error", _OF_DEFAULTS, ids=lambda error: f"{type(error).__name__} {error.param}")
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
    """Each key of the default counts, unless the request has an `extra_body_json` of its own."""
    with pytest.raises(UpstreamMisconfigured):
        await stack.answers(a=error).run("extra").complete()
    with pytest.raises(type(error)):
        await stack.run("extra", CreateChatCompletionRequest(extra_body_json='{"top_k": 1}')).complete()


async def test_a_rejected_stream_options_is_a_misconfiguration(stack: Stack) -> None:
    """`stream_options` is sent with every stream, whether or not the caller has set it."""
    error = UpstreamRejected("unknown parameter", param="stream_options")
    with pytest.raises(UpstreamMisconfigured):
        await _text(stack.answers(a=error).run("alone"))
    upstream = CreateChatCompletionRequest()
    upstream.stream_options.include_usage = True
    with pytest.raises(UpstreamRejected):
        await _text(stack.run("alone", upstream))
