"""What a store of sessions receives and returns with the turns of a session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parley.core.ports.claims import Claim
from parley.core.ports.limits import Settlement
from parley.v1.message_pb2 import Message, Usage
from parley.v1.receipt_pb2 import Receipt


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a session's history is sent with a turn; None sets no limit.

    System messages are always sent and do not count.

    Attributes:
        max_messages: The number of messages to which the history is trimmed.
        max_tokens: The number of estimated tokens to which the history is trimmed.
        load_messages: A turn whose trimmed history has more messages is rejected before it is read.
        load_bytes: A turn whose trimmed history has more serialized bytes is rejected before it is read.
    """

    max_messages: int | None = None
    max_tokens: int | None = None
    load_messages: int | None = None
    load_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """How much may be stored; None sets no limit. Bytes are those of serialized messages.

    Attributes:
        sessions: The number of sessions of the account.
        bytes: The bytes of all sessions of the account.
        session_bytes: The bytes of one session.
    """

    sessions: int | None = None
    bytes: int | None = None
    session_bytes: int | None = None


UNLIMITED_STORAGE = StorageLimits()


@dataclass(slots=True)  # one a turn; freezing would double the time to make it
class TurnBegin:
    """A turn to begin.

    Attributes:
        account: The account of the caller, which owns the session.
        model: The id of the session's model.
        session_id: The key of the session in the store; see `parley.core.session_ids`.
        new: Whether the session is created with this id.
        messages: The messages of the request, which may repeat messages of the session.
        window: Limits the history of the turn; no limits for a new session, which has none.
        metadata: The request's metadata, stored with the turn.
        storage: Limits what is stored.
        may_create: Whether the session is created if the account does not have it.
        append: Whether all messages are new, so that they are not compared with the history.
    """

    account: str
    model: str
    session_id: str
    new: bool
    messages: Sequence[Message]
    window: Window = field(default_factory=Window)
    metadata: Mapping[str, str] = field(default_factory=dict)
    storage: StorageLimits = UNLIMITED_STORAGE
    may_create: bool = False
    append: bool = False


@dataclass(slots=True)
class Turn:
    """A turn in progress.

    Attributes:
        session_id: The key of the session in the store.
        number: The number of the turn within the session, from 1.
        fence: The fencing token of the lease: the store rejects writes with an older one.
        history: The messages to send to the model before `messages`: the system messages of completed turns, and the
            other messages within the window.
        messages: The messages of the request that are new to the session.
    """

    session_id: str
    number: int
    fence: int
    history: list[Message] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class TurnEnd:
    """The end of a turn. The store writes all of it in one transaction.

    Attributes:
        state: `completed` or `incomplete`.
        reason: Why the turn is incomplete.
        answer: The messages to append to the session.
        usage: The usage in the answer that the caller received; None if it broke off before its usage. `receipt` has
            the usage of all attempts, with estimates of those that broke off.
        claim: The idempotency key of the call. A completed turn stores `reply` under it; an incomplete one releases it.
        reply: The serialized ChatCompletion for repeated calls with the key.
        settlement: Ends the running call of the limits; None for a call without reservations.
        receipt: The attempts of the call.
    """

    state: str
    reason: str | None = None
    answer: Sequence[Message] = ()
    usage: Usage | None = None
    claim: Claim | None = None
    reply: bytes = b""
    settlement: Settlement | None = None
    receipt: Receipt | None = None
