"""Finds the targets that may answer a call, in the order in which they are tried."""

import time
from collections.abc import Callable, Mapping, Sequence

from parley.config import WILDCARD, Config, Metadata, Model, Price, target_name
from parley.config.metadata import merged_metadata
from parley.config.vendor_models import UNKNOWN, vendor_metadata
from parley.core.ports import Backend, CallTrace, RequestShape
from parley.core.routing import request as upstream_request
from parley.core.routing.balancing import order_by_weight
from parley.core.routing.breaker import Clock
from parley.core.routing.budget import ModelBudgets
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.catalogue import ModelCatalogue
from parley.core.routing.execution import Execution
from parley.core.routing.fit import Demands, fitting
from parley.core.routing.overrides import TargetOverrides
from parley.core.routing.probe_schedule import InMemoryState, SharedState
from parley.core.routing.request import RequestBuilder
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate, LiveTarget
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

SharedStates = Callable[[str], SharedState]
"""Returns the state that the workers of a machine share about a target, by the target's name."""


class Router(ModelCatalogue):
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
        super().__init__(config)
        self._clock = clock
        self._configured_prices = config.prices
        self._targets = _targets(config, backends, clock, states)
        self._vendors = {name: getattr(backend, "vendor", None) for name, backend in config.backends.items()}
        self._candidates = {model.id: self._own_candidates(model, config) for model in config.models}
        self._budgets = {model.id: ModelBudgets(model.retries.share, clock) for model in config.models}
        self._defaults = upstream_request.read_defaults(config)
        # Most models have one target. Their calls need no list of candidates of their own.
        single = (model for model in config.models if not (model.is_wildcard or model.fallbacks))
        self._single = {one.id: self._candidates[one.id] for one in single if len(one.targets) == 1}
        # Those of wildcards depend on the request.
        self._fixed_chains = {model.id: self._chain(model) for model in config.models if not model.is_wildcard}
        self._prices = {name: self._highest_of(chain) for name, chain in self._fixed_chains.items()}
        lists = (getattr(backend, "forward_headers", ()) for backend in config.backends.values())
        self.forwarded_headers = tuple(dict.fromkeys(name for names in lists for name in names))

    def metadata(self, model: Model) -> Metadata:
        """Returns what is known of a model, at its first target."""
        target = model.targets[0]
        return self._known(model, target.backend, target.model.replace(WILDCARD, model.rest))

    def price(self, model: Model) -> Price | None:
        """Returns the configured price of a model's first target; None without one."""
        target, prices = model.targets[0], self._configured_prices
        name = target_name(target.backend, target.model.replace(WILDCARD, model.rest))
        return prices.get(name) or prices.get(target.name)

    def listed(self, backend: str, models: Mapping[str, Metadata]) -> None:
        """Records the list of models of a backend, with what it says about each; an earlier one is replaced."""
        self._listed[backend] = models
        for model in self._models.values():
            for configured, candidate in zip(model.targets, self._candidates[model.id], strict=True):
                if configured.backend == backend:
                    candidate.describe(self._known(model, backend, configured.model))

    def temperature(self, model: Model) -> float | None:
        """Returns the temperature that the model's `defaults` set; None if they set none."""
        defaults = self._defaults[model.label].request
        return defaults.temperature if defaults.HasField("temperature") else None

    def max_tokens(self, model: Model, request: CreateChatCompletionRequest) -> int:
        """Returns the limit of completion tokens of all choices together; 0 if there is no limit."""
        return upstream_request.max_tokens(request, self._defaults[model.label])

    def highest_price(self, model: Model) -> Price | None:
        """Returns the highest prices of the targets that may answer a call, fallbacks included; None without prices."""
        if model.label in self._prices:
            return self._prices[model.label]
        return self._highest_of(self._chain(model))

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
            target.set_opened(opened=target.name in overrides.opened)
        for model in self._models.values():
            for configured, candidate in zip(model.targets, self._candidates[model.id], strict=True):
                candidate.weight = overrides.weights.get(configured.name, configured.weight)

    def close(self, target: str) -> None:
        """Closes the breakers of a target."""
        if target in self._targets:
            self._targets[target].reset()

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
        shape: RequestShape | None = None,
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
            shape: The shape of the request, if it has texts and no functions.
            forwarded: The caller's headers that some backend may receive.

        Raises:
            UnsupportedParameter: No candidate accepts the request.
        """
        candidates = self._single.get(model.id) or self._ordered_candidates(model, session_id)
        for candidate in candidates:
            if candidate.is_selective or (candidate.is_bounded and len(candidates) > 1):
                candidates = fitting(
                    candidates,
                    Demands(request, messages, model.instructions),
                    self._answer_tokens(model, request),
                )
                break
        retry_state = RetryState(  # without keywords, which cost as much as the rest of the constructor
            model.id,
            candidates,
            model.retries,
            self._budgets[model.label].of(account),
            deadline,
            self._clock,
            CallOrigin(account, request, messages),
        )
        retry_state.trace = trace
        if model.id != model.label:
            retry_state.is_named_by_caller = True
        builder = RequestBuilder(self._defaults, model, request, messages, deadline, hops, shape, forwarded)
        return Execution(retry_state, model, builder)

    def _answer_tokens(self, model: Model, request: CreateChatCompletionRequest) -> int:
        """Returns the limit of completion tokens of one choice; 0 if there is no limit."""
        choices = request.n if request.HasField("n") and request.n else 1
        return self.max_tokens(model, request) // choices

    def _highest_of(self, chain: Sequence[Model]) -> Price | None:
        priced = [one.target.price for model in chain for one in self._own(model) if one.target.price]
        if not priced:
            return None
        return Price(prompt=max(one.prompt for one in priced), completion=max(one.completion for one in priced))

    def _known(self, model: Model, backend: str, name: str) -> Metadata:
        """Returns what is known of a model: from the configuration, then the backend's own list, then its vendor."""
        listed = self._listed.get(backend, {}).get(name)
        known = model.metadata if listed is None else merged_metadata(model.metadata, listed)
        preset = vendor_metadata(self._vendors[backend], name)
        return known if preset is UNKNOWN else merged_metadata(known, preset)

    def _own_candidates(self, model: Model, config: Config) -> list[Candidate]:
        found = [Candidate(model, config.effective(target), self._targets[target.name]) for target in model.targets]
        for target, candidate in zip(model.targets, found, strict=True):
            candidate.describe(self._known(model, target.backend, target.model))
        return found

    def _own(self, model: Model) -> Sequence[Candidate]:
        """Returns the candidates of a model without those of its fallbacks; of a wildcard under the requested name."""
        found = self._candidates[model.label]
        if model.id == model.label or not model.is_wildcard:
            return found
        return [self._name(candidate, model) for candidate in found]

    def _name(self, candidate: Candidate, model: Model) -> Candidate:
        named = candidate.named(model, self._configured_prices.get)
        target = named.target
        listed = self._listed.get(target.backend_name, ())
        named.is_known_name = target.model in listed or target.name in self._configured_prices
        known = self._known(model, target.backend_name, target.model)
        if known is not model.metadata:
            named.describe(known)
        return named

    def _chain(self, model: Model) -> Sequence[Model]:
        """Returns a model and its fallbacks. Those of a wildcard get the requested name, unless they do not have it."""
        found = [model]
        for fallback in model.fallbacks:
            one = self._index.find(fallback.replace(WILDCARD, model.rest))
            if one is not None:
                found.append(one)
        return found

    def _ordered_candidates(self, model: Model, session_id: str | None) -> Sequence[Candidate]:
        """Returns the model's own targets, then those of its fallbacks; a shared target appears once."""
        own = self._own(model)
        if len(own) == 1 and not model.fallbacks:
            return own
        found: dict[str, Candidate] = {}
        for one in self._fixed_chains.get(model.label) or self._chain(model):
            for candidate in order_by_weight(self._own(one), session_id):
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
