"""What the core needs of a store to keep sessions, and answers that may be asked for again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from parley.core.ports.limits import Charge
from parley.v1.message_pb2 import Message, Usage
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import Session, SessionMessage


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a session's past goes with a turn, in messages and in estimated tokens; None is no bound.

    System messages always go, and count for nothing here. What goes may have up to `load_messages` messages and
    `load_bytes` bytes: a turn with more is refused before any of it is read.
    """

    max_messages: int | None = None
    max_tokens: int | None = None
    load_messages: int | None = None
    load_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TurnBegin:
    """A turn to begin: in the session `session_id`, or where `new` is set in a session to be made with that id.

    `messages` are the request's, which may repeat what the session has. `window` bounds the history that the turn gets.
    `reserved` are the tokens that the call has reserved of its limits: the store gives them back if the turn crashes.
    """

    account: str
    model: str
    session_id: str
    new: bool
    messages: Sequence[Message]
    window: Window = field(default_factory=Window)
    metadata: Mapping[str, str] = field(default_factory=dict)
    reserved: Sequence[Charge] = ()


@dataclass(slots=True)
class Turn:
    """A turn in progress.

    `fence` is the number of its lease: a write with an older one is refused. `history` is what goes to the model
    before the turn's own `messages`: the system messages of completed turns, and of the rest what the window holds.
    `messages` are those that were new to the session.
    """

    session_id: str
    number: int
    fence: int
    history: list[Message] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Claim:
    """An `Idempotency-Key` in use: whose, for which endpoint. `fence` grows each time that the key is claimed anew."""

    account: str
    method: str
    key: str
    fence: int


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ends. All of it is written in one transaction.

    `state` is `completed` or `incomplete`, then with a `reason`. `answer` is what is added to the session, `usage`
    what it cost. `claim` is the key that the call came with: completed, it keeps `reply`, a serialized ChatCompletion,
    for those who ask again; incomplete, it is free again. `charges` settle the limits.
    """

    state: str
    reason: str | None = None
    answer: Sequence[Message] = ()
    usage: Usage | None = None
    claim: Claim | None = None
    reply: bytes = b""
    charges: Sequence[Charge] = ()
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list: of one model, their latest turn within Unix seconds (`after` ≤ t < `before`)."""

    model: str | None = None
    updated_after: int | None = None
    updated_before: int | None = None


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a reaper has cleared: crashed turns, sessions past their retention, and keys past theirs."""

    crashed: int = 0
    sessions: int = 0
    claims: int = 0


class SessionStore(Protocol):
    """Keeps sessions. Every method raises `StoreUnavailable` when the store cannot be reached.

    A session or turn of another account is treated as one that does not exist. What a method has returned from is on
    disk and visible to every worker.
    """

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session, stores the turn's new messages, and returns it with the history before it.

        `parley.core.sessions.resent_history` decides what is new, `parley.core.sessions.history` what of the past
        goes with it. A turn whose lease has run out is marked `incomplete(crashed)` on the way. Raises
        SessionNotFound, SessionOfOtherModel, SessionBusy, and InvalidRequest where nothing is new or the request
        contradicts the session.
        """
        ...

    async def end_turn(self, turn: Turn, end: TurnEnd) -> None:
        """Adds the answer, ends the turn and gives the lease back. Raises TurnLost, and writes nothing then."""
        ...

    async def renew_leases(self, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        """Extends the leases of turns and claims that are still in progress; those already lost are left alone."""
        ...

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Returns when the session's lease may have been given back, at the latest after so many seconds."""
        ...

    async def get_session(self, account: str, session_id: str) -> Session:
        """Returns one session, without its messages. Raises SessionNotFound."""
        ...

    async def list_sessions(
        self, account: str, chosen: SessionFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Session], str | None]:
        """Returns a page, the latest turn first, and the next page's token. Raises InvalidRequest for a bad token."""
        ...

    async def list_messages(
        self, account: str, session_id: str, *, page_size: int, page_token: str | None
    ) -> tuple[list[SessionMessage], str | None]:
        """Returns a page, the oldest first, and the next token. Raises SessionNotFound, InvalidRequest."""
        ...

    async def fork_session(
        self, account: str, session_id: str, new_id: str, through_turn: int | None, claim: Claim | None = None
    ) -> Session:
        """Makes a session `new_id` of the completed turns up to one, or of all; they keep their numbers.

        `claim` keeps the new session, serialized, as its reply; in the same transaction. Raises SessionNotFound,
        InvalidRequest where the session has no such turn, and TurnLost where the claim is lost.
        """
        ...

    async def delete_session(
        self, account: str, session_id: str, claim: Claim | None = None, reply: bytes = b""
    ) -> None:
        """Removes the session, every message of it, and the kept answers of its turns; their keys stay known.

        One transaction hides all of it from every reader, and `claim` keeps `reply` in it. The rows are removed after
        it, in the same call for about a second and then by `purge`. Raises SessionNotFound, SessionBusy, and TurnLost
        where the claim is lost; nothing is deleted then.
        """
        ...

    async def purge(self) -> bool:
        """Removes rows of deleted sessions, in small transactions and for about a second.

        Returns whether there may be more to remove. A session that another worker is removing is left to that worker.
        """
        ...

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        """Marks turns whose lease ran out `incomplete(crashed)`; deletes what is older than the two ages in seconds.

        What a crashed turn had reserved of the limits is given back. The store's own time decides, and not that of the
        process. At most `limit` of each are cleared; a session's age is that of its latest turn, and one with a turn in
        progress stays. None deletes no session.
        """
        ...


class ClaimStore(Protocol):
    """Keeps `Idempotency-Key`s and the answers that they got. Raises `StoreUnavailable`."""

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        """Claims a key for a request with this SHA-256; returns the reply where it has been answered already.

        Raises KeyInUse while another call holds it, KeyReused where it came with another request, and ReplyDeleted
        where the reply was deleted with its session.
        """
        ...

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        """Keeps the reply of a call that no session keeps, or frees the key where there is none. Raises TurnLost."""
        ...
