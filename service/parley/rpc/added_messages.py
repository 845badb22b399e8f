"""Validation of messages that are added to a session: the rules are those of a request for a completion."""

from parley.rpc import errors, request_forms, validation
from parley.rpc.call import current
from parley.rpc.request_shape import shape_of
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.sessions_pb2 import AddSessionMessagesRequest

_VIOLATIONS = "parley-violations"  # violations that the edge has found in the JSON; see errors.decode_violations


def validate(request: AddSessionMessagesRequest) -> None:
    """Checks the messages and the metadata, and brings them into the form of the core. Raises InvalidRequest."""
    completion = CreateChatCompletionRequest(messages=request.messages, metadata=request.metadata)
    request_forms.read(completion, completion.SerializeToString())
    violations = current().metadata.get(_VIOLATIONS)
    found = errors.decode_violations(violations) if violations else ()
    validation.validate(completion, is_stream=False, found=found, shape=shape_of(completion))
    del request.messages[:]
    request.messages.extend(completion.messages)
