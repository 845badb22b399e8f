"""The interface of a store of sessions."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from parley.core.ports.claims import Claim
from parley.core.ports.turns import UNLIMITED_STORAGE, StorageLimits, Turn, TurnBegin, TurnEnd, Window
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Selects the sessions to list; None selects all.

    Attributes:
        models: The ids of the models; one that ends with `*` stands for all that begin with the rest.
        updated_after: The earliest time of the latest turn, in Unix seconds, inclusive.
        updated_before: The end of the time of the latest turn, in Unix seconds, exclusive.
        labels: The labels that a session must have; None as a value for any value.
        query: The words that a session must have; see `parley.core.sessions.search`. Only indexed turns are found.
    """

    models: frozenset[str] | None = None
    updated_after: int | None = None
    updated_before: int | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    query: str | None = None

    @property
    def prefixes(self) -> list[str]:
        """What precedes the `*` of the ids that end with one."""
        return sorted(model[:-1] for model in self.models or () if model.endswith("*"))


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one run of the reaper cleared.

    Attributes:
        crashed: Turns marked as `incomplete(crashed)`.
        sessions: Sessions deleted after their retention period.
        claims: Idempotency keys deleted after theirs.
        answers: Kept answers removed after their time.
    """

    crashed: int = 0
    sessions: int = 0
    claims: int = 0
    answers: int = 0


class SessionStore(Protocol):
    """Stores sessions. Every method raises StoreUnavailable if the store cannot be reached.

    A session of another account is treated as one that does not exist. When a method returns, its writes are on disk
    and visible to every worker.
    """

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session and stores the new messages.

        `parley.core.sessions.resent_history` decides which messages are new, `parley.core.sessions.history` how much
        of the history is sent. A turn with an expired lease is marked `incomplete(crashed)`.

        Args:
            begin: The turn to begin.
            lease_seconds: The duration of the lease.

        Returns:
            The turn with its history.

        Raises:
            SessionNotFound: The account has no such session.
            SessionOfOtherModel: The session belongs to another model.
            SessionBusy: Another turn holds the lease.
            InvalidRequest: No message is new, the request contradicts the session, or the history is too long.
            StorageLimitExceeded: The new session or messages exceed a limit.
        """
        ...

    def defer_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn | None:
        """Begins the first turn of a new session without a write: it follows within 0.2 s, or with the turn's end.

        Only for a caller that learns the id of the session after the end of the turn: a crash before the write leaves
        no trace of the turn, as a crash before `begin_turn` returns.

        Args:
            begin: The turn, with `new`.
            lease_seconds: The duration of the lease, from the write on.

        Returns:
            The turn; None if the store cannot defer it and `begin_turn` must begin it.

        Raises:
            StorageLimitExceeded: The messages exceed the limit of a session.
        """
        ...

    def end_turn(self, turn: Turn, end: TurnEnd) -> asyncio.Future[None]:
        """Starts to append the answer, end the turn and release the lease.

        Raises:
            TurnLost: The turn or its claim is no longer held; nothing is written.
        """
        ...

    async def renew_leases(self, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        """Extends the leases of turns and claims that are still held; lost leases are skipped."""
        ...

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Returns when the session's lease may have been released, at the latest after `seconds`."""
        ...

    async def get_session(self, account: str, session_id: str) -> Session:
        """Returns one session, without its messages. Raises SessionNotFound."""
        ...

    async def list_sessions(
        self, account: str, chosen: SessionFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Session], str | None]:
        """Returns a page of sessions, latest turn first, and the token of the next page.

        Raises:
            InvalidRequest: The token or the query is invalid.
        """
        ...

    async def index_sessions(self, account: str) -> bool:
        """Indexes the words of the account's ended turns that are not indexed, for about a second.

        Returns:
            Whether all are indexed. Turns that end later are not.
        """
        ...

    async def update_session(
        self, account: str, session_id: str, title: str | None, labels: Mapping[str, str | None]
    ) -> Session:
        """Changes the title and the labels of a session.

        Args:
            account: The account that owns the session.
            session_id: The key of the session in the store.
            title: The title; empty to remove it, None to leave it.
            labels: The labels to set; None as a value removes one.

        Returns:
            The changed session.

        Raises:
            SessionNotFound: The account has no such session.
            InvalidRequest: The session would have too many labels.
        """
        ...

    async def list_messages(
        self, account: str, session_id: str, *, page_size: int, page_token: str | None, after_turn: int = 0
    ) -> tuple[list[SessionMessage], str | None]:
        """Returns a page of messages, oldest first, and the token of the next page.

        Args:
            account: The account that owns the session.
            session_id: The key of the session in the store.
            page_size: The maximum number of messages.
            page_token: The token of the previous page; None for the first page.
            after_turn: The first page begins behind this turn.

        Raises:
            SessionNotFound: The account has no such session.
            InvalidRequest: The token is invalid.
        """
        ...

    async def latest_messages(self, account: str, session_id: str, count: int, max_bytes: int) -> list[Message]:
        """Returns the latest messages of a session's completed turns, oldest first; none if it does not exist.

        Args:
            account: The account that owns the session.
            session_id: The id of the session.
            count: The largest number of messages.
            max_bytes: The largest size of all of them, serialized.
        """
        ...

    async def history_tokens(self, account: str, session_id: str, window: Window) -> int:
        """Estimates the tokens that the session adds to the prompt of its next turn; 0 if it does not exist."""
        ...

    async def fork_session(  # noqa: PLR0913, PLR0917 - what a fork depends on
        self,
        account: str,
        session_id: str,
        new_id: str,
        through_turn: int | None,
        claim: Claim | None = None,
        storage: StorageLimits = UNLIMITED_STORAGE,
    ) -> Session:
        """Creates a session from the completed turns of another; the turns keep their numbers.

        Args:
            account: The account that owns both sessions.
            session_id: The id of the session to copy.
            new_id: The id of the new session.
            through_turn: The number of the last turn to copy; None for all.
            claim: Stores the serialized new session as its reply, in the same transaction.
            storage: Limits what is stored.

        Returns:
            The new session.

        Raises:
            SessionNotFound: The account has no such session.
            InvalidRequest: The session has no such turn, or is too long for one transaction.
            StorageLimitExceeded: The new session exceeds a limit.
            TurnLost: The claim is no longer held.
        """
        ...

    async def import_session(
        self,
        account: str,
        session_id: str,
        session: Session,
        messages: Sequence[SessionMessage],
        storage: StorageLimits = UNLIMITED_STORAGE,
    ) -> bool:
        """Adds a session with its messages, in one transaction.

        Args:
            account: The account that owns the session.
            session_id: The key of the session in the store.
            session: Its properties.
            messages: Its messages, the oldest first.
            storage: Limits what is stored.

        Returns:
            Whether it was added; False if the key is in use, or that of a deleted session that is being removed.

        Raises:
            InvalidRequest: The session is too long for one transaction.
            StorageLimitExceeded: The session exceeds a limit.
        """
        ...

    async def delete_session(
        self, account: str, session_id: str, claim: Claim | None = None, reply: bytes = b""
    ) -> None:
        """Deletes the session, its messages and the stored replies of its turns; their idempotency keys remain used.

        One transaction hides the session from all readers and stores `reply` under `claim`. The rows are removed
        afterwards: for about a second in the same call, then by `purge`.

        Raises:
            SessionNotFound: The account has no such session; nothing is deleted in this and the following cases.
            SessionBusy: A turn is in progress.
            TurnLost: The claim is no longer held.
        """
        ...

    async def purge(self) -> bool:
        """Removes rows of deleted sessions in small transactions, for about a second.

        Skips sessions that another worker is purging.

        Returns:
            Whether rows may remain.
        """
        ...

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        """Marks turns with an expired lease `incomplete(crashed)` and deletes old sessions and idempotency keys.

        Ends running calls with an expired lease and returns their reservations. Times are measured by the clock of the
        store, not by that of the process.

        Args:
            session_age: The seconds after its latest turn for which a session is kept; None keeps all. A session with a
                turn in progress is kept.
            claim_age: The seconds for which an idempotency key is kept.
            limit: The maximum number of each kind to clear.
        """
        ...
