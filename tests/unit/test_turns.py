"""The life of a turn's lease, against a store that records."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from parley.config import parse
from parley.core.errors import StoreUnavailable
from parley.core.ports import Caller, Turn, TurnBegin
from parley.core.turns import Turns
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

CALLER = Caller("default", "key_1")
MODEL = parse(
    'backends: {a: {kind: openai, base_url: "http://127.0.0.1:1"}}\nmodels: [{id: m, targets: [{backend: a}]}]', "test"
).models[0]


class RecordingStore:
    """The part of the store that turns need; `gate` holds writes back while it is unset."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewed = asyncio.Event()

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        await self.gate.wait()
        return Turn(begin.session_id, 1, 1)

    async def commit_turn(self, turn: Turn, answer: Sequence[Message]) -> None:
        await self.gate.wait()
        self.log.append(("commit", turn.session_id))

    async def abandon_turn(self, turn: Turn, reason: str, answer: Sequence[Message]) -> None:
        self.log.append(("abandon", turn.session_id, reason))

    async def renew_leases(self, turns: Iterable[Turn], lease_seconds: float) -> None:
        self.log.append(("renew", sorted(turn.session_id for turn in turns)))
        self.renewed.set()
        if self.log.count(self.log[-1]) == 1:
            raise StoreUnavailable("away for a moment")


@pytest.fixture
def store() -> RecordingStore:
    """The store."""
    return RecordingStore()


async def _begin(turns: Turns, session: str) -> Turn:
    turn = await turns.begin(CreateChatCompletionRequest(session_id=session), CALLER, MODEL)
    assert turn is not None
    return turn


async def test_leases_are_renewed_while_turns_run_and_no_longer(store: RecordingStore) -> None:
    """Running turns are renewed together, through a failure of the store; ended ones are not."""
    turns = Turns(store, renew_seconds=0.01)  # type: ignore[arg-type] # the part that turns need
    first, _ = await _begin(turns, "a"), await _begin(turns, "b")
    await asyncio.wait_for(store.renewed.wait(), 10)
    await turns.commit(first, None)
    store.renewed.clear()
    await asyncio.wait_for(store.renewed.wait(), 10)
    await turns.close()
    assert ("renew", ["a", "b"]) == store.log[0]
    assert ("renew", ["b"]) == store.log[-1]


async def test_a_caller_who_leaves_while_the_turn_begins_leaves_no_lease(store: RecordingStore) -> None:
    """The turn that comes into being without its caller is abandoned."""
    turns = Turns(store)  # type: ignore[arg-type]
    store.gate.clear()
    task = asyncio.create_task(turns.begin(CreateChatCompletionRequest(session_id="a"), CALLER, MODEL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.gate.set()
    while not store.log:
        await asyncio.sleep(0)
    assert [("abandon", "a", "cancelled")] == store.log


async def test_a_commit_outlives_its_cancelled_caller(store: RecordingStore) -> None:
    """Once the answer is whole it is kept, and closing waits for that."""
    turns = Turns(store)  # type: ignore[arg-type]
    turn = await _begin(turns, "a")
    store.gate.clear()
    task = asyncio.create_task(turns.commit(turn, None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.gate.set()
    await turns.close()
    assert [("commit", "a")] == store.log
