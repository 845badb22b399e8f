"""Failures of sessions, turns and idempotency keys."""

from parley.core.errors.base import ParleyError
from parley.core.session_ids import public_id
from parley.v1 import error_reason_pb2 as reasons


class SessionNotFound(ParleyError):
    """The session does not exist, or belongs to another account."""

    reason = reasons.ERROR_REASON_SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f'Unknown session "{public_id(session_id)}"', param="chatSessionId")


class SessionBusy(ParleyError):
    """Another turn of the session is running.

    Args:
        session_id: The id of the session.
        retry_after: The remaining seconds of the other turn's lease, by the store's clock.
    """

    reason = reasons.ERROR_REASON_SESSION_BUSY

    def __init__(self, session_id: str, retry_after: float = 1.0) -> None:
        message = f'Session "{public_id(session_id)}" is answering another request; try again when it has finished'
        super().__init__(message, param="chatSessionId", retry_after=retry_after)


class TurnLost(ParleyError):
    """This worker stalled for longer than its lease, and another worker has taken over the session."""

    reason = reasons.ERROR_REASON_TURN_LOST

    def __init__(self) -> None:
        super().__init__("The turn was taken over by another worker; try again")


class KeyInUse(ParleyError):
    """The call with this Idempotency-Key is still running.

    Args:
        retry_after: The remaining seconds of that call's lease, by the store's clock.
    """

    reason = reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE

    def __init__(self, retry_after: float = 1.0) -> None:
        message = "The request with this `Idempotency-Key` is still running; try again when it has finished"
        super().__init__(message, retry_after=retry_after)


class KeyReused(ParleyError):
    """An earlier, different request had this Idempotency-Key."""

    reason = reasons.ERROR_REASON_IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__("This `Idempotency-Key` came with another request; use a new key for a new request")


class ReplyDeleted(ParleyError):
    """The answer to the request with this Idempotency-Key was deleted with its session."""

    reason = reasons.ERROR_REASON_SESSION_NOT_FOUND

    def __init__(self) -> None:
        message = (
            "The session of the request with this `Idempotency-Key` has been deleted, and its answer with it; "
            "use a new key to send the request again"
        )
        super().__init__(message, param="Idempotency-Key")
