"""The state of a conversation: its model, its session, and what is sent with the next question."""

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from parley.cli.shared.interrupts import Interrupts
from parley_client import Client, Completion, InvalidRequestError, NotFoundError
from parley_client.v1.chat_completions_pb2 import ChatCompletionChunk
from parley_client.v1.sessions_pb2 import Session

_SYSTEM = ("system", "developer")
_MAX_TITLE = 80


@dataclass
class Conversation:
    """A conversation. Until the service has a turn of it, each call sends all of it.

    Attributes:
        client: The client for completions.
        side: The client for short calls.
        interrupts: Handles Ctrl-C; cancels the current call.
        model: The model's id; None for the service's default.
        session: The session's id; None until the service returns one.
        system: The system prompt.
        history: The messages so far, without the system prompt.
        is_stored: Whether the service has the messages so far in the session.
        is_loaded: Whether `history` has all messages of the session.
        question: The last question.
        answer: The answer to it; None if it was stopped or has failed.
        answers: All answers, for their usage.
    """

    client: Client
    side: Client
    interrupts: Interrupts
    model: str | None
    session: str | None = None
    system: str | None = None
    history: list[Any] = field(default_factory=list)
    is_stored: bool = False
    is_loaded: bool = True
    question: Any = None
    answer: Completion | None = None
    answers: list[Completion] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.session is not None:
            self.is_stored, self.is_loaded = True, False

    def send(self, question: Any) -> Generator[ChatCompletionChunk, None, None]:
        """Sends a user message and yields the chunks of the answer as they arrive. Raises ParleyError."""
        self.question, self.answer = question, None
        messages = [question] if self.is_stored else [*self._system_message(), *self.history, question]
        with self.client.chat.stream(messages, session_id=self.session, model=self.model) as stream:
            self.interrupts.cancel_with(stream.cancel)
            for chunk in stream:
                self.session = chunk.session_id if chunk.HasField("session_id") else self.session
                yield chunk
            self._add(question, stream.result())

    def _system_message(self) -> list[Any]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def _add(self, question: Any, answer: Completion) -> None:
        self.history += [question, answer.message]
        self.answer = answer
        self.answers.append(answer)
        self.is_stored = self.session is not None

    def attach(self, session_id: str) -> Session:
        """Continues a session; returns its properties. Raises ParleyError."""
        found = self.side.sessions.get(session_id)
        self.session, self.model = found.id, found.model
        self.system, self.history, self.question, self.answer = None, [], None, None
        self.is_stored, self.is_loaded = True, False
        return found

    def find_default_model(self) -> None:
        """Sets the model to the service's default if none is set; it stays unset where there is no default."""
        if self.model is None:
            with suppress(InvalidRequestError, NotFoundError):
                self.model = self.side.models.get("").id

    def name_after(self, question: Any) -> None:
        """Gives the session the beginning of a question as its title. Raises ParleyError."""
        line = message_text(question).strip().partition("\n")[0]
        if self.session is not None and line:
            self.side.sessions.update(self.session, title=line[:_MAX_TITLE])

    def begin(self) -> None:
        """Begins a new conversation with the same model and system prompt."""
        self.session, self.history, self.question, self.answer = None, [], None, None
        self.is_stored, self.is_loaded = False, True

    def move(self, *, model: str | None = None, system: str | None = None) -> None:
        """Moves the conversation to a new session with another model or system prompt. Raises ParleyError.

        A session belongs to one model, and its first messages stay as they are.
        """
        self.load()
        self.model = model or self.model
        self.system = self.system if system is None else system or None
        self.session, self.is_stored = None, False

    def fork(self, through_turn: int | None = None) -> str:
        """Continues in a copy of the session; returns its id. Raises ParleyError."""
        assert self.session is not None  # noqa: S101 - checked by the caller
        forked = self.side.sessions.fork(self.session, through_turn=through_turn)
        self.session = forked.id
        if through_turn is not None:
            self.history, self.is_loaded, self.question, self.answer = [], False, None, None
        return forked.id

    def undo(self) -> None:
        """Goes back to before the last answer, in a copy of the session. Raises ParleyError."""
        if self.answer is None:
            return  # a stopped or failed turn is no part of the context
        if self.session is not None:
            turns = self.side.sessions.get(self.session).turn_count
            if turns > 1:
                self.session = self.side.sessions.fork(self.session, through_turn=turns - 1).id
            else:
                self.session, self.is_stored = None, False
        del self.history[-2:]
        self.answer = None

    def load(self) -> None:
        """Reads the messages of the session if they are not known. Raises ParleyError."""
        if self.is_loaded or self.session is None:
            return
        found = [one.message for one in self.side.sessions.messages(self.session) if one.state == "completed"]
        system = [message_text(one) for one in found if one.role in _SYSTEM]
        self.system = "\n\n".join(system) or None
        self.history = [one for one in found if one.role not in _SYSTEM]
        self.is_loaded = True

    def last_question(self) -> Any:
        """Returns the last question, also of an earlier run; None without one. Raises ParleyError."""
        if self.question is None and self.session is not None:
            self.load()
            questions = [one for one in self.history if one.role == "user"]
            self.question = questions[-1] if questions else None
        return self.question


def message_text(message: Any) -> str:
    """Returns the text of a message, a dict or a `Message`; other parts are named."""
    if isinstance(message, dict):
        content = message["content"]
        if isinstance(content, str):
            return content
        return "\n".join(part.get("text", f"[{part['type']}]") for part in content)
    return str(message.text or message.content.string_value or "[parts]")
