"""Failures of the service: its deadline, its store, its shutdown."""

from parley.core.errors.base import ParleyError
from parley.v1 import error_reason_pb2 as reasons


class DeadlineExceeded(ParleyError):
    """The caller's own deadline passed."""

    reason = reasons.ERROR_REASON_DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("The deadline passed before the answer was whole")


class StoreUnavailable(ParleyError):
    """Sessions and keys cannot be read or written."""

    reason = reasons.ERROR_REASON_STORE_UNAVAILABLE

    def __init__(self, cause: str) -> None:
        super().__init__("The store is not available; try again later", retry_after=1, cause=cause)


class StoreMisconfigured(StoreUnavailable):
    """The store refuses its configuration: its credentials, its database, or its tables. Retrying does not help."""


class LocalResourcesExhausted(ParleyError):
    """This machine has no descriptors, memory or disk space left. Another target would fail in the same way."""

    reason = reasons.ERROR_REASON_LOCAL_RESOURCES

    def __init__(self, cause: str) -> None:
        super().__init__("The service has reached a limit of its machine; try again later", retry_after=1, cause=cause)


class LocalPortsExhausted(LocalResourcesExhausted):
    """This machine has no local ports left for connections to the address of one target."""


class ShuttingDown(ParleyError):
    """This worker is stopping; another worker serves the retry."""

    reason = reasons.ERROR_REASON_SHUTTING_DOWN

    def __init__(self) -> None:
        super().__init__("The service is shutting down; try again", retry_after=1)
