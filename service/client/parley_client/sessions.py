"""Synchronous sessions."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import grpc

from parley_client import calls
from parley_client.calls import Call, CallOptions, Method
from parley_client.chat import Chat, run
from parley_client.completion import Completion
from parley_client.errors import RateLimitError
from parley_client.parameters import LoopParameters, Parameters
from parley_client.requests import MessagesInput
from parley_client.session_requests import add_request, import_requests, update_request
from parley_client.stream import Stream
from parley_client.tools import DEFAULT_ROUNDS, Loop, check_synchronous
from parley_client.transport import Transport
from parley_client.v1 import sessions_pb2

PAGE_SIZE = 100


def halve_page(request: Any, error: RateLimitError) -> None:
    """Halves a page that is above gRPC's longest message; raises any other error."""
    if request.page_size <= 1 or error.reason is not None or error.retry_delay is not None:
        raise error
    request.page_size //= 2


class SessionList(Iterator[sessions_pb2.Session]):
    """Sessions, the latest turn first. They are read page by page.

    Attributes:
        incomplete: Whether turns remain that a search has not indexed, as far as it is read: the same search again
            finds more.
    """

    def __init__(self, pages: Generator[sessions_pb2.ListSessionsResponse, None, None]) -> None:
        self.incomplete = False
        self._pages, self._sessions = pages, self._read(pages)

    def _read(self, pages: Iterator[sessions_pb2.ListSessionsResponse]) -> Generator[sessions_pb2.Session, None, None]:
        for page in pages:
            self.incomplete = self.incomplete or page.incomplete
            yield from page.sessions

    def __next__(self) -> sessions_pb2.Session:
        return next(self._sessions)

    def close(self) -> None:
        """Ends the list before its end: no further page is read."""
        self._sessions.close()
        self._pages.close()


class Sessions:
    """Sessions: conversations that the service keeps."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(self, session_id: str | None = None, **defaults: Unpack[LoopParameters]) -> "Session":
        """Returns a session to talk in: an existing one, or one that its first turn creates.

        Args:
            session_id: The session's id; None for a new one.
            **defaults: Parameters of all its turns, for example `model`.
        """
        return Session(self._transport, session_id, defaults)

    def list(
        self,
        *,
        model: str | None = None,
        updated_after: int | None = None,
        updated_before: int | None = None,
        query: str | None = None,
        labels: Sequence[str] = (),
    ) -> SessionList:
        """Returns the account's sessions, the latest turn first.

        Args:
            model: Only sessions of this model.
            updated_after: Only sessions whose latest turn started at this Unix time in seconds, or later.
            updated_before: Only sessions whose latest turn started before this Unix time in seconds.
            query: Only sessions with these words; a word that ends with `*` is the beginning of a word.
            labels: Only sessions with these labels, each as `name=value` or `name`.
        """
        request = sessions_pb2.ListSessionsRequest(
            page_size=PAGE_SIZE,
            model=model,
            updated_after=updated_after,
            updated_before=updated_before,
            query=query,
            labels=labels,
        )
        return SessionList(self._pages(calls.LIST_SESSIONS, request))

    def get(self, session_id: str) -> sessions_pb2.Session:
        """Returns the properties of a session."""
        found: sessions_pb2.Session = self._call(
            calls.GET_SESSION, sessions_pb2.GetSessionRequest(session_id=session_id)
        )
        return found

    def messages(self, session_id: str) -> Iterator[sessions_pb2.SessionMessage]:
        """Yields the messages of a session, the oldest first."""
        request = sessions_pb2.ListSessionMessagesRequest(session_id=session_id, page_size=PAGE_SIZE)
        for page in self._pages(calls.LIST_MESSAGES, request):
            yield from page.messages

    def export(self, session_id: str) -> Iterator[bytes]:
        """Yields the session as JSON Lines, one line for each message. A failure is not retried."""
        request = sessions_pb2.ExportSessionRequest(session_id=session_id)
        return self._lines(calls.EXPORT, request)

    def export_all(self, *, model: str | None = None) -> Iterator[bytes]:
        """Yields all sessions as JSON Lines: for each its properties, then its messages. A failure is not retried."""
        request = sessions_pb2.ExportSessionsRequest(model=model)
        return self._lines(calls.EXPORT_ALL, request)

    def import_all(self, lines: Iterable[bytes]) -> sessions_pb2.ImportSessionsResponse:
        """Adds the sessions of `export_all`; those that the account has are skipped, so that it can be repeated."""
        total = sessions_pb2.ImportSessionsResponse(imported=0, skipped=0)
        for request in import_requests(lines):
            result = self._call(calls.IMPORT, request)
            total.imported, total.skipped = total.imported + result.imported, total.skipped + result.skipped
        return total

    def update(
        self, session_id: str, *, title: str | None = None, labels: Mapping[str, str | None] | None = None
    ) -> sessions_pb2.Session:
        """Changes a session; returns it.

        Args:
            session_id: The session's id.
            title: The title; empty to remove it, None to leave it.
            labels: The labels to set; None as a value removes one, and others stay.
        """
        changed: sessions_pb2.Session = self._call(calls.UPDATE, update_request(session_id, title, labels))
        return changed

    def add_messages(
        self,
        session_id: str,
        messages: MessagesInput,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Adds messages as a completed turn, without asking a model; returns the number of the turn.

        Args:
            session_id: The session's id.
            messages: The messages; a text is one of the user.
            model: Creates the session if it does not exist, for a model whose callers choose ids.
            metadata: The labels of the turn.
            idempotency_key: The same key makes a repeated call return the first result.
        """
        request = add_request(session_id, messages, model, metadata)
        turn: int = (self._call(calls.ADD_MESSAGES, request, idempotency_key)).turn
        return turn

    def _lines(self, method: Method, request: Any) -> Iterator[bytes]:
        rpc = self._transport.rpcs[method.path]
        rest = b""
        with Call(method, self._transport.settings, CallOptions()) as call:
            running = rpc(request, timeout=call.remaining(), metadata=call.metadata)
            try:
                for part in running:
                    *lines, rest = (rest + part.data).split(b"\n")
                    yield from lines
            except grpc.RpcError as error:
                call.failed(error, retryable=False)
            else:
                call.succeeded()
            finally:
                running.cancel()

    def fork(
        self, session_id: str, *, through_turn: int | None = None, idempotency_key: str | None = None
    ) -> sessions_pb2.Session:
        """Copies all, or the first, completed turns into a new session; returns that."""
        request = sessions_pb2.ForkSessionRequest(session_id=session_id, through_turn=through_turn)
        forked: sessions_pb2.Session = self._call(calls.FORK, request, idempotency_key)
        return forked

    def delete(self, session_id: str, *, idempotency_key: str | None = None) -> None:
        """Deletes a session and all its messages."""
        self._call(calls.DELETE, sessions_pb2.DeleteSessionRequest(session_id=session_id), idempotency_key)

    def _call(self, method: Method, request: Any, key: str | None = None) -> Any:
        return self._transport.unary(method, request, CallOptions(idempotency_key=key))[0]

    def _pages(self, method: Method, request: Any) -> Generator[Any, None, None]:
        while True:
            try:
                page = self._call(method, request)
            except RateLimitError as error:
                halve_page(request, error)
                continue
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Session:
    """A session to talk in.

    Attributes:
        id: The session's id; None until the first answer.
        defaults: Parameters of all turns.
    """

    def __init__(self, transport: Transport, session_id: str | None, defaults: LoopParameters) -> None:
        self._chat = Chat(transport)
        self.id = session_id
        self.defaults = defaults

    def create(
        self,
        messages: MessagesInput,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Completion:
        """Adds a turn; returns the answer. Arguments and errors are those of `Chat.create`."""
        answer = self._chat.create(
            messages,
            session_id=self.id,
            idempotency_key=idempotency_key,
            timeout=timeout,
            **self._with_defaults(parameters),
        )
        self.id = answer.session_id
        return answer

    def stream(
        self,
        messages: MessagesInput,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stream:
        """Adds a turn; returns the answer as a stream. Arguments and errors are those of `Chat.create`."""
        stream = self._chat.stream(
            messages,
            session_id=self.id,
            idempotency_key=idempotency_key,
            timeout=timeout,
            **self._with_defaults(parameters),
        )
        stream.on_session = self._set_id
        return stream

    def run(
        self,
        messages: MessagesInput,
        tools: Sequence[Callable[..., Any]],
        *,
        max_rounds: int = DEFAULT_ROUNDS,
        timeout: float | None = None,
        **parameters: Unpack[LoopParameters],
    ) -> Completion:
        """Adds turns until the model answers without a tool call. Arguments and errors are those of `Chat.run`."""
        check_synchronous(tools)
        loop = Loop(messages, tools, self.id, max_rounds)
        with_tools: Parameters = {**parameters, "tools": loop.schemas}
        return run(loop, lambda: self.create(loop.messages, timeout=timeout, **with_tools))

    def _with_defaults(self, parameters: Parameters) -> Parameters:
        return {**self.defaults, **parameters}

    def _set_id(self, session_id: str) -> None:
        self.id = session_id
