"""Failures of the HTTP client.

    HttpError
    ├── ConnectionFailed            no connection was made, so the server has not received the request
    ├── Disconnected                the server closed the connection without a response
    ├── MalformedHead               the head of the response is not valid HTTP/1.1
    ├── MalformedBody               the body of the response is malformed or truncated
    ├── ProxyRefused                the proxy refused a tunnel
    └── RetriedOnFreshConnection    the retry failed too
    PoolExhausted                   no connection became free in time

The texts never quote bytes of a response.
"""


class HttpError(Exception):
    """Base class of the failures."""


class Disconnected(HttpError):
    """The server closed the connection, or the connection was lost, before the first byte of a response."""


class MalformedHead(HttpError):
    """The head of the response is not valid HTTP/1.1, too large, or truncated."""


class MalformedBody(HttpError):
    """The body of the response is malformed or truncated."""


class ProxyRefused(HttpError):
    """The proxy refused a tunnel."""


class _Caused(HttpError):
    """A failure with a cause.

    Attributes:
        error: The cause.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ConnectionFailed(_Caused):
    """No connection was made, so the server has not received the request."""


class RetriedOnFreshConnection(_Caused):
    """The retry on a fresh connection failed too; the first attempt used a pooled connection that was closed."""


class PoolExhausted(TimeoutError):
    """All connections of the pool are in use, and none was released in time."""


FAILURES = (HttpError, OSError)
"""The exceptions that a call raises; TimeoutError is a subclass of OSError."""
