"""A thousand streams that are opened and abandoned leave no object, task, connection or memory.

The server, the store and the backend over HTTP are real and in this process, so that their objects can be counted.
"""

import asyncio
import gc
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import uvloop

from parley.backends.openai.backend import OpenAI
from parley.core.routing.active_attempt import ActiveAttempt
from parley.core.routing.attempts import Attempt
from parley.core.routing.execution import Execution
from parley.core.routing.retry_state import RetryState
from parley.core.sessions.call_lease import CallLease
from parley.rpc.call import Call
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.rpc.conftest import Worker, serving
from tests.upstream import PATIENCE, Answer, Events, Gate, Received, ScriptedUpstream, Stall, chunks, hello

STREAMS = 1000
BATCH = 100
WARM_UP_BATCHES = 3
"""After so many batches everything exists that is created once and reused."""
CONCURRENT = 25
SLOTS = 40
BLOCKS, BYTES = 3, 10_000
"""What an abandoned stream may leave: less than any of its objects, and what allocators keep for reuse."""
RETAINED = 1
"""Calls that stay referenced: the task that renews leases holds the context of the call that started it."""
CALL_TYPES = (CallLease, Execution, RetryState, Attempt, ActiveAttempt, Call)

CONFIG = f"""
backends: {{real: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
models:
  - id: kept
    targets: [{{backend: real, max_concurrent: {SLOTS}}}]
"""


class Snapshot:
    """The state at one moment: blocks of Python's memory, bytes of the process, tasks, objects of calls.

    Objects of `earlier` calls, which other tests have left in this process, are not counted.
    """

    def __init__(self, earlier: Sequence[object]) -> None:
        earlier_ids = set(map(id, earlier))
        self.of_calls = Counter(type(thing).__name__ for thing in _of_calls() if id(thing) not in earlier_ids)
        self.tasks = len(asyncio.all_tasks())
        self.blocks = sys.getallocatedblocks()
        self.bytes = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _of_calls() -> list[object]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, CALL_TYPES)]


class Abandoner:
    """Abandons streams, and measures what is left of them."""

    def __init__(self, worker: Worker, upstream: ScriptedUpstream) -> None:
        self.worker = worker
        self.upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._earlier = _of_calls()
        self._arrivals: dict[str, asyncio.Future[Received]] = {}
        self._metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
        self.reset()

    def reset(self) -> None:
        """Resets the upstream."""
        self.upstream.reset()
        self.upstream.default = self._answer

    def _answer(self, request: Received) -> Answer:
        """Answers with one token or none, then stalls."""
        name = request.json["messages"][0]["content"]
        self._loop.call_soon_threadsafe(self._arrivals.pop(name).set_result, request)
        return Events([Stall()] if name.startswith("early") else [*chunks("Hi"), Stall()])

    async def abandon(self, number: int, channel: grpc.aio.Channel) -> None:
        """Opens a stream and abandons it before or after its first token: cancels it, or closes its own channel."""
        early = number % 2 == 0
        name = f"{'early' if early else 'late'} {number}"
        arrival = self._arrivals[name] = self._loop.create_future()
        own = grpc.aio.insecure_channel(self.worker.address) if number % 8 > 5 else None
        call = self.open(own or channel, name)
        if not early:
            await call.read()
        request = await arrival
        if own is None:
            call.cancel()
        else:
            await own.close()
        assert await request.closed.arrives(1.0), f"the connection of {name} stays open"

    def open(self, channel: grpc.aio.Channel, text: str) -> Any:
        """Opens a stream."""
        request = CreateChatCompletionRequest(model="kept")
        request.messages.add(role="user").content.string_value = text
        stub: Any = ChatCompletionsStub(channel)
        return stub.StreamChatCompletion(request, metadata=self._metadata)

    async def abandon_all(self, numbers: range) -> "Snapshot":
        """Abandons so many streams, some concurrently; returns the state after it."""
        remaining = iter(numbers)

        async def abandon_some() -> None:
            async with grpc.aio.insecure_channel(self.worker.address) as channel:
                for number in remaining:
                    await self.abandon(number, channel)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(abandon_some())
        self.reset()
        async with asyncio.timeout(PATIENCE):
            while (left := Snapshot(self._earlier)).of_calls.total() > RETAINED:
                await asyncio.sleep(0.05)
        return left


@asynccontextmanager
async def _abandoner(tmp_path: Path) -> AsyncIterator[Abandoner]:
    """Runs a server with the real backend on a scripted upstream."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        async with serving(tmp_path, CONFIG, time.time, {"real": backend}) as worker:
            yield Abandoner(worker, upstream)
        await backend.close()


def test_a_thousand_abandoned_streams_leave_nothing(tmp_path: Path, log_file: Path) -> None:
    """Abandoned streams leave no connection, task, object, slot or memory."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in a worker
        runner.run(_abandon_a_thousand(tmp_path))


async def _abandon_a_thousand(folder: Path) -> None:
    async with _abandoner(folder) as abandoner:
        left = [await abandoner.abandon_all(range(begin, begin + BATCH)) for begin in range(0, STREAMS, BATCH)]
        before, after = left[WARM_UP_BATCHES - 1], left[-1]
        assert {"Call"} >= after.of_calls.keys()
        assert before.tasks == after.tasks
        streams = STREAMS - WARM_UP_BATCHES * BATCH
        assert after.blocks - before.blocks < streams * BLOCKS
        # A leak grows with every batch. One batch may also have a garbage collection's worth of another test's memory.
        growth = [later.bytes - earlier.bytes for earlier, later in pairwise(left[WARM_UP_BATCHES - 1 :])]
        assert median(growth) < BATCH * BYTES
        await _all_slots_are_free(abandoner)


async def _all_slots_are_free(abandoner: Abandoner) -> None:
    """The target accepts as many concurrent calls as it has slots."""
    gate = Gate()
    abandoner.upstream.default = lambda request: Events([gate, *_events(hello(request))])
    async with grpc.aio.insecure_channel(abandoner.worker.address) as channel:
        calls = [abandoner.open(channel, "Hi") for _ in range(SLOTS)]
        await abandoner.upstream.arrives(SLOTS - 1)
        gate.set()
        for call in calls:
            assert "Hello there." == "".join([chunk.choices[0].delta.content async for chunk in call if chunk.choices])


def _events(answer: Answer) -> Any:
    assert isinstance(answer, Events)
    return answer.events
