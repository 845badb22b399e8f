"""The interface of a store of answers that models with a cache keep."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_AHEAD_SECONDS = 5.0
"""How far the creation of an answer may be ahead of the store's clock. One further ahead is from before a step of the
clock, and its age is unknown."""
ROW_BYTES = 256
"""What a row takes beside its answer, by estimate: it counts for the size of an account's answers."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer to keep.

    Attributes:
        digest: Identifies the requests that it answers.
        account: The account whose call got it.
        model: The id of the requested model.
        session_id: The store's id of the session of that call; None without one. The answer is removed with it.
        answer: The serialized answer.
        ttl: The seconds after which it is removed.
    """

    digest: bytes
    account: str
    model: str
    session_id: str | None
    answer: bytes
    ttl: float

    @property
    def size(self) -> int:
        """The bytes that count for the size of the account's answers."""
        return len(self.answer) + ROW_BYTES


class CacheSize(NamedTuple):
    """The answers that an account has of a model.

    Attributes:
        account: The name of the account.
        model: The id of the model.
        answers: Their number.
        bytes: Their size.
    """

    account: str
    model: str
    answers: int
    bytes: int


class CacheStore(Protocol):
    """Stores answers. Every method raises StoreUnavailable if the store is unreachable.

    Ages are measured by the store's clock. The reaper of the sessions' store removes answers after their time.
    """

    async def find_answer(self, digest: bytes, max_age: float) -> bytes | None:
        """Returns the answer with this digest, if it is at most `max_age` seconds old; None otherwise."""
        ...

    async def keep_answer(self, kept: KeptAnswer) -> bool:
        """Stores an answer, and replaces an earlier one with its digest.

        Returns:
            Whether it is stored: False if its session is deleted.
        """
        ...

    async def trim_answers(self, account: str, model: str, max_bytes: int, limit: int) -> int:
        """Removes the oldest answers of an account and a model beyond `max_bytes`, at most `limit` of them.

        Returns:
            How many were removed.
        """
        ...

    async def clear_answers(self, account: str | None, model: str | None, limit: int) -> int:
        """Removes answers of an account and of a model, None for all of them, at most `limit` answers.

        Returns:
            How many were removed.
        """
        ...

    async def cache_sizes(self) -> list[CacheSize]:
        """Returns the sizes by account and model, the largest first."""
        ...
