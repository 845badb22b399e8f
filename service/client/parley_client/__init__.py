"""The gRPC client of Parley."""

from parley_client.aio.chat import AsyncChat
from parley_client.aio.client import AsyncClient
from parley_client.aio.sessions import AsyncSession, AsyncSessionList, AsyncSessions
from parley_client.aio.stream import AsyncStream
from parley_client.calls import Observer
from parley_client.chat import Chat
from parley_client.client import Client
from parley_client.completion import Completion
from parley_client.errors import (
    AuthenticationError,
    BrokenStreamError,
    CancelledCallError,
    ConflictError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    ParleyError,
    RateLimitError,
    UnavailableError,
    Violation,
)
from parley_client.metadata import RateLimit, RateLimits
from parley_client.retry import Retry
from parley_client.sessions import Session, SessionList, Sessions
from parley_client.stream import Stream
from parley_client.tools import ToolError, TooManyRoundsError
from parley_client.version import VERSION

__version__ = VERSION
__all__ = [
    "AsyncChat",
    "AsyncClient",
    "AsyncSession",
    "AsyncSessionList",
    "AsyncSessions",
    "AsyncStream",
    "AuthenticationError",
    "BrokenStreamError",
    "CancelledCallError",
    "Chat",
    "Client",
    "Completion",
    "ConflictError",
    "DeadlineError",
    "InvalidRequestError",
    "NotFoundError",
    "Observer",
    "ParleyError",
    "RateLimit",
    "RateLimitError",
    "RateLimits",
    "Retry",
    "Session",
    "SessionList",
    "Sessions",
    "Stream",
    "TooManyRoundsError",
    "ToolError",
    "UnavailableError",
    "Violation",
    "__version__",
]
