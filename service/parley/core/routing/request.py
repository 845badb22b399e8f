"""Builds the request to each target of a call: the caller's parameters, the model's `defaults` and instructions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from parley.config import Config, ConfigError, Model
from parley.core.errors import UnsupportedParameter
from parley.core.messages import functions
from parley.core.messages.instructions import with_instructions
from parley.core.messages.typed_fields import json_fields
from parley.core.ports import RequestShape, UpstreamCall
from parley.core.ports.parameters import SAME_LIMIT
from parley.core.routing.targets import Candidate
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_PARAMETERS = frozenset(field.name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR))
_NO_DEFAULT = frozenset({"model", "stream", "session_id", "store", "continue_final_message"})


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """The `defaults` of a model.

    Attributes:
        request: A request with the default parameters and nothing else.
        names: The fields that `request` sets.
    """

    request: CreateChatCompletionRequest
    names: Sequence[str]


@dataclass(slots=True)  # one a call; freezing would double the time to make it
class RequestBuilder:
    """Builds the upstream calls of one call.

    Attributes:
        defaults: The defaults of every model, by model id.
        model: The requested model.
        request: The caller's request. It is not modified.
        messages: The conversation, including the messages stored in the session.
        deadline: The caller's deadline as a time of the event loop's clock; None for no deadline.
        hops: The number of Parleys before this one.
        shape: The shape of the request, if it has texts and no functions.
        forwarded: The caller's headers that some backend may receive.
    """

    defaults: Mapping[str, ModelDefaults]
    model: Model
    request: CreateChatCompletionRequest
    messages: Sequence[Message]
    deadline: float | None
    hops: int = 0
    shape: RequestShape | None = None
    forwarded: Sequence[tuple[str, str]] = ()

    def build(self, candidate: Candidate) -> UpstreamCall:
        """Builds the call to a target. Its request is the caller's own, not a copy, if nothing is added or replaced.

        Raises:
            UnsupportedParameter: The target's backend cannot continue a final message.
        """
        target, answering, has_prefill = candidate.target, candidate.model, self.request.continue_final_message
        if has_prefill and not target.backend.supports_prefill:
            message = f'`continue_final_message` is not supported by the model "{self.model.id}"'
            raise UnsupportedParameter(message, param="continue_final_message")
        added: Sequence[str] = ()
        request, shape = self.request, self.shape
        if self._needs_copy(answering):
            request, added = self._copy(answering)
            shape = None
        name = target.model or answering.id
        coalesce = 0.0 if answering.coalesce == "off" else answering.coalesce
        return UpstreamCall(  # without keywords, which cost more than the rest of the constructor
            request,
            name,
            answering.timeouts,
            self.deadline,
            has_prefill,
            added,
            self.hops + 1,
            coalesce,
            None,
            shape,
            self.forwarded,
            candidate.parameters,
        )

    def added_messages(self, sent: CreateChatCompletionRequest) -> int:
        """Returns the number of messages that a request has before those of the caller."""
        return len(sent.messages) - len(self.request.messages)

    def _needs_copy(self, answering: Model) -> bool:
        """Returns whether the request to the answering model differs from the caller's."""
        return bool(
            self.defaults[answering.label].names
            or answering.instructions
            or self.model.instructions
            or self.messages is not self.request.messages
            or self.request.model != self.model.id
            or (self.shape is None and functions.has_functions(self.request))
        )

    def _copy(self, answering: Model) -> tuple[CreateChatCompletionRequest, Sequence[str]]:
        """Returns a complete request to the answering model, and the names of the fields that its defaults set."""
        request = CreateChatCompletionRequest()
        request.CopyFrom(self.request)
        request.model = self.model.id
        defaults = self.defaults[answering.label]
        added = [name for name in defaults.names if _apply_default(request, defaults.request, name)]
        source = answering if answering.instructions is not None else self.model
        if source.instructions or self.messages is not self.request.messages:
            self._set_messages(request, source)
        functions.to_tools(request)
        return request, added

    def _set_messages(self, request: CreateChatCompletionRequest, source: Model) -> None:
        """Sets the conversation, with the instructions of a model: the answering one, or else the requested one."""
        del request.messages[:]
        join = source.instructions_mode == "join"
        request.messages.extend(with_instructions(source.instructions or "", self.messages, join=join))


def check_defaults(config: Config) -> None:
    """Checks the `defaults` of every model.

    Raises:
        ConfigError: A default is not a request parameter, or has a wrong value.
    """
    read_defaults(config)


def read_defaults(config: Config) -> dict[str, ModelDefaults]:
    """Reads the `defaults` of every model, by model id.

    Raises:
        ConfigError: A default is not a request parameter, or has a wrong value.
    """
    return {model.id: _model_defaults(index, model) for index, model in enumerate(config.models)}


def _model_defaults(index: int, model: Model) -> ModelDefaults:
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
    return ModelDefaults(request, [field.name for field in fields])


def _may_default(field: FieldDescriptor) -> bool:
    """Allows scalars and JSON values: a default replaces the complete field and is never merged with the request's."""
    is_value = field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"
    return not field.is_repeated and (field.message_type is None or is_value)


def _apply_default(request: CreateChatCompletionRequest, defaults: CreateChatCompletionRequest, name: str) -> bool:
    """Sets a field that the request does not set. Returns whether the field was set."""
    twin = SAME_LIMIT.get(name)
    if request.HasField(name) or (twin and request.HasField(twin)):  # type: ignore[arg-type]
        return False
    value = getattr(defaults, name)
    if isinstance(value, bool | int | float | str):
        setattr(request, name, value)
    else:
        getattr(request, name).CopyFrom(value)
    return True


def max_tokens(request: CreateChatCompletionRequest, defaults: ModelDefaults) -> int:
    """Returns the limit of completion tokens of all choices together; 0 if neither sets a limit."""
    sources = (request, defaults.request)
    choices = next((source.n for source in sources if source.HasField("n")), 1)
    for source in sources:
        if source.HasField("max_completion_tokens"):
            return choices * source.max_completion_tokens
        if source.HasField("max_tokens"):
            return choices * source.max_tokens
    return 0
