"""Which models there are, which targets may answer one of them, and what each is asked."""

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from parley.config import Config, ConfigError, Model
from parley.core.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from parley.core.messages import functions
from parley.core.messages.instructions import with_instructions
from parley.core.ports import Backend, Caller, UpstreamCall
from parley.core.routing import stream_support
from parley.core.routing.added_parameters import SAME_LIMIT
from parley.core.routing.breaker import Clock
from parley.core.routing.budget import RetryBudget
from parley.core.routing.execution import Execution
from parley.core.routing.probe_schedule import InMemoryState, SharedState
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate, LiveTarget
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_PARAMETERS = frozenset(CreateChatCompletionRequest.DESCRIPTOR.fields_by_name)
_NO_DEFAULT = frozenset({"model", "stream", "session_id", "store", "continue_final_message"})
SharedStates = Callable[[str], SharedState]
"""Finds what the workers of a machine share about a target, by its name."""


class Router:
    """Finds models and targets, and fills in what the configuration says about a model.

    Raises ConfigError where a model's `defaults` are not request parameters.
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
        self._budgets = {model.id: RetryBudget(model.retries.share, clock) for model in config.models}
        self._defaults = {model.id: _defaults(index, model) for index, model in enumerate(config.models)}

    @property
    def has_default(self) -> bool:
        """Whether there is a model for requests that name none."""
        return self._default is not None

    def models(self, caller: Caller) -> list[Model]:
        """Returns the models that the caller may use, in the order of the configuration."""
        return [model for model in self._models.values() if caller.may_use(model.id)]

    def model(self, caller: Caller, model_id: str | None) -> Model:
        """Returns the model that a request names, or the default one where it names none.

        Raises ModelNotFound, and InvalidRequest where there is no default.
        """
        name = model_id or self._default
        if name is None:
            raise InvalidRequest("`model` is required and must be a string", param="model", kind="missing")
        model = self._models.get(name)
        if model is None or not caller.may_use(name):
            raise ModelNotFound(name[:256])
        return model

    def max_tokens(self, model: Model, request: CreateChatCompletionRequest) -> int:
        """Returns how many tokens the choices of an answer may have together; 0 where nothing bounds them."""
        defaults, _ = self._defaults[model.id]
        choices = next((source.n for source in (request, defaults) if source.HasField("n")), 1)
        for source in (request, defaults):
            if source.HasField("max_completion_tokens"):
                return choices * source.max_completion_tokens
            if source.HasField("max_tokens"):
                return choices * source.max_tokens
        return 0

    @property
    def targets(self) -> Sequence[LiveTarget]:
        """Returns every target that a model names, once."""
        return list(self._targets.values())

    def new_execution(  # noqa: PLR0913 - what a call depends on
        self,
        model: Model,
        request: CreateChatCompletionRequest,
        messages: Sequence[Message],
        *,
        session_id: str | None,
        deadline: float | None,
        account: str = "",
    ) -> Execution:
        """Makes ready to answer the whole conversation's `messages`, for an account.

        `deadline` is a time of the event loop's clock.
        """
        candidates = self._ordered_candidates(model, session_id)
        budget = self._budgets[model.id]
        clock = self._clock
        retry_state = RetryState(
            model.id, candidates, model.retries, budget, deadline=deadline, clock=clock, account=account
        )

        def build_call(candidate: Candidate) -> UpstreamCall:
            return self._build_call(candidate, model, request, messages, deadline)

        return Execution(retry_state, model, build_call, streamable=stream_support.may_be_streamed(request))

    def _own_candidates(self, model: Model) -> list[Candidate]:
        return [Candidate(model, target, self._targets[target.name]) for target in model.targets]

    def _ordered_candidates(self, model: Model, session_id: str | None) -> list[Candidate]:
        """Returns who may answer, the model's own targets first; one that two of the models share is asked once."""
        found: dict[str, Candidate] = {}
        for model_id in (model.id, *model.fallbacks):
            for candidate in order_by_weight(self._candidates[model_id], session_id):
                found.setdefault(candidate.target.name, candidate)
        return list(found.values())

    def _build_call(
        self,
        candidate: Candidate,
        model: Model,
        request: CreateChatCompletionRequest,
        messages: Sequence[Message],
        deadline: float | None,
    ) -> UpstreamCall:
        """Makes the call of one target. Raises UnsupportedParameter."""
        target, answering = candidate.target, candidate.model
        if request.continue_final_message and not target.backend.can_continue:
            message = f'`continue_final_message` is not supported by the model "{model.id}"'
            raise UnsupportedParameter(message, param="continue_final_message")
        upstream_request, defaulted = self._with_defaults(answering, model, request, messages)
        name, is_continuation = target.model or answering.id, request.continue_final_message
        return UpstreamCall(
            upstream_request, name, answering.timeouts, deadline, is_continuation=is_continuation, defaults=defaulted
        )

    def _with_defaults(
        self, answering: Model, model: Model, request: CreateChatCompletionRequest, messages: Sequence[Message]
    ) -> tuple[CreateChatCompletionRequest, list[str]]:
        """Returns the request to a target, and which of its fields are the model's defaults."""
        upstream_request = CreateChatCompletionRequest()
        upstream_request.CopyFrom(request)
        upstream_request.model = model.id
        defaults, names = self._defaults[answering.id]
        filled_in = [name for name in names if _apply_default(upstream_request, defaults, name)]
        del upstream_request.messages[:]
        own = answering if answering.instructions is not None else model
        upstream_request.messages.extend(
            with_instructions(own.instructions or "", messages, join=own.instructions_mode == "join")
        )
        functions.to_tools(upstream_request)
        return upstream_request, filled_in


def order_by_weight(candidates: Sequence[Candidate], session_id: str | None) -> Sequence[Candidate]:
    """Orders a model's targets by weight: at random, or for a session always alike while the list stays as it is.

    Sessions are spread by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005), so that a target that comes
    or goes moves only its own share of the sessions. At random the same formula draws by weight, without putting back
    (Efraimidis and Spirakis, 2006).
    """
    if len(candidates) == 1:
        return candidates
    return sorted(candidates, key=lambda candidate: _score(candidate, session_id), reverse=True)


def _score(candidate: Candidate, session_id: str | None) -> float:
    if session_id is None:
        drawn = random.getrandbits(64)  # spreads load, no secret
    else:
        text = f"{session_id}\0{candidate.target.backend_name}\0{candidate.target.model}"
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return -candidate.weight / math.log((drawn + 1) / (2**64 + 2))


def _targets(
    config: Config, backends: Mapping[str, Backend], clock: Clock, states: SharedStates
) -> dict[str, LiveTarget]:
    named = {target.name: target for model in config.models for target in model.targets}
    return {
        name: LiveTarget(target, backends[target.backend], config.prices.get(name), clock, states(name))
        for name, target in named.items()
    }


def check_defaults(config: Config) -> None:
    """Raises ConfigError where a model's `defaults` are not request parameters."""
    for index, model in enumerate(config.models):
        _defaults(index, model)


def _defaults(index: int, model: Model) -> tuple[CreateChatCompletionRequest, list[str]]:
    """Reads a model's `defaults` as a request, with the names of the fields that they set."""
    field_path = f"models[{index}].defaults"
    request = CreateChatCompletionRequest()
    for name in sorted(model.defaults.keys() - _PARAMETERS):
        raise ConfigError(f"{field_path}.{name}: no request parameter has this name; correct or remove it")
    try:
        json_format.ParseDict(model.defaults, request)
    except json_format.ParseError as error:
        raise ConfigError(f"{field_path}: {error}") from error
    fields = [field for field, _ in request.ListFields()]
    for field in fields:
        if field.name in _NO_DEFAULT or not _may_default(field):
            raise ConfigError(f"{field_path}.{field.name}: can only be set in a request; remove it")
    return request, [field.name for field in fields]


def _may_default(field: FieldDescriptor) -> bool:
    """Allows scalars and JSON values: what is set as a whole, and never merged with the request's."""
    is_value = field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
    return not field.is_repeated and (field.message_type is None or is_value)


def _apply_default(
    upstream_request: CreateChatCompletionRequest, defaults: CreateChatCompletionRequest, name: str
) -> bool:
    """Sets a field that the request leaves out; returns whether it does."""
    twin = SAME_LIMIT.get(name)
    if upstream_request.HasField(name) or (twin and upstream_request.HasField(twin)):  # type: ignore[arg-type]
        return False
    value = getattr(defaults, name)
    if isinstance(value, bool | int | float | str):
        setattr(upstream_request, name, value)
    else:
        getattr(upstream_request, name).CopyFrom(value)
    return True
