"""The cache of a model over gRPC: hits, misses, what is never kept, and what a hit costs."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.core.cache import answers
from parley.core.cache.answers import AnswerCache
from parley.core.errors import StoreUnavailable, UpstreamUnavailable
from parley.core.ports import Charge
from parley.metrics.calls import CallMetrics
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import DeleteSessionRequest, ListSessionMessagesRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests import sse
from tests.contract.stores import Clock
from tests.rpc.calling import Log, chat_request, with_key
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import USAGE, chunks, completion

CONFIG = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {id: faq, targets: [{backend: scripted, model: up}], sessions: "off", cache: {ttl: 60s}}
  - {id: kept, targets: [{backend: scripted, model: up}], defaults: {temperature: 0}, cache: {}}
  - {id: chosen, targets: [{backend: scripted, model: up}], sessions: {ids: caller}, cache: {}}
  - {id: guarded, targets: [{backend: scripted, model: up}], sessions: "off", guards: [own], cache: {}}
  - {id: "any/*", targets: [{backend: scripted, model: "*"}], sessions: "off", cache: {}}
  - {id: shared, targets: [{backend: scripted, model: up}], sessions: "off", cache: {scope: all, any_temperature: true}}
  - {id: tools, targets: [{backend: scripted, model: up}], sessions: "off", cache: {tools: true, any_temperature: true}}
  - {id: small, targets: [{backend: scripted, model: up}], sessions: "off", cache: {max_answer: 1000, max_bytes: 2KiB}}
  - {id: failing, targets: [{backend: scripted, model: broken}], fallbacks: [faq], sessions: "off", cache: {}}
  - {id: uncached, targets: [{backend: scripted, model: up}], sessions: "off"}
guards: {own: {patterns: ["XY-[0-9]+"]}}
prices: {scripted/up: {prompt: 1000000, completion: 1000000}}
limits: {account: {tokens_per_day: 1000000, cost_per_day: 1000000000, requests_per_minute: 1000}}
"""
TOOL = {"type": "function", "function": {"name": "f"}}


class Cached:
    """A server whose models have caches, and the stubs of its callers."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel, clock: Clock, metrics: CallMetrics) -> None:
        self.worker, self.clock, self.metrics = worker, clock, metrics
        self.chat: Any = ChatCompletionsStub(channel)
        self.sessions: Any = SessionsStub(channel)

    @property
    def cache(self) -> AnswerCache:
        """The cache of the worker."""
        return self.worker.cache

    def caller(self, account: str = "ada", **headers: str) -> Any:
        """Returns the metadata of a caller."""
        more = ((name.replace("_", "-"), value) for name, value in headers.items())
        return (("authorization", f"Bearer {self.worker.keys[account]}"), *more)

    async def ask(self, text: str = "Hi", *, metadata: Any = None, **fields: Any) -> tuple[Any, str | None, Receipt]:
        """Makes a unary call of temperature 0; returns the answer, `x-parley-cache` and the receipt."""
        request = chat_request(text, **{"model": "faq", "temperature": 0, **fields})
        call = self.chat.CreateChatCompletion(request, metadata=metadata or self.caller())
        answer = await call
        header = dict(await call.initial_metadata()).get("x-parley-cache")
        receipt = Receipt.FromString(dict(await call.trailing_metadata())["parley-receipt-bin"])
        await self.written()
        return answer, header, receipt

    async def result(self, text: str = "Hi", **fields: Any) -> str | None:
        """Returns `x-parley-cache` of a call."""
        return (await self.ask(text, **fields))[1]

    async def stream(self, text: str = "Hi", **fields: Any) -> tuple[list[Any], str | None]:
        """Streams an answer of temperature 0; returns the chunks and `x-parley-cache`."""
        call = self.chat.StreamChatCompletion(
            chat_request(text, **{"model": "faq", "temperature": 0, **fields}), metadata=self.caller()
        )
        streamed = [chunk async for chunk in call]
        await self.written()
        return streamed, dict(await call.initial_metadata()).get("x-parley-cache")

    async def written(self) -> None:
        """Waits until the answers so far are kept."""
        await self.cache.close()

    async def used(self, kind: str) -> float:
        """Returns what ada's account has used of a limit."""
        return -(await self.worker.store.reserve([Charge("account:ada", kind, 0, 0)])).remaining[0]


@pytest.fixture
async def cached(log_file: Path, tmp_path: Path) -> AsyncIterator[Cached]:
    """A server whose models have caches."""
    del log_file
    clock, metrics = Clock(), CallMetrics({})
    with pytest.MonkeyPatch.context() as patched:
        for name in ("_READ_SECONDS", "_CLOSE_SECONDS"):  # on a busy machine the store takes longer
            patched.setattr(answers, name, 30.0)
        async with (
            serving(tmp_path, CONFIG, clock, metrics=metrics) as worker,
            grpc.aio.insecure_channel(worker.address) as channel,
        ):
            yield Cached(worker, channel, clock, metrics)


async def test_the_same_request_gets_the_kept_answer(cached: Cached, log: Log) -> None:
    """A hit has the content and the usage of the kept answer, an id and a time of its own, and calls no backend."""
    first, miss, paid = await cached.ask()
    again, hit, free = await cached.ask(metadata=cached.caller(x_request_id="cache-hit"))
    assert ("miss", "hit") == (miss, hit)
    assert (first.choices, USAGE, "faq") == (again.choices, again.usage, again.model)
    assert first.id != again.id
    assert 1 == len(cached.worker.backend.calls)
    assert ("miss", 5.0, 1) == (paid.cache, paid.cost, len(paid.attempts))
    assert ("hit", True, 0.0, 0) == (free.cache, free.HasField("cost"), free.cost, len(free.attempts))
    line = log("cache-hit", 1)[0]
    assert ("hit", 0.0) == (line["cache"], line["cost"])
    assert "cache_reason" not in line


async def test_a_model_without_a_cache_says_nothing_of_it(cached: Cached) -> None:
    """Without a cache there is no header, and every call has a backend."""
    _, header, receipt = await cached.ask(model="uncached")
    assert (None, None, "") == (header, await cached.result(model="uncached"), receipt.cache)
    assert 2 == len(cached.worker.backend.calls)


async def test_a_whole_answer_serves_streams_and_the_other_way_round(cached: Cached) -> None:
    """The form of delivery does not belong to the key; a hit has the documented sequence of chunks."""
    cached.worker.backend.answer = lambda _: chunks("Hel", "lo")
    _, miss = await cached.stream()
    answer, hit, _ = await cached.ask()
    assert ("miss", "hit", "Hello") == (miss, hit, answer.choices[0].message.content.string_value)
    streamed, hit = await cached.stream(stream_options={"include_usage": True})
    assert ("hit", "Hello") == (hit, "".join(one.choices[0].delta.content for one in streamed if one.choices))
    assert ("stop", USAGE) == (streamed[-2].choices[0].finish_reason, streamed[-1].usage)
    assert list(range(len(streamed))) == [one.sequence for one in streamed]
    assert 1 == len(cached.worker.backend.calls)


async def test_events_of_a_hit_end_with_done(cached: Cached) -> None:
    """A hit over REST is a stream of events with the header, which ends with `[DONE]`."""
    await cached.ask()
    call = cached.chat.StreamChatCompletionEvents(
        chat_request(model="faq", temperature=0, stream=True), metadata=cached.caller()
    )
    events = sse.chunks(b"".join([body.data async for body in call]))
    assert ("Hello", "hit") == (sse.text(events), dict(await call.initial_metadata())["x-parley-cache"])


async def test_accounts_share_answers_only_if_configured(cached: Cached) -> None:
    """The answers of an account are its own; with `scope: all` they are for all accounts."""
    for model, expected in (("faq", "miss"), ("shared", "hit")):
        await cached.ask(model=model)
        assert expected == await cached.result(model=model, metadata=cached.caller("bob"))


async def test_temperature(cached: Cached) -> None:
    """Requests whose temperature is not 0, in the request or by default, bypass the cache, unless it is configured."""
    request = chat_request(model="faq")
    for _ in range(2):
        call = cached.chat.CreateChatCompletion(request, metadata=cached.caller())
        await call
        assert "bypass" == dict(await call.initial_metadata())["x-parley-cache"]
    assert ["bypass"] * 2 == [await cached.result(temperature=0.01) for _ in range(2)]
    assert ["bypass"] * 2 == [await cached.result(model="kept", store=False, temperature=1) for _ in range(2)]
    assert ["miss", "hit"] == [await cached.result(model="shared", temperature=1) for _ in range(2)]
    assert 7 == len(cached.worker.backend.calls)


async def test_tools(cached: Cached) -> None:
    """Requests with tools, functions or a web search bypass the cache, and calls are not kept, unless configured."""
    offered: list[dict[str, Any]] = [{"tools": [TOOL]}, {"functions": [{"name": "f"}]}, {"web_search_options": {}}]
    assert ["bypass"] * 3 == [await cached.result(**fields) for fields in offered]
    answer = completion("")
    answer.choices[0].finish_reason = "tool_calls"
    answer.choices[0].message.tool_calls.add(id="call_1", type="function").function.name = "f"
    cached.worker.backend.answer = lambda _: answer
    assert ["miss"] * 2 == [await cached.result() for _ in range(2)]
    for fields in offered[:2]:
        (first, miss, _), (again, hit, _) = [await cached.ask(model="tools", **fields) for _ in range(2)]
        assert ("miss", "hit", first.choices) == (miss, hit, again.choices)


def _same(answer: ChatCompletion, _call: object) -> ChatCompletion:
    return answer


async def test_only_complete_answers_are_kept(cached: Cached) -> None:
    """A cut or filtered answer, one that is too large and a failure are not kept; `n` answers are."""
    for reason in ("length", "content_filter"):
        answer = completion("half")
        answer.choices[0].finish_reason = reason
        cached.worker.backend.answer = partial(_same, answer)
        assert ["miss"] * 2 == [await cached.result() for _ in range(2)]
    cached.worker.backend.answer = lambda _: completion("x" * 1000)
    assert ["miss"] * 2 == [await cached.result(model="small") for _ in range(2)]
    two = completion("one")
    two.choices.add(index=1, finish_reason="stop").message.content.string_value = "two"
    cached.worker.backend.answer = lambda _: two
    assert ["miss", "hit"] == [await cached.result(n=2) for _ in range(2)]


async def test_an_answer_of_a_fallback_is_not_kept(cached: Cached) -> None:
    """While the model fails, its fallback answers each call; the model answers again once it can."""
    broken = UpstreamUnavailable("broken")
    cached.worker.backend.answer = lambda call: broken if call.model == "broken" else completion("fallback")
    first, miss, _ = await cached.ask(model="failing")
    cached.worker.backend.answer = lambda _: completion("itself")
    for target in cached.worker.router.targets:
        target.breakers.reset()
    again, second, _ = await cached.ask(model="failing")
    assert ("faq", "miss", "miss", "failing") == (first.model, miss, second, again.model)


async def test_each_name_of_a_wildcard_has_its_answers(cached: Cached) -> None:
    """The names that a wildcard stands for share no answers; a hit has the name of its request."""
    for name in ("any/one", "any/two"):
        (_, miss, _), (answer, hit, _) = [await cached.ask(model=name) for _ in range(2)]
        assert ("miss", "hit", name) == (miss, hit, answer.model)
    assert ["any/*"] == [one.model for one in await cached.worker.store.cache_sizes()]


async def test_answers_are_kept_as_guards_left_them(cached: Cached) -> None:
    """The guards of a model check the request and the kept answer at each call, and the answer is kept as redacted."""
    cached.worker.backend.answer = lambda _: completion("It is XY-12.")
    for expected in ("miss", "hit"):
        answer, result, receipt = await cached.ask("What is XY-1?", model="guarded")
        assert (expected, "It is [redacted].") == (result, answer.choices[0].message.content.string_value)
        outcomes = [("before", "redacted"), ("after", "redacted" if expected == "miss" else "allowed")]
        assert (expected, outcomes) == (receipt.cache, [(one.phase, one.outcome) for one in receipt.guards])
    streamed, hit = await cached.stream("What is XY-2?", model="guarded")
    assert "hit" == hit, "the guard makes both requests the same"
    assert "It is [redacted]." == "".join(one.choices[0].delta.content for one in streamed if one.choices)
    assert 1 == len(cached.worker.backend.calls)


async def test_the_caller_controls_the_cache(cached: Cached) -> None:
    """`no-cache` and `max-age` replace a kept answer; `no-store` keeps and returns none."""
    texts = iter(["one", "two", "three", "four", "five"])
    cached.worker.backend.answer = lambda _: completion(next(texts))

    async def ask(*controls: str) -> tuple[str | None, str]:
        metadata = (*cached.caller(), *(("cache-control", one) for one in controls))
        answer, result, _ = await cached.ask(metadata=metadata)
        return result, answer.choices[0].message.content.string_value

    assert ("bypass", "one") == await ask("no-store", "no-transform"), "several lines are one"
    assert ("miss", "two") == await ask()
    assert ("bypass", "three") == await ask("No-Cache")
    assert ("hit", "three") == await ask("max-age=30")
    cached.clock.advance(31)
    assert ("miss", "four") == await ask("max-age=30")
    assert ("hit", "four") == await ask()
    cached.clock.advance(61)
    assert ("miss", "five") == await ask()


async def test_a_turn_with_a_hit_is_recorded(cached: Cached) -> None:
    """A hit is a turn like any other, with its receipt; the history of the session belongs to the key."""
    first, miss, _ = await cached.ask(model="kept")
    again, hit, _ = await cached.ask(model="kept")
    assert ("miss", "hit") == (miss, hit)
    assert first.session_id != again.session_id
    listed = await cached.sessions.ListSessionMessages(
        ListSessionMessagesRequest(session_id=again.session_id), metadata=cached.caller()
    )
    assert ["Hi", "Hello"] == [one.message.content.string_value for one in listed.messages]
    assert ("hit", 0.0) == (listed.messages[1].receipt.cache, listed.messages[1].receipt.cost)
    assert USAGE == listed.messages[1].usage
    continued = [await cached.result(model="kept", session_id=one.session_id) for one in (first, again)]
    assert ["miss", "hit"] == continued, "the second turns of both sessions are the same"
    assert "miss" == await cached.result(model="kept", session_id=first.session_id), "the third one is another"


@pytest.mark.parametrize("fields", [{"model": "kept"}, {"model": "chosen", "session_id": "order 7"}])
async def test_the_answers_of_a_session_are_deleted_with_it(cached: Cached, fields: dict[str, str]) -> None:
    """After the deletion of a session, also of one with an id of the caller, no answer of it is returned."""
    first, *_ = await cached.ask(**fields)
    assert "hit" == await cached.result(model=fields["model"])
    await cached.sessions.DeleteSession(DeleteSessionRequest(session_id=first.session_id), metadata=cached.caller())
    assert "miss" == await cached.result(**fields)


async def test_a_hit_uses_neither_tokens_nor_money(cached: Cached) -> None:
    """A hit is charged as a request, and returns the tokens and the money that were reserved for it."""
    kinds = ("tokens_per_day", "cost_per_day")
    for result in ("miss", "hit"):
        assert result == await cached.result()
        async with asyncio.timeout(20):
            while [5.0, 5.0] != [await cached.used(kind) for kind in kinds]:
                await asyncio.sleep(0.01)


async def test_an_idempotency_key_and_the_cache(cached: Cached) -> None:
    """A call with a key may be a hit; its replay is the same answer, and no second hit."""
    await cached.ask()
    metadata = with_key(cached.caller(), "cache-key")
    hit, result, _ = await cached.ask(metadata=metadata)
    call = cached.chat.CreateChatCompletion(chat_request(model="faq", temperature=0), metadata=metadata)
    assert hit == await call
    headers = dict(await call.initial_metadata())
    assert ("hit", None, "true") == (result, headers.get("x-parley-cache"), headers["idempotent-replayed"])


async def test_a_dead_or_slow_store_is_a_miss(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that fail or take too long, and writes that fail, cost the call nothing but a short wait."""
    await cached.ask()
    store = cached.worker.store

    async def failing(*_: object) -> None:
        raise StoreUnavailable("broken")

    async def slow(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(answers, "_READ_SECONDS", 0.25)
    for broken in (failing, slow):
        monkeypatch.setattr(store, "find_answer", broken)
        monkeypatch.setattr(store, "keep_answer", failing)
        cached.cache._paused_until = 0.0  # noqa: SLF001 - instead of a wait
        failures = cached.cache.read_failures
        answer, result, _ = await cached.ask("another")
        assert ("miss", "Hello") == (result, answer.choices[0].message.content.string_value)
        assert "miss" == await cached.result("another"), "the store is not read again at once"
        assert failures + 1 == cached.cache.read_failures
    monkeypatch.undo()
    cached.cache._paused_until = 0.0  # noqa: SLF001
    assert "hit" == await cached.result()


async def test_an_account_cannot_fill_the_store(cached: Cached) -> None:
    """Beyond its size, the oldest answers of an account are removed, and no answer of another account."""
    assert "miss" == await cached.result(model="small", metadata=cached.caller("bob"))
    for number in range(30):
        cached.clock.advance(1)
        await cached.ask(f"q{number}", model="small")
    sizes = {one.account: one for one in await cached.worker.store.cache_sizes()}
    assert sizes["ada"].bytes <= 2048
    assert ("hit", "miss") == (await cached.result("q29", model="small"), await cached.result("q0", model="small"))
    assert "hit" == await cached.result(model="small", metadata=cached.caller("bob"))


async def test_metrics(cached: Cached) -> None:
    """Hits, misses and bypasses are counted by model and reason, and what became of the answers."""

    def counted() -> dict[tuple[str, ...], float]:
        return {labels: amount for labels, (amount,) in cached.metrics.cached._series.items()}  # noqa: SLF001

    before, writes = counted(), cached.cache.writes.copy()
    await cached.ask("metrics")
    await cached.ask("metrics")
    await cached.ask("metrics", tools=[TOOL])
    more = {labels: amount - before.get(labels, 0) for labels, amount in counted().items()}
    expected = {("faq", "hit", ""): 1, ("faq", "miss", ""): 1, ("faq", "bypass", "tools"): 1}
    assert expected == {labels: amount for labels, amount in more.items() if amount}
    assert {("faq", "kept"): 1} == dict(cached.cache.writes - writes)
