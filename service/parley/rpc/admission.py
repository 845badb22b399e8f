"""Admission of calls: their scope, and the request that each costs."""

from contextlib import suppress
from typing import Any

from parley.core.errors import ScopeRequired, StoreUnavailable
from parley.core.ports import Scope
from parley.core.usage.limits import RateLimiter
from parley.rpc.call import caller, current
from parley.rpc.interceptors import PUBLIC, Behaviour, Context, Interceptor, MethodHandler
from parley.rpc.metadata import headers
from parley.rpc.scopes import SCOPES
from parley.v1.chat_completions_pb2 import DESCRIPTOR

_COMPLETIONS = frozenset(DESCRIPTOR.services_by_name["ChatCompletions"].methods_by_name)


class AdmissionInterceptor(Interceptor):
    """Charges every call one request, and requires the scope of its method.

    A completion is charged when the core admits it, and one that fails before is charged then. Other calls are charged
    at once.
    """

    def __init__(self, limits: RateLimiter) -> None:
        super().__init__()
        self._limits = limits

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        if name in PUBLIC:
            return inner
        scope = SCOPES[name]

        async def handle_completion(request: Any, context: Context) -> Any:
            try:
                _require(scope)
                return await inner(request, context)
            except BaseException as error:
                if current().outcome.rate_limits is None:
                    await self._charge_failed(isinstance(error, Exception))
                raise

        async def handle_other(request: Any, context: Context) -> Any:
            await self._admit()
            _require(scope)
            answer = await inner(request, context)
            if not current().headers_sent:
                await headers.send(context)
            return answer

        return handle_completion if name in _COMPLETIONS else handle_other

    async def _admit(self) -> None:
        admission = await self._limits.admit_request(caller())
        current().outcome.rate_limits = admission.statuses
        admission.require_granted()

    async def _charge_failed(self, is_connected: bool) -> None:
        """Charges a completion that was not admitted. Raises RateLimited, which replaces the first error."""
        if not is_connected:
            self._limits.charge_request(caller())
            return
        with suppress(StoreUnavailable):  # the first error is the one to report
            await self._admit()


def _require(scope: Scope | None) -> None:
    """Raises ScopeRequired if the caller lacks the scope."""
    if scope is not None and not caller().has_scope(scope):
        raise ScopeRequired(scope)
