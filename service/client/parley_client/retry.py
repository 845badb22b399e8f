"""When a failed call is made again, and after what delay."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from parley_client.errors import ParleyError

SERVICE_CONFIG: dict[str, Any] = json.loads(
    (Path(__file__).parent / "v1" / "service_config.json").read_text(encoding="utf-8")
)
"""The service config that Parley recommends: load balancing, health checks, and the retry policy."""

_POLICY = SERVICE_CONFIG["methodConfig"][0]["retryPolicy"]
_JITTER = random.SystemRandom()
_NEVER = frozenset({"UPSTREAM_QUOTA_EXHAUSTED"})


def channel_config() -> str:
    """Returns the service config of a channel, without the retry policy: the client applies that itself.

    gRPC's own implementation neither continues a stream nor retries a request of more than 256 KiB.
    """
    methods = [{**one, "waitForReady": False} for one in SERVICE_CONFIG["methodConfig"]]
    for method in methods:
        del method["retryPolicy"]
    return json.dumps({**SERVICE_CONFIG, "methodConfig": methods})


@dataclass(frozen=True, slots=True)
class Retry:
    """When to make a call again. The defaults are those of the recommended service config.

    Each call that writes has an idempotency key: a repeated call returns the answer of the first one, if it was stored.
    """

    attempts: int = _POLICY["maxAttempts"]
    """The most attempts, the first one included; 1 for no retries."""
    initial_delay: float = float(_POLICY["initialBackoff"].rstrip("s"))
    """Seconds before the second attempt, where the service does not name a delay. Each later delay is twice as long."""
    max_delay: float = float(_POLICY["maxBackoff"].rstrip("s"))
    """The longest delay in seconds. If the service names a longer one, the call fails at once."""

    def delay(self, error: ParleyError, attempt: int) -> float | None:
        """Returns the seconds to wait after a failed attempt; None where the call is not made again.

        Args:
            error: Why the attempt failed.
            attempt: Its number, from 1.
        """
        if attempt >= self.attempts or not _is_transient(error):
            return None
        if error.retry_delay is not None:
            return error.retry_delay if 0 <= error.retry_delay <= self.max_delay else None
        backoff: float = min(self.max_delay, self.initial_delay * 2 ** (attempt - 1))
        return backoff * _JITTER.uniform(0.8, 1.2)  # as in gRFC A6


def _is_transient(error: ParleyError) -> bool:
    """Reports whether the same call may succeed later."""
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # without a delay it is a message above a limit of gRPC
        return error.retry_delay is not None and error.reason not in _NEVER
    if error.code is grpc.StatusCode.INTERNAL:  # a connection that broke; the service's own errors have a reason
        return error.reason is None
    return error.code.name in _POLICY["retryableStatusCodes"]
