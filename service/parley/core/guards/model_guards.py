"""The guards of every model."""

from collections.abc import Mapping

from parley.config import Config, Model
from parley.core.guards.call_guards import CallGuards
from parley.core.guards.configured import CheckedCall, ConfiguredGuard
from parley.core.ports import Guard
from parley.core.routing.call_origin import CallOrigin
from parley.guard.v1.guard_pb2 import CheckRequest
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


class ModelGuards:
    """The configured guards, and those of each model.

    Args:
        config: The configuration.
        guards: The guards, by name.
    """

    def __init__(self, config: Config, guards: Mapping[str, Guard]) -> None:
        self._guards = {name: ConfiguredGuard(name, config.guards[name], guard) for name, guard in guards.items()}
        self._default = config.default_guards

    def of_call(
        self,
        model: Model,
        request: CreateChatCompletionRequest,
        account: str,
        request_id: str,
        deadline: float | None,
    ) -> CallGuards | None:
        """Returns the guards of a call; None if its model has none.

        Args:
            model: The requested model.
            request: The request.
            account: The caller's account.
            request_id: The id of the call.
            deadline: The caller's deadline as a time of the event loop's clock; None for none.
        """
        names = self._default if model.guards is None else model.guards
        if not names:
            return None
        template = CheckRequest(model=model.id, account=account, request_id=request_id)
        if request.HasField("session_id"):
            template.session_id = request.session_id
        choices = request.n if request.HasField("n") else model.defaults.get("n", 1)
        call = CheckedCall(CallOrigin(account), deadline)
        return CallGuards([self._guards[name] for name in names], template, call, max(1, int(choices)))

    async def close(self) -> None:
        """Closes every connection."""
        for guard in self._guards.values():
            await guard.close()
