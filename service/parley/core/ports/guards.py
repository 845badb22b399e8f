"""The interface of a guard, which decides on the texts of requests and answers."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # loaded only where guards are configured
    from parley.guard.v1.guard_pb2 import CheckRequest, CheckResponse


class GuardError(Exception):
    """A guard has failed.

    Attributes:
        reason: The kind of failure, as receipts name it: `unreachable`, `error` or `invalid_response`.
        cause: What only the operator may see; never a part of the text.
    """

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(cause)
        self.reason = reason
        self.cause = cause


class Guard(Protocol):
    """A guard. The core validates its decisions."""

    @property
    def is_remote(self) -> bool:
        """Whether checks depend on something that can be slow or unreachable.

        The core then limits the time of each, and calls the guard less often while it fails.
        """
        ...

    async def check(self, request: "CheckRequest") -> "CheckResponse":
        """Returns the decision on the texts of a request. Raises GuardError. May be cancelled at any time."""
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...
