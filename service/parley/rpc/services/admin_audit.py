"""The `AuditLog` service, for administrators."""

from parley.admin.v1 import audit_pb2 as messages
from parley.admin.v1 import audit_pb2_grpc as services
from parley.core.ports import AuditFilter, AuditStore
from parley.rpc import admin_messages
from parley.rpc.call_handler import Context
from parley.rpc.paging import page_size


class AuditLogServicer(services.AuditLogServicer):
    """Serves the audit log of the store."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEvents(
        self, request: messages.ListAuditEventsRequest, context: Context
    ) -> messages.ListAuditEventsResponse:
        """Lists events, the latest first."""
        chosen = AuditFilter(request.since if request.HasField("since") else None, request.subject or None)
        found, token = await self._store.list_audit_events(
            chosen, page_size=page_size(request), page_token=request.page_token or None
        )
        return messages.ListAuditEventsResponse(events=map(admin_messages.audit_event, found), next_page_token=token)
