"""Settlement of rate limits at the end of a call."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from parley.core.ports import Charge
from parley.core.ports.plain_text import PlainText
from parley.core.streaming.plain_text import as_chunk
from parley.core.usage.admission import Admission
from parley.core.usage.limits import RateLimiter
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Usage
from tests.unit.usage.memory_store import MemoryStore, admit, tokens


@contextmanager
def settling(admission: Admission) -> Iterator[Admission]:
    """Settles the admission at the end of the block, as the end of a call does."""
    yield admission
    admission.settle()


async def test_a_reservation_is_settled_with_the_usage(limits: RateLimiter, store: MemoryStore) -> None:
    """The reported usage replaces the reservation, higher or lower; the last report of a stream counts."""
    with settling(await admit(limits, max_tokens=500)) as admission:
        for count in (1, 20):
            admission.record_answer(ChatCompletionChunk(usage=Usage(prompt_tokens=7, completion_tokens=count)))
    await limits.close()
    assert 27 == tokens(store) == tokens(store, "key:key_1")
    with settling(await admit(limits)) as admission:
        admission.record_answer(ChatCompletion(usage=Usage(total_tokens=2000)))
    await limits.close()
    assert 2027 == tokens(store)


@pytest.mark.parametrize("is_plain", [True, False])
async def test_output_since_the_latest_report_is_estimated(
    limits: RateLimiter, store: MemoryStore, *, is_plain: bool
) -> None:
    """Output after the latest usage of a cancelled stream is estimated and added to it."""
    text = PlainText("content", "x" * 40, 40)
    with settling(await admit(limits, max_tokens=500)) as admission:
        admission.record_answer(ChatCompletionChunk(usage=Usage(prompt_tokens=7, completion_tokens=1)))
        admission.record_answer(text if is_plain else as_chunk(text))
    await limits.close()
    assert 18 == tokens(store)


async def test_refilled_tokens_are_not_refunded_twice(limits: RateLimiter, store: MemoryStore) -> None:
    """A long call that used few tokens leaves a full bucket, and not more."""
    with settling(await admit(limits, max_tokens=600)):
        store.now += 59
    await limits.close()
    assert 0 == tokens(store)


async def test_a_call_does_not_wait_for_settlement(limits: RateLimiter, store: MemoryStore) -> None:
    """A call ends while the store is slow; closing the limiter waits for the settlement."""
    with settling(await admit(limits, max_tokens=500)):
        store.gate.clear()
    assert 510 == tokens(store)
    closing = asyncio.create_task(limits.close())
    await asyncio.sleep(0)
    assert not closing.done()
    store.gate.set()
    await closing
    assert 0 == tokens(store)


async def test_an_unavailable_store_does_not_fail_a_finished_call(limits: RateLimiter, store: MemoryStore) -> None:
    """The end of a call succeeds without the store; the reservation remains until it is refilled."""
    with settling(await admit(limits, max_tokens=500)):
        store.is_unavailable = True
    await limits.close()
    assert 510 == tokens(store)


async def test_a_call_cancelled_during_admission_keeps_no_tokens(limits: RateLimiter, store: MemoryStore) -> None:
    """A call that is cancelled during admission is charged one request and no tokens."""
    store.gate.clear()
    task = asyncio.create_task(admit(limits, max_tokens=500))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.gate.set()
    async with asyncio.timeout(60):
        while ("key:key_1", "tokens") not in store.rows or tokens(store):
            await asyncio.sleep(0)
    assert 1 == store.used(Charge("key:key_1", "requests", 60, 0))
