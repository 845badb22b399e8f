"""A store that records its calls, and turns that use it."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from parley.config import Model
from parley.config.loader import parse
from parley.core.errors import StoreUnavailable
from parley.core.ports import Caller, Claim, Settlement, Turn, TurnBegin, TurnEnd
from parley.core.sessions.call_lease import CallLease
from parley.core.sessions.idempotency import Key
from parley.core.sessions.turns import Turns
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

CALLER = Caller("default", "key_1")
KEY = Key("CreateChatCompletion", "k")


def model_config(more: str = "") -> Model:
    """Returns a model; `more` is YAML that is added to it."""
    backends = 'backends: {a: {kind: openai, base_url: "http://127.0.0.1:1"}}'
    return parse(f"{backends}\nmodels: [{{id: m, targets: [{{backend: a}}]{more}}}]", "test").models[0]


class RecordingStore:
    """The part of a store that turns use; writes block until `gate` is set, and `errors` are raised by operation."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.started: list[TurnBegin] = []
        self.ends: list[TurnEnd] = []
        self.claimed: Claim | bytes = Claim("default", KEY.method, KEY.text, 1)
        self.errors: dict[str, list[Exception]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewed = asyncio.Event()

    async def wait_available(self) -> None:
        """Returns at once: the store is available."""

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Records the begin; returns a turn without a history."""
        await self.gate.wait()
        self._fail("begin")
        self.started.append(begin)
        return Turn(begin.session_id, len(self.started), 1, messages=list(begin.messages))

    def end_turn(self, turn: Turn, end: TurnEnd) -> asyncio.Future[None]:
        """Records the end."""
        return asyncio.create_task(self._end_turn(turn, end))

    async def _end_turn(self, turn: Turn, end: TurnEnd) -> None:
        await self.gate.wait()
        self._fail("end")
        self.log.append((end.state, turn.session_id, end.reason))
        self.ends.append(end)

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        """Records the claim; returns `claimed`."""
        await self.gate.wait()
        self.log.append(("claim", account, method, key, digest))
        return self.claimed

    async def settle(self, settlement: Settlement) -> None:
        """Records the settlement."""
        self.log.append(("settled", settlement))

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        """Records whether the key is kept or released."""
        await self.gate.wait()
        self._fail("end_claim")
        self.log.append(("released" if reply is None else "kept", claim.key))

    async def renew_leases(self, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        """Records the renewal. Fails at the first of equal renewals."""
        self.log.append(("renew", sorted(turn.session_id for turn in turns), [claim.key for claim in claims]))
        self.renewed.set()
        if self.log.count(self.log[-1]) == 1:
            raise StoreUnavailable("away for a moment")

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Records the wait."""
        self.log.append(("wait", session_id))

    def _fail(self, what: str) -> None:
        if self.errors.get(what):
            raise self.errors[what].pop(0)


def new_turns(store: RecordingStore, **options: float) -> Turns:
    """Creates the turns of a worker."""
    return Turns(store, **options)  # type: ignore[arg-type] # the part that turns need


async def begin_turn(
    turns: Turns, session: str, lease: CallLease | None = None, model: Model | None = None
) -> CallLease:
    """Begins a turn of a session; returns the lease of its call."""
    lease = lease or CallLease()
    await turns.begin(lease, CreateChatCompletionRequest(session_id=session), CALLER, model or model_config())
    return lease


async def claim_key(turns: Turns) -> CallLease:
    """Claims KEY; returns the lease of its call."""
    lease, _ = await turns.claim(KEY, CreateChatCompletionRequest(), CALLER)
    return lease


async def cancel_during_write(task: asyncio.Task[Any]) -> None:
    """Cancels a task during its first write."""
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
