"""Reservations of rate limits at the admission of a call, and their headers."""

import json
from dataclasses import replace
from typing import Any

import pytest

from parley.config import Limits
from parley.config.loader import parse
from parley.core.errors import InvalidRequest, RateLimited, StoreUnavailable
from parley.core.ports import Caller
from parley.core.routing.router import Router
from parley.core.usage.admission import RateLimitStatus
from parley.core.usage.limits import RateLimiter
from parley.rpc.metadata.rate_limits import duration, metadata
from parley.v1.chat_completions_pb2 import ChatCompletion
from tests.rpc.scripted import ScriptedBackend
from tests.unit.usage.memory_store import ADA, MemoryStore, admit, request, tokens


@pytest.mark.parametrize(
    ("fields", "instructions", "expected"),
    [
        ({}, "", 10),
        ({}, "y" * 8, 12),
        ({"messages": [{"role": "user", "content": "ж" * 3}]}, "", 2),
        ({"messages": [{"role": "assistant", "content": None, "refusal": "z" * 12}]}, "", 3),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "x" * 8},
                            {"type": "refusal", "refusal": "no text"},
                        ],
                    }
                ]
            },
            "",
            2,
        ),
    ],
    ids=["text", "instructions", "bytes, not letters", "a refusal", "parts"],
)
async def test_a_prompt_is_estimated_by_its_text(
    limits: RateLimiter, store: MemoryStore, fields: dict[str, Any], instructions: str, expected: int
) -> None:
    """A prompt is estimated as one token per four bytes of text."""
    await admit(limits, call=request(**fields), instructions=instructions)
    assert expected + 1 == tokens(store)


async def test_tools_are_part_of_the_prompt(limits: RateLimiter, store: MemoryStore) -> None:
    """Definitions of tools and functions count as part of the prompt."""
    function = {"name": "f", "description": "d" * 400}
    await admit(limits, call=request(tools=[{"type": "function", "function": function}], functions=[function]))
    assert 210 <= tokens(store) <= 225


@pytest.mark.parametrize(
    ("defaults", "fields", "expected"),
    [
        ({}, {}, 0),
        ({}, {"max_tokens": 7}, 7),
        ({}, {"max_tokens": 7, "max_completion_tokens": 5, "n": 2}, 10),
        ({"max_tokens": 9}, {}, 9),
        ({"max_completion_tokens": 9, "n": 3}, {}, 27),
        ({"max_completion_tokens": 9}, {"max_tokens": 7, "n": 2}, 14),
        ({"max_tokens": 9}, {"max_completion_tokens": 7}, 7),
    ],
)
def test_an_answer_is_bounded_by_the_request_or_the_model_s_defaults(
    defaults: dict[str, int], fields: dict[str, int], expected: int
) -> None:
    """Each choice may have the request's limit of tokens, or else the default of the model."""
    config = parse(
        'backends: {a: {kind: openai, base_url: "http://127.0.0.1:1"}}\n'
        f"models: [{{id: m, targets: [{{backend: a}}], defaults: {json.dumps(defaults)}}}]",
        "test",
    )
    router = Router(config, {"a": ScriptedBackend()})
    assert expected == router.max_tokens(config.models[0], request(**fields))


async def test_an_unavailable_store_admits_no_call(limits: RateLimiter, store: MemoryStore) -> None:
    """A store that is unavailable rejects stateless calls too, as the limit would not hold."""
    store.is_unavailable = True
    with pytest.raises(StoreUnavailable):
        await admit(limits, call=request(store=False))
    await admit(limits, caller=Caller("bob", "key_2"))


async def test_a_call_charges_its_key_and_its_account(limits: RateLimiter, store: MemoryStore) -> None:
    """A call charges one request and its tokens to key and account, and reports the tighter limit."""
    reported: list[Any] = []
    await admit(limits, max_tokens=90, on_statuses=reported.append)
    assert {("key:key_1", "requests"): 1, ("key:key_1", "tokens"): 100} | {
        ("account:ada", "requests"): 1,
        ("account:ada", "tokens"): 100,
    } == {bucket: used for bucket, (used, _) in store.rows.items()}
    assert [[RateLimitStatus("requests", 60, 59, 1.0), RateLimitStatus("tokens", 1000, 900, 6.0)]] == reported


async def test_the_tighter_limit_has_less_remaining(limits: RateLimiter) -> None:
    """A second key has its own full bucket, so the limit of the account is reported."""
    for _ in range(40):
        await admit(limits)
    reported: list[Any] = []
    await admit(limits, caller=replace(ADA, key_id="key_2"), on_statuses=reported.append)
    assert [("requests", 90, 49), ("tokens", 1000, 549)] == [
        (one.kind, one.limit, one.remaining) for one in reported[0]
    ]


async def test_a_rejected_call_has_a_retry_delay(limits: RateLimiter, store: MemoryStore) -> None:
    """A rejected call is not charged, and its delay is the shortest whole number of seconds that suffices."""
    await admit(limits, max_tokens=990)
    store.now += 1.5
    reported: list[Any] = []
    with pytest.raises(RateLimited, match="This account may use 1000 tokens a minute: 25 are left") as rejected:
        await admit(limits, max_tokens=50, on_statuses=reported.append)
    assert 3 == rejected.value.retry_after
    assert [25] == [one.remaining for one in reported[0] if one.kind == "tokens"]
    store.now += 2
    with pytest.raises(RateLimited):
        await admit(limits, max_tokens=50)
    store.now += 1
    await admit(limits, max_tokens=50)


async def test_the_longest_delay_is_reported(limits: RateLimiter) -> None:
    """If both kinds are used up, the error names the limit with the longer delay."""
    caller = Caller("ada", "key_1", key_limits=Limits(requests_per_minute=2, tokens_per_minute=22))
    await admit(limits, caller=caller)
    await admit(limits, caller=caller)
    with pytest.raises(RateLimited, match=r"2 requests a minute, and 0 are left; try again in 30 s"):
        await admit(limits, caller=caller)


@pytest.mark.parametrize(("max_tokens", "param"), [(991, "max_tokens"), (0, None)])
async def test_a_request_that_can_never_be_admitted(
    limits: RateLimiter, store: MemoryStore, max_tokens: int, param: str | None
) -> None:
    """A request that needs more than a minute's tokens is invalid; one that needs all of them is admitted."""
    if param is None:
        await admit(limits, max_tokens=990)
        return
    with pytest.raises(InvalidRequest) as rejected:
        await admit(limits, max_tokens=max_tokens)
    assert param == rejected.value.param
    assert {} == store.rows


async def test_an_image_counts_as_a_thousand_tokens(limits: RateLimiter) -> None:
    """An image counts as a thousand tokens, whatever its size in bytes."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    call = request(messages=[{"role": "user", "content": [{"type": "text", "text": "x" * 40}, image]}])
    with pytest.raises(InvalidRequest, match="about 1010 tokens"):
        await admit(limits, call=call)


async def test_limits_that_are_not_set_are_not_counted(limits: RateLimiter, store: MemoryStore) -> None:
    """A caller may have a limit of one kind only; the others are neither stored nor reported."""
    caller = Caller("ada", "key_1", account_limits=Limits(requests_per_minute=1))
    reported: list[Any] = []
    admission = await admit(limits, max_tokens=10**9, caller=caller, on_statuses=reported.append)
    admission.record_answer(ChatCompletion())
    assert admission.settle() is None
    assert [("account:ada", "requests")] == list(store.rows)
    assert ["requests"] == [one.kind for one in reported[0]]


async def test_without_limits_the_store_is_not_used(limits: RateLimiter, store: MemoryStore) -> None:
    """Without limits an unavailable store does not matter."""
    store.is_unavailable = True
    caller = Caller("ada", "key_1")
    admission = await admit(limits, max_tokens=10**9, caller=caller)
    admission.record_answer(ChatCompletion())
    assert admission.settle() is None
    assert () == (await limits.admit_request(caller)).statuses
    limits.charge_request(caller)
    await limits.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.02, "20ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (66.5, "1m6.5s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (90_061, "25h1m1s"),
    ],
)
def test_durations_have_the_format_of_openai(seconds: float, text: str) -> None:
    """A duration has milliseconds below a second, else seconds, minutes and hours."""
    assert text == duration(seconds)


def test_the_headers_have_the_names_of_openai() -> None:
    """Each limited kind has three headers."""
    assert {
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "7ms",
    } == dict(metadata([RateLimitStatus("tokens", 150_000, 149_984, 0.0064)]))
