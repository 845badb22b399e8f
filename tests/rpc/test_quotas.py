"""Limits of concurrent calls, of tokens and money, and of what is stored, over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from parley.core.ports import Charge
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import GetModelRequest, ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2 import (
    DeleteSessionRequest,
    ExportSessionRequest,
    ForkSessionRequest,
    GetSessionRequest,
    ListSessionMessagesRequest,
    ListSessionsRequest,
)
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.contract.stores import Clock
from tests.keys import create_key
from tests.rpc.calling import chat_request
from tests.rpc.conftest import CONFIG, Worker, serving
from tests.rpc.scripted import chunks, completion

PRICES = "prices: {scripted/upstream: {prompt: 1000000, completion: 1000000}}\n"


class Limited:
    """A server with limits, and the stubs of a caller."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel, clock: Clock) -> None:
        self.worker = worker
        self.clock = clock
        self.chat: Any = ChatCompletionsStub(channel)
        self.sessions: Any = SessionsStub(channel)
        self.models: Any = ModelsStub(channel)
        self.ada = (("authorization", f"Bearer {worker.keys['ada']}"),)

    async def complete(self, text: str = "Hi", **fields: Any) -> Any:
        """Makes a unary call."""
        return await self.chat.CreateChatCompletion(chat_request(text, **fields), metadata=self.ada)

    async def fork(self, session_id: str) -> Any:
        """Forks a session."""
        return await self.sessions.ForkSession(ForkSessionRequest(session_id=session_id), metadata=self.ada)


Serve = Callable[[str], Awaitable[Limited]]


@asynccontextmanager
async def _limited(folder: Path, limits: str) -> AsyncIterator[Limited]:
    config, clock = f"{CONFIG}{PRICES}limits: {limits}\n", Clock()
    async with serving(folder, config, clock) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        yield Limited(worker, channel, clock)


@pytest.fixture
async def serve(tmp_path: Path, log_file: Path) -> AsyncIterator[Serve]:
    """Runs a server with limits."""
    running: list[Any] = []

    async def start(limits: str) -> Limited:
        running.append(_limited(tmp_path, limits))
        limited: Limited = await running[-1].__aenter__()
        return limited

    yield start
    for one in running:
        await one.__aexit__(None, None, None)


async def rejected(call: Awaitable[Any]) -> tuple[str, str, dict[str, Any]]:
    """Awaits a call that fails; returns its reason, message and trailing metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == caught.value.code()
    trailing = dict(caught.value.trailing_metadata())
    return trailing["parley-error-reason"], str(caught.value.details()), trailing


def reasons(results: list[Any]) -> list[str]:
    """Returns the reasons of calls that failed, and an empty text for each other one."""
    return [
        dict(one.trailing_metadata())["parley-error-reason"] if isinstance(one, grpc.aio.AioRpcError) else ""
        for one in results
    ]


async def test_every_call_is_charged_a_request(serve: Serve) -> None:
    """Row 7 of the probe: forks, lists, reads, exports, deletions and invalid calls of any kind are charged."""
    limited = await serve("{key: {requests_per_minute: 12}}")
    sessions, models, ada = limited.sessions, limited.models, limited.ada
    session = (await limited.complete()).session_id
    forked = (await limited.fork(session)).id
    await sessions.ListSessions(ListSessionsRequest(), metadata=ada)
    await sessions.GetSession(GetSessionRequest(session_id=session), metadata=ada)
    await sessions.ListSessionMessages(ListSessionMessagesRequest(session_id=session), metadata=ada)
    exported = sessions.ExportSession(ExportSessionRequest(session_id=session), metadata=ada)
    assert [one async for one in exported]
    assert "6" == dict(await exported.initial_metadata())["x-ratelimit-remaining-requests"]
    await sessions.DeleteSession(DeleteSessionRequest(session_id=forked), metadata=ada)
    await models.ListModels(ListModelsRequest(), metadata=ada)
    for invalid in (
        limited.complete(temperature=3),
        limited.complete(model="none"),
        limited.complete(chatSessionId="none"),
        models.GetModel(GetModelRequest(model="none"), metadata=ada),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await invalid
        assert grpc.StatusCode.RESOURCE_EXHAUSTED != caught.value.code()
    for over in (
        limited.complete(temperature=3),
        limited.fork(session),
        models.ListModels(ListModelsRequest(), metadata=ada),
        sessions.GetSession(GetSessionRequest(session_id="none"), metadata=ada),
    ):
        assert "RATE_LIMITED" == (await rejected(over))[0]


async def test_calls_without_the_scope_are_charged(serve: Serve) -> None:
    """A call that the key's scopes do not permit is charged a request, whatever its method."""
    limited = await serve("{key: {requests_per_minute: 3}}")
    _, secret = await create_key(limited.worker.store, "reader", "ada", scopes=("sessions:read",))
    metadata = (("authorization", f"Bearer {secret}"),)
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError, match="does not have the scope"):
            await limited.models.ListModels(ListModelsRequest(), metadata=metadata)
    for call in (
        limited.models.ListModels(ListModelsRequest(), metadata=metadata),
        limited.chat.CreateChatCompletion(chat_request(), metadata=metadata),
    ):
        assert "RATE_LIMITED" == (await rejected(call))[0]


async def test_a_replay_is_charged_a_request(serve: Serve) -> None:
    """The stored answer of an `Idempotency-Key` costs a request and no tokens."""
    limited = await serve("{key: {requests_per_minute: 2}}")
    metadata = (*limited.ada, ("idempotency-key", "k"))
    for _ in range(2):
        await limited.chat.CreateChatCompletion(chat_request(), metadata=metadata)
    reason, _, _ = await rejected(limited.chat.CreateChatCompletion(chat_request(), metadata=metadata))
    assert "RATE_LIMITED" == reason


@pytest.mark.parametrize("stream", [False, True])
async def test_the_history_is_reserved(serve: Serve, stream: bool) -> None:
    """Row 6 of the probe: of 40 forks that continue at once, only as many begin as their histories fit."""
    limited = await serve("{account: {tokens_per_minute: 100000, requests_per_minute: 1000}}")
    answer = completion("y" * 200_000)
    answer.ClearField("usage")
    limited.worker.backend.answer = lambda _: answer
    session = (await limited.complete(max_tokens=99_000)).session_id
    forks = [(await limited.fork(session)).id for _ in range(40)]
    limited.clock.advance(60)
    gate = asyncio.Event()
    limited.worker.backend.answer = lambda _: [gate, *chunks("no")] if stream else gate
    begun = len(limited.worker.backend.calls)

    async def go_on(fork: str) -> Any:
        request = chat_request(chatSessionId=fork)
        if not stream:
            return await limited.chat.CreateChatCompletion(request, metadata=limited.ada)
        return [one async for one in limited.chat.StreamChatCompletion(request, metadata=limited.ada)]

    running = [asyncio.create_task(go_on(fork)) for fork in forks]
    await asyncio.wait(running[:2] if stream else running, timeout=0.01)
    while sum(one.done() for one in running) < 39:
        await asyncio.sleep(0.01)
    gate.set()
    done = await asyncio.gather(*running, return_exceptions=True)
    assert ["RATE_LIMITED"] * 39 == [reason for reason in reasons(done) if reason]
    assert 1 == len(limited.worker.backend.calls) - begun


async def test_concurrent_calls_are_limited(serve: Serve) -> None:
    """A call over the limit is rejected at once; unary calls and streams count until they end."""
    limited = await serve("{key: {concurrent: 2}}")
    gate = asyncio.Event()
    limited.worker.backend.answer = lambda _: gate
    running = [asyncio.create_task(limited.complete(model=model)) for model in ("kept", "stateless")]
    while len(limited.worker.backend.calls) < 2:
        await asyncio.sleep(0.01)
    reason, message, trailing = await rejected(limited.complete())
    assert "This key may run 2 calls at once, and 2 are running; try again when one has finished" == message
    found = ("CONCURRENCY_LIMITED", "1", "1000")
    assert found == (reason, trailing["retry-after"], trailing["grpc-retry-pushback-ms"])
    await limited.models.ListModels(ListModelsRequest(), metadata=limited.ada)
    gate.set()
    await asyncio.gather(*running)
    stream = limited.chat.StreamChatCompletion(chat_request(), metadata=limited.ada)
    limited.worker.backend.answer = lambda _: [chunks("x")[0], asyncio.Event()]
    await stream.read()
    limited.worker.backend.answer = lambda _: completion("fits")
    await limited.complete()


@pytest.mark.parametrize("model", ["kept", "stateless"])
async def test_calls_one_after_another_are_not_concurrent(serve: Serve, model: str) -> None:
    """A call has ended for its limit before its answer arrives, with and without a session, also if it fails."""
    limited = await serve("{key: {concurrent: 1}, account: {concurrent: 1}}")
    for _ in range(20):
        await limited.complete(model=model)
        request = chat_request(model=model)
        assert [one async for one in limited.chat.StreamChatCompletion(request, metadata=limited.ada)]
        with pytest.raises(grpc.aio.AioRpcError, match="temperature"):
            await limited.complete(model=model, temperature=3)


async def test_a_budget_of_money(serve: Serve) -> None:
    """The price of the used tokens counts; over the budget the error says when the next month begins."""
    limited = await serve("{account: {cost_per_month: 20}}")
    await limited.complete(max_tokens=1)
    used = Charge("account:ada", "cost_per_month", 20, 0)
    assert pytest.approx((15,)) == (await limited.worker.store.reserve([used])).remaining
    for _ in range(2):
        await limited.complete(max_tokens=1)
    reason, message, trailing = await rejected(limited.complete(max_tokens=10))
    assert "QUOTA_EXHAUSTED" == reason
    assert "This account may spend 20 a month: 5 is left, this request may cost 11; the next month beg" in message
    assert int(trailing["retry-after"]) > 0
    quota = error_details_pb2.QuotaFailure()
    assert status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details[1].Unpack(quota)
    assert "account:ada" == quota.violations[0].subject


async def test_a_failed_call_costs_what_its_attempts_cost(serve: Serve) -> None:
    """A cancelled stream is charged the money of what was generated."""
    limited = await serve("{account: {cost_per_day: 100, tokens_per_day: 1000}}")
    limited.worker.backend.answer = lambda _: [chunks("x" * 40)[0], asyncio.Event()]
    stream = limited.chat.StreamChatCompletion(chat_request(max_tokens=50), metadata=limited.ada)
    while not (await stream.read()).choices[0].delta.content:
        pass
    charges = [Charge("account:ada", kind, 100, 0) for kind in ("cost_per_day", "tokens_per_day")]
    assert (49, 49) == (await limited.worker.store.reserve(charges)).remaining
    stream.cancel()
    async with asyncio.timeout(30):
        while (left := (await limited.worker.store.reserve(charges)).remaining)[0] < 80:
            await asyncio.sleep(0.01)
    assert (100 - 14, 100 - 11) == left


async def test_storage_is_limited(serve: Serve) -> None:
    """An account with too many sessions or bytes can read and delete; a retry does not help."""
    limited = await serve("{account: {sessions: 2}, session: {bytes: 400}}")
    session = (await limited.complete()).session_id
    forked = (await limited.fork(session)).id
    for call in (limited.complete(), limited.fork(session)):
        reason, message, trailing = await rejected(call)
        assert ("STORAGE_LIMIT_EXCEEDED", "-1") == (reason, trailing["grpc-retry-pushback-ms"])
        assert "may store 2 sessions and has 2; delete sessions that are not needed" in message
        assert "retry-after" not in trailing
    await limited.complete("x" * 300, chatSessionId=session)
    reason, message, _ = await rejected(limited.complete("x" * 100, chatSessionId=session))
    assert ("STORAGE_LIMIT_EXCEEDED", True) == (reason, "begin a new session" in message)
    await limited.complete(model="stateless")
    await limited.sessions.DeleteSession(DeleteSessionRequest(session_id=forked), metadata=limited.ada)
    await limited.complete()
