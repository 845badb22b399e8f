"""Validation of messages that are added to a session, and their guards: both as for a request for a completion."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from parley.config import Model
from parley.core.ports import Caller, Store
from parley.core.sessions.additions import CheckMessages
from parley.rpc import errors, request_forms, validation
from parley.rpc.call import current
from parley.rpc.request_shape import shape_of
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.sessions_pb2 import AddSessionMessagesRequest

if TYPE_CHECKING:  # loaded only where guards are configured
    from parley.core.guards.model_guards import ModelGuards

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


@asynccontextmanager
async def guarded(
    guards: "ModelGuards | None", store: Store, find_model: Callable[[Caller, str], Model]
) -> AsyncIterator[CheckMessages | None]:
    """Yields the check of messages that this task's call adds; None without guards. Then records what they decided."""
    if guards is None:
        yield None
        return
    from parley.core.guards.added_messages import AddedMessages  # loaded only where guards are configured

    call = current()
    added = AddedMessages(guards, store, find_model, call.known_caller, call.request_id)
    try:
        yield added.check
    finally:
        call.outcome.record_guards(added.records)
