"""Helpers of the store contract."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from parley.core.ports import (
    Account,
    ApiKey,
    Charge,
    Reservation,
    RunningCall,
    Settlement,
    StorageLimits,
    Store,
    Turn,
    TurnBegin,
    TurnEnd,
    Window,
)
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.v1.message_pb2 import Message

LEASE = 10.0
WHOLE = Window()


class Clock:
    """A clock in Unix seconds that only `advance` moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        """Returns the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Advances the clock."""
        self.now += seconds


def message(role: str, text: str) -> Message:
    """Returns a message with text content."""
    made = Message(role=role)
    made.content.string_value = text
    return made


def texts(messages: Sequence[Message]) -> list[str]:
    """Returns the texts of messages."""
    return [one.content.string_value for one in messages]


async def begin(
    store: Store,
    session: str,
    *messages: str | Message,
    new: bool = False,
    account: str = "ada",
    model: str = "m",
    window: Window = WHOLE,
    metadata: Mapping[str, str] | None = None,
    storage: StorageLimits = UNLIMITED_STORAGE,
) -> Turn:
    """Begins a turn with messages; a string becomes a user message."""
    items = [message("user", one) if isinstance(one, str) else one for one in messages]
    opening = TurnBegin(account, model, session, new, items, window, metadata or {}, storage)
    return await store.begin_turn(opening, LEASE)


async def complete(store: Store, turn: Turn, *answered: str) -> None:
    """Completes a turn."""
    await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", text) for text in answered]))


async def end_incomplete(store: Store, turn: Turn, reason: str, *answered: str) -> None:
    """Ends a turn as incomplete."""
    answer = [message("assistant", text) for text in answered]
    await store.end_turn(turn, TurnEnd("incomplete", reason, answer))


async def converse(store: Store, session: str, question: str, answer: str, *, new: bool = False) -> None:
    """Begins and completes a turn."""
    turn = await begin(store, session, question, new=new)
    await complete(store, turn, answer)


async def all_messages(store: Store, session: str, account: str = "ada") -> list[tuple[str, int, str, str | None]]:
    """Returns text, turn, state and reason of every message."""
    found, _ = await store.list_messages(account, session, page_size=1000, page_token=None)
    return [
        (one.message.content.string_value, one.turn, one.state, one.reason if one.HasField("reason") else None)
        for one in found
    ]


def key(number: int, *, account: str = "ada", plan: str = "pro", expires: int | None = None) -> ApiKey:
    """Returns a key as passed to the store."""
    digest = bytes([number]) * 32
    owner = Account(account, plan)
    return ApiKey(f"key_{number}", f"name {number}", owner, digest, ("m1", "m2"), 1_700_000_000, expires)


def charge(amount: int, *, subject: str = "key:1", kind: str = "tokens", per_minute: int = 60) -> Charge:
    """Returns a charge on a bucket that refills by one per second."""
    return Charge(subject, kind, per_minute, amount)


async def hold(store: Store, *charges: Charge, call_id: str = "call", lease_seconds: float = LEASE) -> Reservation:
    """Reserves charges for a running call of a key and an account."""
    return await store.reserve(charges, RunningCall(call_id, "key:1", "account:a"), lease_seconds)


def settlement(*charges: tuple[Charge, float], call_id: str = "call") -> Settlement:
    """Returns the end of a running call: each charge with the amount that was used."""
    return Settlement(call_id, [replace(one, amount=used, reserved=one.amount) for one, used in charges])
