"""Which model answers, by which target, and what that target is asked."""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from parley.config import Config, ConfigError, Model, Target
from parley.core import functions
from parley.core.errors import InvalidRequest, ModelNotFound
from parley.core.ports import Backend, Caller, UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_PARAMETERS = frozenset(CreateChatCompletionRequest.DESCRIPTOR.fields_by_name)
_NO_DEFAULT = frozenset({"model", "stream", "session_id", "store"})
_SAME_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class Router:
    """Finds models and targets, and fills in what the configuration says about a model.

    Raises ConfigError where a model's `defaults` are not request parameters.
    """

    def __init__(self, config: Config, backends: Mapping[str, Backend]) -> None:
        self._models = {model.id: model for model in config.models}
        self._default = config.default_model
        self._backends = backends
        self._defaults = {model.id: _defaults(index, model) for index, model in enumerate(config.models)}
        self._instructions = {model.id: _instructions(model) for model in config.models}

    def models(self, caller: Caller) -> list[Model]:
        """Returns the models that the caller may use, in the order of the configuration."""
        return [model for model in self._models.values() if caller.may_use(model.id)]

    def model(self, caller: Caller, model_id: str | None) -> Model:
        """Returns the model that a request names, or the default one where it names none.

        Raises ModelNotFound, and InvalidRequest where there is no default.
        """
        name = model_id or self._default
        if name is None:
            raise InvalidRequest("`model` is required and must be a string", param="model")
        model = self._models.get(name)
        if model is None or not caller.may_use(name):
            raise ModelNotFound(name[:256])
        return model

    def most_tokens(self, model: Model, request: CreateChatCompletionRequest) -> int:
        """Returns how many tokens the choices of an answer may have together; 0 where nothing bounds them."""
        defaults, _ = self._defaults[model.id]
        choices = next((asked.n for asked in (request, defaults) if asked.HasField("n")), 1)
        for asked in (request, defaults):
            if asked.HasField("max_completion_tokens"):
                return choices * asked.max_completion_tokens
            if asked.HasField("max_tokens"):
                return choices * asked.max_tokens
        return 0

    def route(
        self,
        model: Model,
        request: CreateChatCompletionRequest,
        messages: Sequence[Message],
        *,
        session_id: str | None,
        deadline: float | None,
    ) -> tuple[Backend, UpstreamCall]:
        """Chooses the target and makes its call: instructions, the whole conversation's `messages`, defaults."""
        target = choose(model.targets, session_id)
        asked = self._fill_in(model, request, messages)
        return self._backends[target.backend], UpstreamCall(asked, target.model or model.id, model.timeouts, deadline)

    def _fill_in(
        self, model: Model, request: CreateChatCompletionRequest, messages: Sequence[Message]
    ) -> CreateChatCompletionRequest:
        asked = CreateChatCompletionRequest()
        asked.CopyFrom(request)
        asked.model = model.id
        defaults, names = self._defaults[model.id]
        for name in names:
            _fill_in_default(asked, defaults, name)
        del asked.messages[:]
        asked.messages.extend(self._instructions[model.id])
        asked.messages.extend(messages)
        functions.to_tools(asked)
        return asked


def choose(targets: Sequence[Target], session_id: str | None) -> Target:
    """Picks a target by weight: at random, or for a session always the same one while the list stays as it is.

    Sessions are spread by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005), so that a target that comes
    or goes moves only its own share of the sessions.
    """
    if len(targets) == 1:
        return targets[0]
    if session_id is None:
        return random.choices(targets, [target.weight for target in targets])[0]  # noqa: S311 - spreads load, no secret
    return max(targets, key=lambda target: _score(target, session_id))


def _score(target: Target, session_id: str) -> float:
    digest = hashlib.blake2b(f"{session_id}\0{target.backend}\0{target.model}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 1) / (2**64 + 2)
    return -target.weight / math.log(uniform)


def _defaults(index: int, model: Model) -> tuple[CreateChatCompletionRequest, list[str]]:
    """Reads a model's `defaults` as a request, with the names of the fields that they set."""
    place = f"models[{index}].defaults"
    request = CreateChatCompletionRequest()
    for name in sorted(model.defaults.keys() - _PARAMETERS):
        raise ConfigError(f"{place}.{name}: no request parameter has this name; correct or remove it")
    try:
        json_format.ParseDict(model.defaults, request)
    except json_format.ParseError as error:
        raise ConfigError(f"{place}: {error}") from error
    fields = [field for field, _ in request.ListFields()]
    for field in fields:
        if field.name in _NO_DEFAULT or not _may_default(field):
            raise ConfigError(f"{place}.{field.name}: can only be set in a request; remove it")
    return request, [field.name for field in fields]


def _may_default(field: FieldDescriptor) -> bool:
    """Allows scalars and JSON values: what is set as a whole, and never merged with the request's."""
    is_value = field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
    return not field.is_repeated and (field.message_type is None or is_value)


def _fill_in_default(asked: CreateChatCompletionRequest, defaults: CreateChatCompletionRequest, name: str) -> None:
    twin = _SAME_LIMIT.get(name)
    if asked.HasField(name) or (twin and asked.HasField(twin)):  # type: ignore[arg-type]
        return
    value = getattr(defaults, name)
    if isinstance(value, bool | int | float | str):
        setattr(asked, name, value)
    else:
        getattr(asked, name).CopyFrom(value)


def _instructions(model: Model) -> list[Message]:
    if model.instructions is None:
        return []
    message = Message(role="system")
    message.content.string_value = model.instructions
    return [message]
