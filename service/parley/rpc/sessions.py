"""The `Sessions` service: reads and deletes the caller's own sessions."""

from parley.core.errors import InvalidRequest
from parley.core.ports import SessionStore
from parley.rpc.call import caller
from parley.rpc.interceptors import Context
from parley.v1 import sessions_pb2 as messages
from parley.v1 import sessions_pb2_grpc as services

_PAGE_SIZE = 100
_LARGEST_PAGE = 1000


class SessionsServicer(services.SessionsServicer):
    """Serves sessions from the store."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def ListSessions(
        self,
        request: messages.ListSessionsRequest,
        context: Context,
    ) -> messages.ListSessionsResponse:
        """Lists the account's sessions, the one with the latest turn first."""
        sessions, token = await self._store.list_sessions(
            caller().account,
            model=request.model or None,
            page_size=_page_size(request),
            page_token=request.page_token or None,
        )
        return messages.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def GetSession(
        self,
        request: messages.GetSessionRequest,
        context: Context,
    ) -> messages.Session:
        """Reads one session."""
        return await self._store.get_session(caller().account, request.session_id)

    async def ListSessionMessages(
        self,
        request: messages.ListSessionMessagesRequest,
        context: Context,
    ) -> messages.ListSessionMessagesResponse:
        """Lists a session's messages, the oldest first."""
        found, token = await self._store.list_messages(
            caller().account,
            request.session_id,
            page_size=_page_size(request),
            page_token=request.page_token or None,
        )
        return messages.ListSessionMessagesResponse(messages=found, next_page_token=token)

    async def DeleteSession(
        self,
        request: messages.DeleteSessionRequest,
        context: Context,
    ) -> messages.DeleteSessionResponse:
        """Deletes a session and every message of it."""
        await self._store.delete_session(caller().account, request.session_id)
        return messages.DeleteSessionResponse(id=request.session_id, object="chat.session.deleted", deleted=True)


def _page_size(request: messages.ListSessionsRequest | messages.ListSessionMessagesRequest) -> int:
    size = request.page_size if request.HasField("page_size") else _PAGE_SIZE
    if not 1 <= size <= _LARGEST_PAGE:
        raise InvalidRequest(f"`page_size` must be between 1 and {_LARGEST_PAGE}", param="page_size")
    return size
