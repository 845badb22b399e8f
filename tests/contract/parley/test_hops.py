"""Parleys that name one another."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from parley.backends.parley.backend import Parley
from parley.core.errors import LoopDetected
from parley.core.ports import HOPS, MAX_HOPS, UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from tests.contract.backends import call, failure
from tests.contract.parley_vendor import other_parley
from tests.contract.scripted_parley import ScriptedParley
from tests.rpc.conftest import serving

CONFIG = """
backends:
  scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  loop: {kind: parley, target: "127.0.0.1:1"}
models:
  - {id: round, targets: [{backend: loop, model: round}, {backend: loop, model: again}], fallbacks: [again]}
  - {id: again, targets: [{backend: loop, model: round}]}
"""


class Loop:
    """A backend that calls the Parley that it belongs to, and counts its calls."""

    supports_prefill = True

    def __init__(self) -> None:
        self.parley: Parley | None = None
        self.calls = 0

    def _next(self) -> Parley:
        self.calls += 1
        assert self.parley is not None
        return self.parley

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Calls without streaming."""
        return await self._next().complete(call)

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Calls with streaming."""
        async with aclosing(self._next().stream(call)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def check(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing."""


@pytest_asyncio.fixture
async def loop(tmp_path: Path) -> AsyncIterator[Loop]:
    """A Parley whose models lead back to itself."""
    made = Loop()
    async with serving(tmp_path, CONFIG, asyncio.get_running_loop().time, {"loop": made}) as worker:
        made.parley = other_parley(worker.address, worker.keys["ada"])
        yield made
        await made.parley.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loop_ends_after_eight_parleys(loop: Loop, stream: bool) -> None:
    """The call is neither retried nor sent to the next target or fallback, at no Parley of the chain."""
    assert loop.parley is not None
    failed = await failure(loop.parley, replace(call(), model="round"), stream=stream)
    assert LoopDetected is type(failed)
    assert f"has passed through {MAX_HOPS} Parleys" in failed.message
    assert loop.calls == MAX_HOPS - 1


async def test_the_metadata_has_the_number_of_parleys(backend: Parley, upstream: ScriptedParley) -> None:
    """The number includes this Parley."""
    upstream.answer()
    await failure(backend, replace(call(), hops=3), stream=False)
    assert "3" == dict(upstream.requests[0].metadata)[HOPS]
