"""The `Sessions` service: reads, forks and deletes the caller's own sessions."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from parley.core.errors import InvalidRequest, ModelNotFound
from parley.core.messages.ids import canonical_session_id, uuid7
from parley.core.messages.proto_json import dumps, from_message
from parley.core.offload import offload
from parley.core.ports import Caller, Claim, SessionFilter, StorageLimits, Store
from parley.core.routing.catalogue import ModelCatalogue
from parley.core.sessions import access, account_export, account_import, export
from parley.core.sessions.additions import Additions
from parley.core.sessions.idempotency import KeyedWrites
from parley.core.sessions.labels import read_filter
from parley.rpc import added_messages, export_output, session_properties
from parley.rpc.added_messages import guarded
from parley.rpc.call import caller, current
from parley.rpc.call_handler import Context
from parley.rpc.metadata import headers
from parley.rpc.metadata.idempotency import REPLAYED, idempotency_key
from parley.rpc.paging import page_size
from parley.rpc.typed_forms import set_text
from parley.rpc.unknown_fields import fill_structs
from parley.v1 import sessions_pb2 as messages
from parley.v1 import sessions_pb2_grpc as services

if TYPE_CHECKING:  # loaded only where guards are configured
    from parley.core.guards.model_guards import ModelGuards

_MAX_JSON_SIZE = 64 * 1024 * 1024  # bytes; max_response_body_size in edge/envoy.yaml

T = TypeVar("T")


class SessionsServicer(services.SessionsServicer):
    """Serves sessions from the store."""

    def __init__(
        self,
        store: Store,
        storage_limits: Callable[[Caller], StorageLimits],
        catalogue: ModelCatalogue,
        guards: "ModelGuards | None" = None,
    ) -> None:
        self._store = store
        self._guards = guards
        self._additions = Additions(store, catalogue.model)
        self._find_model = catalogue.model
        self._model_of_session = partial(catalogue.model, of_session=True)
        self._storage_limits = storage_limits
        self._keyed = KeyedWrites(store)

    async def ListSessions(
        self,
        request: messages.ListSessionsRequest,
        context: Context,
    ) -> messages.ListSessionsResponse:
        """Lists the account's sessions, the one with the latest turn first."""
        is_complete = not request.HasField("query") or await self._store.index_sessions(caller().account)
        sessions, token = await self._store.list_sessions(
            caller().account,
            self._session_filter(request),
            page_size=page_size(request),
            page_token=request.page_token or None,
        )
        incomplete = None if is_complete else True
        return messages.ListSessionsResponse(sessions=sessions, next_page_token=token, incomplete=incomplete)

    async def GetSession(
        self,
        request: messages.GetSessionRequest,
        context: Context,
    ) -> messages.Session:
        """Reads one session."""
        return await access.find_session(self._store, caller(), canonical_session_id(request.session_id))

    async def ListSessionMessages(
        self,
        request: messages.ListSessionMessagesRequest,
        context: Context,
    ) -> messages.ListSessionMessagesResponse:
        """Lists a session's messages, the oldest first."""
        answer = await self._list_messages(request)
        fill_structs(answer)
        set_text(answer)
        return answer

    async def ListSessionMessagesJson(self, request: messages.ListSessionMessagesRequest, context: Context) -> HttpBody:
        """Lists a session's messages, in the JSON of REST."""
        answer = await self._list_messages(request)
        data = dumps(from_message(answer))
        if len(data) > _MAX_JSON_SIZE:  # of one message: a page of several is smaller
            turn = answer.messages[0].turn
            message = f"The message of turn {turn} is larger than 64 MiB; read it with the export of the session"
            raise InvalidRequest(message, param="session_id")
        return HttpBody(content_type="application/json", data=data)

    async def _list_messages(
        self, request: messages.ListSessionMessagesRequest
    ) -> messages.ListSessionMessagesResponse:
        account, session_id = caller().account, canonical_session_id(request.session_id)
        await access.require_session(self._store, caller(), session_id)

        def read(key: str) -> Awaitable[tuple[list[messages.SessionMessage], str | None]]:
            token, turn = request.page_token or None, request.after_turn
            return self._store.list_messages(
                account, key, page_size=page_size(request), page_token=token, after_turn=turn
            )

        found, token = await access.at_key(account, session_id, read)
        return messages.ListSessionMessagesResponse(messages=found, next_page_token=token)

    async def ExportSession(  # type: ignore[override] # gRPC's reader/writer form
        self,
        request: messages.ExportSessionRequest,
        context: Context,
    ) -> None:
        """Writes a session as JSON Lines. A failure after the first byte is also the last line."""
        session_id = canonical_session_id(request.session_id)
        await access.require_session(self._store, caller(), session_id)
        key = await access.find_key(self._store, caller().account, session_id)
        await export_output.write(export.lines(self._store, caller().account, key), session_id, context)

    async def ExportSessionMessages(  # type: ignore[override] # gRPC's reader/writer form
        self,
        request: messages.ExportSessionRequest,
        context: Context,
    ) -> None:
        """Writes all messages of a session, the oldest first."""
        session_id = canonical_session_id(request.session_id)
        await access.require_session(self._store, caller(), session_id)
        key = await access.find_key(self._store, caller().account, session_id)
        async with aclosing(export.messages(self._store, caller().account, key)) as kept:
            async for message in kept:
                if not current().headers_sent:
                    await headers.send(current(), context)
                page = messages.ListSessionMessagesResponse(messages=[message])
                fill_structs(page)
                set_text(page)
                await context.write(page.messages[0])

    async def UpdateSession(self, request: messages.UpdateSessionRequest, context: Context) -> messages.Session:
        """Changes the title and the labels of a session."""
        title, labels = session_properties.read(request)
        account, session_id = caller().account, canonical_session_id(request.session_id)
        await access.require_session(self._store, caller(), session_id)

        def update(key: str) -> Awaitable[messages.Session]:
            return self._store.update_session(account, key, title, labels)

        return await access.at_key(account, session_id, update)

    async def AddSessionMessages(
        self, request: messages.AddSessionMessagesRequest, context: Context
    ) -> messages.AddSessionMessagesResponse:
        """Adds messages to a session without asking a model."""
        request.session_id = canonical_session_id(request.session_id)
        await offload(added_messages.validate, request)
        storage = self._storage_limits(caller())

        async def write(claim: Claim | None) -> messages.AddSessionMessagesResponse:
            async with guarded(self._guards, self._store, self._model_of_session) as check:
                return await self._additions.add(request, caller(), storage, claim, check)

        read = messages.AddSessionMessagesResponse.FromString
        return await self._once("AddSessionMessages", request, context, write, read)

    async def ExportSessions(  # type: ignore[override] # gRPC's reader/writer form
        self, request: messages.ExportSessionsRequest, context: Context
    ) -> None:
        """Writes all sessions as JSON Lines. A failure after the first byte is also the last line."""
        chosen = access.permitted(caller(), self._ids(request.model), None, None)
        await export_output.write(account_export.lines(self._store, caller().account, chosen), None, context)

    async def ImportSessions(
        self, request: messages.ImportSessionsRequest, context: Context
    ) -> messages.ImportSessionsResponse:
        """Adds the sessions of an export."""
        counts, lines = account_import.Counts(), request.body.data.splitlines()
        storage = self._storage_limits(caller())
        async with guarded(self._guards, self._store, self._model_of_session) as check:
            await account_import.import_sessions(self._store, caller(), lines, storage, counts, check)
        return messages.ImportSessionsResponse(imported=counts.imported, skipped=counts.skipped)

    def _ids(self, model_id: str) -> Collection[str] | None:
        """Returns all ids of a requested model, also of one that exists no more; None if none is requested."""
        if not model_id:
            return None
        try:
            return self._find_model(caller(), model_id).ids
        except ModelNotFound:
            return (model_id,)

    def _session_filter(self, request: messages.ListSessionsRequest) -> SessionFilter:
        chosen = access.permitted(
            caller(),
            self._ids(request.model),
            request.updated_after if request.HasField("updated_after") else None,
            request.updated_before if request.HasField("updated_before") else None,
        )
        query = request.query if request.HasField("query") else None
        return replace(chosen, labels=read_filter(request.labels), query=query)

    async def ForkSession(
        self,
        request: messages.ForkSessionRequest,
        context: Context,
    ) -> messages.Session:
        """Creates a session from the completed turns of another one."""
        account, storage = caller().account, self._storage_limits(caller())
        through = request.through_turn if request.HasField("through_turn") else None
        request.session_id = canonical_session_id(request.session_id)

        async def write(claim: Claim | None) -> messages.Session:
            await access.require_session(self._store, caller(), request.session_id)
            new_id = uuid7()

            def fork(key: str) -> Awaitable[messages.Session]:
                return self._store.fork_session(account, key, new_id, through, claim, storage)

            return await access.at_key(account, request.session_id, fork)

        return await self._once("ForkSession", request, context, write, messages.Session.FromString)

    async def DeleteSession(
        self,
        request: messages.DeleteSessionRequest,
        context: Context,
    ) -> messages.DeleteSessionResponse:
        """Deletes a session and all its messages."""
        account = caller().account
        session_id = request.session_id = canonical_session_id(request.session_id)
        answer = messages.DeleteSessionResponse(id=session_id, object="chat.session.deleted", deleted=True)

        async def write(claim: Claim | None) -> messages.DeleteSessionResponse:
            await access.require_session(self._store, caller(), session_id)
            reply = answer.SerializeToString()
            await access.at_key(account, session_id, lambda key: self._store.delete_session(account, key, claim, reply))
            return answer

        return await self._once("DeleteSession", request, context, write, messages.DeleteSessionResponse.FromString)

    async def _once(
        self,
        endpoint: str,
        request: Message,
        context: Context,
        write: Callable[[Claim | None], Awaitable[T]],
        read: Callable[[bytes], T],
    ) -> T:
        """Runs a write once for the call's `Idempotency-Key`; the headers mark a replayed answer."""
        answer, replayed = await self._keyed.once(
            idempotency_key(current().metadata, endpoint), caller().account, request, write, read
        )
        if replayed:
            current().outcome.replayed = True
            await headers.send(current(), context, REPLAYED)
        return answer
