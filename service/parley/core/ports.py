"""What the core needs from outside: backends that answer, and a store that remembers."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from parley.config import Timeouts
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the account, the key's id, and the model ids that the key may use (empty: all)."""

    account: str
    key_id: str
    models: frozenset[str] = frozenset()

    def may_use(self, model: str) -> bool:
        """Tells whether the key is good for this model id."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One request to one target.

    `request` holds the whole conversation, history and instructions included, with the model's defaults filled in; its
    `model` is the caller's. `model` is the target's own name for it. `deadline` is a time of the event loop's clock in
    seconds, or None: the caller sets no bound beyond `timeouts`.
    """

    request: CreateChatCompletionRequest
    model: str
    timeouts: Timeouts
    deadline: float | None = None


class Backend(Protocol):
    """An upstream that answers conversations.

    Both ways raise `UpstreamError`s, DeadlineExceeded past the call's `deadline`, `UnsupportedParameter` for what this
    backend cannot honour, and InvalidRequest for an `extra_body` or a schema that cannot be sent. Cancelling the task,
    or closing the iterator, closes the connection to the upstream within a second.
    """

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole. `id`, `created`, `model`, `session_id` are the core's to set."""
        ...

    def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers in chunks as they come, which are the caller's to change; what arrived together may be one chunk.

        The last chunk with usage has the whole of it. Ends normally only after the upstream said that the answer is
        whole.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...


@dataclass(frozen=True, slots=True)
class TurnBegin:
    """A turn to begin: in the session `session_id`, or where `new` is set in a session to be made with that id."""

    account: str
    model: str
    session_id: str
    new: bool
    messages: Sequence[Message]


@dataclass(slots=True)
class Turn:
    """A turn in progress.

    `fence` is the number of its lease: a write with an older one is refused. `history` has the messages of the
    completed turns before it, the oldest first.
    """

    session_id: str
    number: int
    fence: int
    history: list[Message] = field(default_factory=list)


class SessionStore(Protocol):
    """Keeps sessions. Every method raises `StoreUnavailable` when the store cannot be reached.

    A session or turn of another account is treated as one that does not exist. What a method has returned from is on
    disk and visible to every worker.
    """

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session, stores the turn's messages, and returns it with the history before it.

        A turn whose lease has run out is marked `incomplete(crashed)` on the way. A caller that is cancelled meanwhile
        leaves no lease behind. Raises SessionNotFound, SessionOfOtherModel, SessionBusy.
        """
        ...

    async def commit_turn(self, turn: Turn, answer: Sequence[Message]) -> None:
        """Appends the answer, completes the turn and gives the lease back. Raises TurnLost."""
        ...

    async def abandon_turn(self, turn: Turn, reason: str, answer: Sequence[Message]) -> None:
        """Appends the partial answer, marks the turn `incomplete(reason)`, gives the lease back. Raises TurnLost."""
        ...

    async def renew_leases(self, turns: Iterable[Turn], lease_seconds: float) -> None:
        """Extends the leases of turns that are still in progress; those already lost are left alone."""
        ...

    async def get_session(self, account: str, session_id: str) -> Session:
        """Returns one session, without its messages. Raises SessionNotFound."""
        ...

    async def list_sessions(
        self, account: str, *, model: str | None, page_size: int, page_token: str | None
    ) -> tuple[list[Session], str | None]:
        """Returns a page, the latest turn first, and the next page's token. Raises InvalidRequest for a bad token."""
        ...

    async def list_messages(
        self, account: str, session_id: str, *, page_size: int, page_token: str | None
    ) -> tuple[list[SessionMessage], str | None]:
        """Returns a page, the oldest first, and the next token. Raises SessionNotFound, InvalidRequest."""
        ...

    async def delete_session(self, account: str, session_id: str) -> None:
        """Removes the session and every message of it. Raises SessionNotFound, SessionBusy."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: `digest` is the SHA-256 of the secret, times are Unix seconds."""

    id: str
    name: str
    account: str
    plan: str
    digest: bytes
    models: tuple[str, ...]
    created: int
    expires: int | None = None
    revoked: int | None = None


class KeyStore(Protocol):
    """Keeps API keys and the accounts they belong to. Raises `StoreUnavailable`."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns the key with this digest, whatever its state; `plan` is its account's."""
        ...

    async def add_key(self, key: ApiKey, *, keep_plan: bool = False) -> ApiKey:
        """Stores a key, and returns it with its account's plan.

        A new account is made with the key's plan; one that is there gets it, unless `keep_plan` is set.
        """
        ...

    async def list_keys(self) -> list[ApiKey]:
        """Returns every key, the oldest first."""
        ...

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """Marks the key revoked (once: a second call keeps the first time). None where there is no such key."""
        ...


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call takes from a bucket, which holds the amount of a minute and fills up evenly.

    `subject` and `kind` name the bucket: `key:ID` or `account:NAME`, `requests` or `tokens`; `per_minute` is its size.
    A negative `amount` gives back.
    """

    subject: str
    kind: str
    per_minute: int
    amount: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """Whether a call was let in, and what is left in each bucket: less than nothing where it has overdrawn."""

    granted: bool
    left: tuple[float, ...]


class LimitStore(Protocol):
    """Counts what is used of limits, for all workers together. Raises `StoreUnavailable`."""

    async def reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Takes all charges from their buckets, or none where one of them does not fit."""
        ...

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Takes or gives back the difference to what was reserved: a bucket never refuses, and never overflows."""
        ...


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Reads an `authorization` value. Raises Unauthenticated, InvalidApiKey, PlanRequired, StoreUnavailable."""
        ...


class Store(SessionStore, KeyStore, LimitStore, Protocol):
    """One database with all of it."""

    async def check(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        ...

    async def close(self) -> None:
        """Finishes what is being written, then closes."""
        ...
