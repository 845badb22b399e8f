"""Rate limits over gRPC: headers, rejections and settlement."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from parley.core.errors import UpstreamUnavailable
from parley.core.ports import Charge
from parley.rpc.sse import KEEP_ALIVE
from parley.stores.sqlite import SqliteStore
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import ListModelsRequest
from tests.keys import create_key
from tests.rpc.calling import chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.limited import HI, KEY, OF_A_MESSAGE, Limited, rate_limit_headers, serving_limited
from tests.rpc.scripted import chunks, completion


@pytest.fixture
async def limited(tmp_path: Path, log_file: Path) -> AsyncIterator[Limited]:
    """The server."""
    async with serving_limited(tmp_path) as made:
        yield made


async def test_a_complete_answer_has_the_limits(limited: Limited) -> None:
    """The headers have the tighter limit of key and account, with the tokens that the call has reserved."""
    call = limited.chat.CreateChatCompletion(chat_request(max_tokens=99), metadata=limited.ada)
    await call
    assert {
        "limit-requests": "6",
        "remaining-requests": "5",
        "reset-requests": "10s",
        "limit-tokens": "500",
        "remaining-tokens": "400",
        "reset-tokens": "12s",
    } == rate_limit_headers(await call.initial_metadata())
    assert "x-chat-session-id" in dict(await call.initial_metadata())
    assert {} == rate_limit_headers(await call.trailing_metadata())


@pytest.mark.parametrize("method", ["StreamChatCompletion", "StreamChatCompletionEvents"])
async def test_a_stream_has_the_limits_before_its_first_chunk(limited: Limited, method: str) -> None:
    """The headers of a stream have the limits and the session."""
    limited.worker.backend.answer = lambda _: chunks("Hel", "lo")
    call = getattr(limited.chat, method)(chat_request(), metadata=limited.ada)
    headers = dict(await call.initial_metadata())
    assert ("5", "374") == (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"])
    assert "x-chat-session-id" in headers
    assert [one async for one in call]


async def test_a_comment_before_the_answer_sends_the_limits(tmp_path: Path, log_file: Path) -> None:
    """The first keep-alive comment of a silent stream sends the headers, with the session of the chunks."""
    gate = asyncio.Event()
    async with serving_limited(tmp_path, keep_alive_seconds=0.01) as limited:
        limited.worker.backend.answer = lambda _: [gate, *chunks("late")]
        bodies = aiter(call := limited.chat.StreamChatCompletionEvents(chat_request(), metadata=limited.ada))
        assert KEEP_ALIVE == (await anext(bodies)).data
        sent = await call.initial_metadata()
        assert "5" == rate_limit_headers(sent)["remaining-requests"]
        gate.set()
        answer = b"".join([body.data async for body in bodies])
        assert answer.endswith(b"data: [DONE]\n\n")
        assert dict(sent)["x-chat-session-id"].encode() in answer


async def test_a_limit_of_requests_rejects(limited: Limited) -> None:
    """A call over the limit reaches no backend; its error has the limit, the remaining amount and the delay."""
    for _ in range(KEY["requests"]):
        await limited.chat.CreateChatCompletion(chat_request(), metadata=limited.ada)
    limited.now += 3
    for method in ("CreateChatCompletion", "StreamChatCompletion", "StreamChatCompletionEvents"):
        error, trailing = await limited.rejection(chat_request(), method)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()
        assert "This key may make 6 requests a minute, and 0 are left; try again in 7 s" == error.details()
        assert ("RATE_LIMITED", "7") == (trailing["parley-error-reason"], trailing["retry-after"])
        assert ("0", "57s") == (trailing["x-ratelimit-remaining-requests"], trailing["x-ratelimit-reset-requests"])
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        retry = error_details_pb2.RetryInfo()
        assert status.details[2].Unpack(retry)
        assert 7 == retry.retry_delay.seconds
    assert KEY["requests"] == len(limited.worker.backend.calls)
    limited.now += 7
    await limited.chat.CreateChatCompletion(chat_request(), metadata=limited.ada)


async def test_keys_of_an_account_share_its_limit(limited: Limited) -> None:
    """A second key has its own requests, and shares the account's tokens that the first one has reserved."""
    gate = asyncio.Event()
    limited.worker.backend.answer = lambda _: gate
    first = limited.chat.CreateChatCompletion(chat_request(max_tokens=450), metadata=limited.ada)
    await asyncio.wait_for(_called(limited.worker), 60)
    _, secret = await create_key(limited.store, "second", "ada")
    second = (("authorization", f"Bearer {secret}"),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await limited.chat.CreateChatCompletion(chat_request(max_tokens=100), metadata=second)
    expected = "This account may use 500 tokens a minute: 49 are left, this request may need 101; try again in 7 s"
    assert expected == caught.value.details()
    assert "6" == rate_limit_headers(caught.value.trailing_metadata())["remaining-requests"]
    gate.set()
    await first
    await limited.settles(5)


async def _called(worker: Worker) -> None:
    while not worker.backend.calls:
        await asyncio.sleep(0.01)


async def test_unused_tokens_are_returned(limited: Limited) -> None:
    """Unary calls and streams are charged the usage that the backend reports."""
    await limited.chat.CreateChatCompletion(chat_request(max_tokens=400), metadata=limited.ada)
    await limited.settles(5)
    limited.worker.backend.answer = lambda _: chunks("Hel", "lo")
    assert [one async for one in limited.chat.StreamChatCompletion(chat_request(max_tokens=400), metadata=limited.ada)]
    await limited.settles(10)
    assert 2 == await limited.used("requests")


async def test_without_usage_the_estimate_is_charged(limited: Limited) -> None:
    """Without a reported usage the caller is charged the estimate of the answer."""
    answer = completion("x" * 40)
    answer.ClearField("usage")
    limited.worker.backend.answer = lambda _: answer
    answered = await limited.chat.CreateChatCompletion(chat_request("y" * 80, max_tokens=400), metadata=limited.ada)
    assert (20 + OF_A_MESSAGE, 10) == (answered.usage.prompt_tokens, answered.usage.completion_tokens)
    await limited.settles(20 + OF_A_MESSAGE + 10)


async def test_a_failure_costs_a_request_and_no_tokens(limited: Limited) -> None:
    """A call that is not answered returns all its reserved tokens."""
    limited.worker.backend.answer = lambda _: UpstreamUnavailable("away")
    for method in ("CreateChatCompletion", "StreamChatCompletionEvents"):
        _, trailing = await limited.rejection(chat_request(max_tokens=400), method)
        assert "UPSTREAM_UNAVAILABLE" == trailing["parley-error-reason"]
        assert "99" == trailing["x-ratelimit-remaining-tokens"]
        await limited.settles(0)
    assert 2 == await limited.used("requests")


async def test_a_cancelled_call_is_charged_the_delivered_text(limited: Limited) -> None:
    """A cancelled call is charged the prompt and the delivered text; the rest of the reservation is returned."""
    limited.worker.backend.answer = lambda _: [chunks("x" * 40)[0], asyncio.Event()]
    call = limited.chat.StreamChatCompletion(chat_request(max_tokens=400), metadata=limited.ada)
    while (chunk := await call.read()).choices[0].delta.content == "":
        pass
    assert "x" * 40 == chunk.choices[0].delta.content
    assert 401 == await limited.used("tokens")
    call.cancel()
    await limited.settles(HI + 10)


async def test_a_partial_answer_is_charged_the_history(limited: Limited) -> None:
    """History that is not reserved at admission is charged at the end, even for a caller that disconnects."""
    limited.worker.backend.answer = lambda _: chunks("y" * 400)
    first = [one async for one in limited.chat.StreamChatCompletion(chat_request(), metadata=limited.ada)]
    await limited.settles(5)
    limited.worker.backend.answer = lambda _: [chunks("x" * 38)[0], UpstreamUnavailable("gone")]
    await limited.rejection(chat_request(chatSessionId=first[0].session_id), "StreamChatCompletion")
    await limited.settles(5 + HI + 110)  # "Hi" and 400 bytes before, 38 now


async def test_a_broken_stream_is_charged_the_delivered_text(limited: Limited) -> None:
    """A stream that fails after its first token is charged as a partial answer."""
    limited.worker.backend.answer = lambda _: [chunks("x" * 40)[0], UpstreamUnavailable("gone")]
    await limited.rejection(chat_request(max_tokens=400), "StreamChatCompletion")
    await limited.settles(HI + 10)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        (
            {"max_tokens": 600},
            "max_tokens",
            "`max_tokens` is too large: with a prompt of about 1, 601 tokens may be needed",
        ),
        (
            {"max_completion_tokens": 200, "n": 3},
            "max_completion_tokens",
            "`max_completion_tokens` is too large: with a prompt of about 1, 601",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 2400}]},
            "messages",
            "`messages` are too long: about 600 tokens",
        ),
    ],
)
async def test_a_request_above_the_limit_is_invalid(
    limited: Limited, fields: dict[str, Any], param: str, message: str
) -> None:
    """A request above the limit itself is rejected without a retry delay, and charged one request and no tokens."""
    error, trailing = await limited.rejection(chat_request(**fields))
    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    assert message in error.details()
    assert "more than the 500 tokens a minute of this account" in error.details()
    assert ("INVALID_REQUEST", param) == (trailing["parley-error-reason"], trailing["parley-error-param"])
    assert "retry-after" not in trailing
    assert (1, 0) == (await limited.used("requests"), await limited.used("tokens"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"temperature": 3}, "INVALID_REQUEST"), ({"model": "none"}, "MODEL_NOT_FOUND")],
)
async def test_a_rejection_before_admission_is_charged_a_request(
    limited: Limited, fields: dict[str, Any], reason: str
) -> None:
    """A call that is rejected before admission is charged one request and no tokens, and has the headers."""
    await limited.chat.CreateChatCompletion(chat_request(), metadata=limited.ada)
    await limited.settles(5)
    for left, method in (("4", "CreateChatCompletion"), ("3", "StreamChatCompletionEvents")):
        _, trailing = await limited.rejection(chat_request(**fields), method)
        assert reason == trailing["parley-error-reason"]
        found = (trailing["x-ratelimit-remaining-requests"], trailing["x-ratelimit-remaining-tokens"])
        assert (left, "495") == found
    assert (3, 5) == (await limited.used("requests"), await limited.used("tokens"))


async def test_other_calls_are_charged_a_request(limited: Limited) -> None:
    """Calls that are not completions are charged one request, have the headers, and are rejected over the limit."""
    for left in range(KEY["requests"] - 1, -1, -1):
        call = limited.models.ListModels(ListModelsRequest(), metadata=limited.ada)
        await call
        found = rate_limit_headers(await call.initial_metadata())
        assert (str(left), "500") == (found["remaining-requests"], found["remaining-tokens"])
    with pytest.raises(grpc.aio.AioRpcError, match="may make 6 requests a minute") as rejected:
        await limited.models.ListModels(ListModelsRequest(), metadata=limited.ada)
    assert "0" == rate_limit_headers(rejected.value.trailing_metadata())["remaining-requests"]
    error, _ = await limited.rejection(chat_request(temperature=3))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()


async def test_a_call_without_a_key_has_no_limits(limited: Limited) -> None:
    """A call without a key has no headers."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await limited.chat.CreateChatCompletion(chat_request())
    assert {} == rate_limit_headers(caught.value.trailing_metadata())


async def test_without_limits_nothing_is_counted(tmp_path: Path, log_file: Path) -> None:
    """Without configured limits there are neither headers nor rows."""
    async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        chat: Any = ChatCompletionsStub(channel)
        call = chat.CreateChatCompletion(
            chat_request(max_tokens=400), metadata=(("authorization", f"Bearer {worker.keys['ada']}"),)
        )
        await call
        assert {} == rate_limit_headers(await call.initial_metadata())
    store = SqliteStore(tmp_path / "parley.db", time.time)
    charges = [Charge(subject, "tokens", 7, 0) for subject in ("account:ada",)]
    assert (7,) == (await store.reserve(charges)).remaining
    await store.close()
