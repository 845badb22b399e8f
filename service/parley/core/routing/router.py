"""Finds the model that a request names and the targets that may answer it."""

import time
from collections.abc import Callable, Mapping, Sequence

from parley.config import Config, Model, Price
from parley.core.errors import InvalidRequest, ModelNotFound
from parley.core.ports import Backend, Caller, CallTrace
from parley.core.routing import request as upstream_request
from parley.core.routing.balancing import order_by_weight
from parley.core.routing.breaker import Clock
from parley.core.routing.budget import ModelBudgets
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.execution import Execution
from parley.core.routing.overrides import TargetOverrides
from parley.core.routing.probe_schedule import InMemoryState, SharedState
from parley.core.routing.request import RequestBuilder
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate, LiveTarget
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

SharedStates = Callable[[str], SharedState]
"""Returns the state that the workers of a machine share about a target, by the target's name."""


class Router:
    """The models of the configuration and their live targets.

    Args:
        config: The configuration.
        backends: The backends, by name.
        clock: The clock of breakers, budgets and attempts, in seconds.
        states: Returns the shared state of a target; by default each target has its own in memory.

    Attributes:
        forwarded_headers: The names of the callers' headers, in lower case, that some backend receives.

    Raises:
        ConfigError: The `defaults` of a model are not request parameters.
    """

    def __init__(
        self,
        config: Config,
        backends: Mapping[str, Backend],
        clock: Clock = time.monotonic,
        states: SharedStates = lambda _: InMemoryState(),
    ) -> None:
        self._models = {model.id: model for model in config.models}
        self._default = config.default_model
        self._clock = clock
        self._targets = _targets(config, backends, clock, states)
        self._candidates = {model.id: self._own_candidates(model) for model in config.models}
        self._budgets = {model.id: ModelBudgets(model.retries.share, clock) for model in config.models}
        self._defaults = upstream_request.read_defaults(config)
        self._prices = {model.id: self._highest_price(model) for model in config.models}
        lists = (getattr(backend, "forward_headers", ()) for backend in config.backends.values())
        self.forwarded_headers = tuple(dict.fromkeys(name for names in lists for name in names))

    @property
    def has_default(self) -> bool:
        """Whether requests without a model are answered by a default model."""
        return self._default is not None

    def models(self, caller: Caller) -> list[Model]:
        """Returns the models that the caller may use, in the order of the configuration."""
        return [model for model in self._models.values() if caller.may_use(model.id)]

    def model(self, caller: Caller, model_id: str | None) -> Model:
        """Returns the requested model, or the default model if `model_id` is empty.

        Raises:
            ModelNotFound: The model does not exist or the caller may not use it.
            InvalidRequest: No model is requested and there is no default.
        """
        name = model_id or self._default
        if name is None:
            raise InvalidRequest("`model` is required and must be a string", param="model", kind="missing")
        model = self._models.get(name)
        if model is None or not caller.may_use(name):
            raise ModelNotFound(name[:256])
        return model

    def max_tokens(self, model: Model, request: CreateChatCompletionRequest) -> int:
        """Returns the limit of completion tokens of all choices together; 0 if there is no limit."""
        return upstream_request.max_tokens(request, self._defaults[model.id])

    def highest_price(self, model: Model) -> Price | None:
        """Returns the highest prices of the targets that may answer a call, fallbacks included; None without prices."""
        return self._prices[model.id]

    @property
    def targets(self) -> Sequence[LiveTarget]:
        """The targets of all models, each once."""
        return list(self._targets.values())

    def candidates(self, model: str) -> Sequence[Candidate]:
        """Returns the candidates of a model, without those of its fallbacks."""
        return self._candidates[model]

    def models_of(self, target: str) -> list[str]:
        """Returns the ids of the models that name a target."""
        return [model.id for model in self._models.values() if any(one.name == target for one in model.targets)]

    def override(self, overrides: TargetOverrides) -> None:
        """Applies the settings of an administrator: opens targets, and sets weights."""
        for target in self._targets.values():
            target.is_opened = target.name in overrides.opened
        for model in self._models.values():
            for configured, candidate in zip(model.targets, self._candidates[model.id], strict=True):
                candidate.weight = overrides.weights.get(configured.name, configured.weight)

    def close(self, target: str) -> None:
        """Closes the breakers of a target."""
        if target in self._targets:
            self._targets[target].breakers.reset()

    def new_execution(  # noqa: PLR0913 - what a call depends on
        self,
        model: Model,
        request: CreateChatCompletionRequest,
        messages: Sequence[Message],
        *,
        session_id: str | None,
        deadline: float | None,
        account: str = "",
        hops: int = 0,
        trace: CallTrace | None = None,
        texts: Sequence[tuple[str, str]] | None = None,
        forwarded: Sequence[tuple[str, str]] = (),
    ) -> Execution:
        """Prepares the execution of one call.

        Args:
            model: The requested model.
            request: The caller's request.
            messages: The conversation, including the messages stored in the session.
            session_id: The call's session, whose calls prefer the same target; None for none.
            deadline: The caller's deadline as a time of the event loop's clock; None for no deadline.
            account: The caller's account.
            hops: The number of Parleys before this one.
            trace: The trace of the call; None without tracing.
            texts: The role and the text of each message of the request, if that has no functions and the messages have
                nothing else.
            forwarded: The caller's headers that some backend may receive.
        """
        retry_state = RetryState(  # without keywords, which cost as much as the rest of the constructor
            model.id,
            self._ordered_candidates(model, session_id),
            model.retries,
            self._budgets[model.id].of(account),
            deadline,
            self._clock,
            CallOrigin(account, request, messages),
        )
        retry_state.trace = trace
        builder = RequestBuilder(self._defaults, model, request, messages, deadline, hops, texts, forwarded)
        return Execution(retry_state, model, builder)

    def _highest_price(self, model: Model) -> Price | None:
        ids = (model.id, *model.fallbacks)
        priced = [one.target.price for model_id in ids for one in self._candidates[model_id] if one.target.price]
        if not priced:
            return None
        return Price(prompt=max(one.prompt for one in priced), completion=max(one.completion for one in priced))

    def _own_candidates(self, model: Model) -> list[Candidate]:
        return [Candidate(model, target, self._targets[target.name]) for target in model.targets]

    def _ordered_candidates(self, model: Model, session_id: str | None) -> Sequence[Candidate]:
        """Returns the model's own targets, then those of its fallbacks; a shared target appears once."""
        own = self._candidates[model.id]
        if len(own) == 1 and not model.fallbacks:
            return own
        found: dict[str, Candidate] = {}
        for model_id in (model.id, *model.fallbacks):
            for candidate in order_by_weight(self._candidates[model_id], session_id):
                found.setdefault(candidate.target.name, candidate)
        return list(found.values())


def _targets(
    config: Config, backends: Mapping[str, Backend], clock: Clock, states: SharedStates
) -> dict[str, LiveTarget]:
    named = {target.name: target for model in config.models for target in model.targets}
    return {
        name: LiveTarget(target, backends[target.backend], config.prices.get(name), clock, states(name))
        for name, target in named.items()
    }
