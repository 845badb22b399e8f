"""Admission of calls: their scope, and the request that each costs."""

from contextlib import suppress

from parley.core.errors import ScopeRequired, StoreUnavailable
from parley.core.ports import Scope
from parley.core.usage.limits import RateLimiter
from parley.rpc.call import Call
from parley.v1.chat_completions_pb2 import DESCRIPTOR

COMPLETIONS = frozenset(DESCRIPTOR.services_by_name["ChatCompletions"].methods_by_name)
"""The methods whose calls the core admits."""


class Admission:
    """Charges every call one request.

    A completion is charged when the core admits it, and one that fails before is charged then. Other calls are charged
    at once.
    """

    def __init__(self, limits: RateLimiter) -> None:
        self._limits = limits

    async def admit(self, call: Call) -> None:
        """Charges a call, and records its caller's limits. Raises RateLimited, StoreUnavailable."""
        if call.caller is None:
            return
        admission = await self._limits.admit_request(call.caller)
        call.outcome.rate_limits = admission.statuses
        admission.require_granted()

    async def charge_failed(self, call: Call, error: BaseException) -> None:
        """Charges a completion that has failed, unless the core has admitted it.

        Raises:
            RateLimited: The limits are exhausted. It replaces the error of the call.
        """
        if call.caller is None or call.outcome.rate_limits is not None:
            return
        if not isinstance(error, Exception):
            self._limits.charge_request(call.caller)
            return
        if isinstance(error, StoreUnavailable):
            return  # the charge would wait for the store once more
        with suppress(StoreUnavailable):  # the first error is the one to report
            await self.admit(call)


def require_scope(call: Call, scope: Scope) -> None:
    """Raises ScopeRequired if the caller lacks the scope."""
    if call.caller is not None and not call.caller.has_scope(scope):
        raise ScopeRequired(scope)
