"""The `Operations` service, for administrators: one worker answers for all."""

import time

import structlog

from parley.admin.v1 import operations_pb2 as messages
from parley.admin.v1 import operations_pb2_grpc as services
from parley.core.errors import InvalidRequest, ParleyError
from parley.core.messages.ids import event_id
from parley.core.ports import AuditEvent, AuditStore
from parley.rpc.call import current, origin
from parley.rpc.interceptors import Context
from parley.rpc.operations import Operations, merge_targets
from parley.rpc.peers import Peers, is_from_peer

_log = structlog.get_logger()


class OperationsServicer(services.OperationsServicer):
    """Serves the state of the running service.

    Args:
        operations: The state of this worker.
        store: Holds the audit log.
        peers: The other workers.
    """

    def __init__(self, operations: Operations, store: AuditStore, peers: Peers) -> None:
        self._operations = operations
        self._store = store
        self._peers = peers

    async def ListTargets(self, request: messages.ListTargetsRequest, context: Context) -> messages.ListTargetsResponse:
        """Lists the targets of all models."""
        _hide_read()
        if _is_from_peer():
            return self._operations.targets()
        answers, silent = await self._peers.ask("ListTargets", request, self._operations.targets)
        merged = merge_targets(answers)
        merged.unreachable_workers.extend(silent)
        return merged

    async def ListCalls(self, request: messages.ListCallsRequest, context: Context) -> messages.ListCallsResponse:
        """Lists the running calls, the oldest first."""
        _hide_read()

        def own() -> messages.ListCallsResponse:
            return self._operations.calls(request, self._peers.name)

        if _is_from_peer():
            return own()
        answers, silent = await self._peers.ask("ListCalls", request, own)
        calls = sorted((call for answer in answers for call in answer.calls), key=lambda call: -call.age)
        return messages.ListCallsResponse(calls=calls, unreachable_workers=silent)

    async def CancelCall(self, request: messages.CancelCallRequest, context: Context) -> messages.CancelCallResponse:
        """Cancels a running call."""
        if not request.request_id:
            raise InvalidRequest("`request_id` must not be empty", param="request_id")

        def own() -> messages.CancelCallResponse:
            return self._operations.cancel(request.request_id, self._peers.name)

        if _is_from_peer():
            return own()
        answers, silent = await self._peers.ask("CancelCall", request, own)
        calls = [call for answer in answers for call in answer.calls]
        if calls:
            await self._record(f"call:{request.request_id}", {"running": (True, False)})
        return messages.CancelCallResponse(calls=calls, unreachable_workers=silent)

    async def _record(self, subject: str, changes: dict[str, tuple[object, object]]) -> None:
        """Adds the event of a change that was made. Without the store, the log has the event instead.

        An outage of the database must not keep an operator from acting.
        """
        made = origin()
        event = AuditEvent(event_id(), int(time.time()), made.actor, made.source, current().method, subject, changes)
        try:
            await self._store.add_audit_event(event)
        except ParleyError as error:
            fields = {"actor": made.actor, "source": made.source, "subject": subject, "changes": changes}
            _log.warning("a change is missing in the audit log", method=event.method, **fields, cause=error.cause)


def _is_from_peer() -> bool:
    """Returns whether another worker asks for the state of this one, and keeps such a call out of the log."""
    call = current()
    found = is_from_peer(call)
    call.is_logged = call.is_logged and not found
    return found


def _hide_read() -> None:
    """Keeps a call that `parley top` repeats every second out of the log."""
    current().is_logged = False
