"""The base of all errors that callers see."""

from parley.v1 import error_reason_pb2 as reasons

# An error travels in headers; headers that are too long end the connection with all of its calls.
_MAX_MESSAGE = 512
MAX_PARAM = 96


class ParleyError(Exception):
    """A failure that callers see.

    Attributes:
        message: What is wrong and what to do, for the caller; cut after 512 bytes.
        param: The request's field at fault, as `messages[0].role`, or None; cut after 96 bytes.
        retry_after: Seconds after which to retry, or None.
        cause: What only the operator may see, for the log, or None.
        is_quoted: Whether the message is in the words of a backend, which may quote the request: it is not logged.
        retries_exhausted: Whether the call has made all upstream retries that it may, and the backends would be called
            again at once: a client library that retries would multiply the upstream calls.
    """

    reason: reasons.ErrorReason.ValueType = reasons.ERROR_REASON_INTERNAL

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = cut(message, _MAX_MESSAGE)
        self.param = cut(param, MAX_PARAM) if param else None
        self.retry_after = retry_after
        self.cause = cause
        self.is_quoted = False
        self.retries_exhausted = False


def cut(text: str, size: int) -> str:
    """Returns the text, cut to `size` bytes of UTF-8 with an ellipsis at the end if it is longer."""
    raw = text.encode(errors="replace")
    return text if len(raw) <= size else raw[: size - 3].decode(errors="ignore") + "…"
