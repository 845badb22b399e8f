"""The commands of a conversation: lines that begin with `/`."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from parley.cli.chat import reports, transcript
from parley.cli.chat.conversation import Conversation
from parley.cli.shared.prose import print_wrapped
from parley.cli.shared.terminal import without_control_characters
from parley.supervisor.errors import CommandError
from parley_client import NotFoundError

_SESSIONS = 10
_NEW, _FIND = "new", "find"
_HELP_COLUMN = 19
_SESSION_HELP = "list the sessions, continue one, or begin a new one; `/session find WORDS` searches"


class Leave(Exception):
    """The conversation ends."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        usage: Its name and argument.
        help: What it does.
        run: Runs it with its argument.
    """

    usage: str
    help: str
    run: Callable[[str], None]


@dataclass
class Commands:
    """Runs commands.

    Attributes:
        conversation: The conversation.
        send: Sends a question and shows its answer.
    """

    conversation: Conversation
    send: Callable[[Any], None]
    _models: list[Any] = field(default_factory=list)

    def all(self) -> Mapping[str, Command]:
        """Returns the commands by their names."""
        known = (
            Command("/model [ID]", "list the models, or go on with another one", self._model),
            Command("/session [ID|new]", _SESSION_HELP, self._session),
            Command("/title [TEXT]", "show or set the session's title; `/title -` removes it", self._title),
            Command("/fork [TURN]", "go on in a copy of the session, of its first turns if given", self._fork),
            Command("/retry", "send the last question again, in place of its answer", self._retry),
            Command("/system [TEXT]", "show or set the system prompt; `/system -` removes it", self._system),
            Command("/usage", "tokens and cost of this chat, and of the key in 30 days", self._usage),
            Command("/receipt", "the attempts of the last answer", self._receipt),
            Command("/save [FILE]", "write the conversation to a file, .md or .jsonl", self._save),
            Command("/help", "this list", self._help),
            Command("/exit", "leave; so does Ctrl-D", self._exit),
        )
        return {command.usage.split()[0]: command for command in known}

    def run(self, line: str) -> None:
        """Runs a line. Raises CommandError, ParleyError and Leave."""
        name, _, argument = line.strip().partition(" ")
        command = self.all().get(name)
        if command is None:
            raise CommandError(f"there is no command {name}; /help lists them, // begins a question with a slash")
        command.run(argument.strip())

    def model_ids(self) -> dict[str, str]:
        """Returns the name of each model by its id and its other ids. The list is read once. Raises ParleyError."""
        self._models = self._models or list(self.conversation.side.models.list())
        return {id_: model.name for model in self._models for id_ in (model.id, *(one.id for one in model.aliases))}

    def session_ids(self) -> Iterator[tuple[str, str]]:
        """Yields the ids and titles of the latest sessions. Raises ParleyError."""
        yield _NEW, ""
        for session in islice(self.conversation.side.sessions.list(), _SESSIONS):
            yield session.id, session.title

    def _model(self, model: str) -> None:
        ids = self.model_ids()
        if not model:
            reports.print_models(self._models, self.conversation.model)
            return
        if model not in ids:
            self._require_model(model)
        self.conversation.move(model=model)
        print_wrapped(f"Model {model}.")

    def _require_model(self, model: str) -> None:
        """Raises CommandError for an unknown model. The list need not have every id that a wildcard stands for."""
        try:
            self.conversation.side.models.get(model)
        except NotFoundError as error:
            raise CommandError(f'there is no model "{model}"; /model lists them') from error

    def _session(self, session: str) -> None:
        command, _, words = session.partition(" ")
        if command == _FIND and words.strip():
            matches = self.conversation.side.sessions.list(query=words.strip())
            reports.print_sessions(islice(matches, _SESSIONS), self.conversation.session)
            if matches.incomplete:
                print_wrapped("Not all turns are indexed yet: the same search again finds more.")
        elif session == _NEW:
            self.conversation.begin()
            print_wrapped("A new session begins with the next question.")
        elif session:
            found = self.conversation.attach(session)
            title = f' "{found.title}"' if found.title else ""
            print_wrapped(f"Session {session}{title}, {reports.turns(found.turn_count)}.")
        else:
            reports.print_sessions(islice(self.conversation.side.sessions.list(), _SESSIONS), self.conversation.session)

    def _title(self, text: str) -> None:
        session = self.conversation.session
        if session is None:
            raise CommandError("there is no session to name yet; send a question first")
        if text:
            self.conversation.side.sessions.update(session, title="" if text == "-" else text)
        else:
            print_wrapped(self.conversation.side.sessions.get(session).title or "The session has no title.")

    def _fork(self, turn: str) -> None:
        if self.conversation.session is None:
            raise CommandError("there is no session to fork yet; send a question first")
        if turn and not turn.isdecimal():
            raise CommandError(f"/fork: {turn} is not the number of a turn")
        forked = self.conversation.fork(int(turn) if turn else None)
        print_wrapped(f"Session {forked}, a copy.")

    def _retry(self, _: str) -> None:
        question = self.conversation.last_question()
        if question is None:
            raise CommandError("there is no question to send again")
        self.conversation.undo()
        self.send(question)

    def _system(self, text: str) -> None:
        if not text:
            self.conversation.load()
            print(without_control_characters(self.conversation.system or "There is no system prompt."))
            return
        self.conversation.move(system="" if text == "-" else text)
        print_wrapped("The system prompt holds from the next question on.")

    def _usage(self, _: str) -> None:
        print_wrapped(reports.conversation_usage(self.conversation))
        report = self.conversation.side.usage(by=["model"])
        print_wrapped("The key, in the last 30 days:")
        reports.print_usage(report)

    def _receipt(self, _: str) -> None:
        if self.conversation.answer is None:
            raise CommandError("there is no answer with a receipt yet; send a question first")
        for line in reports.receipt_lines(self.conversation.answer):
            print_wrapped(line)

    def _save(self, name: str) -> None:
        try:
            words = shlex.split(name)
        except ValueError as error:
            raise CommandError(f"/save: {error}") from error
        path = transcript.save(self.conversation, " ".join(words))
        print_wrapped(f"Saved {path}.")

    def _help(self, _: str) -> None:
        for command in self.all().values():
            print_wrapped(f"{command.usage:<{_HELP_COLUMN}}{command.help}", indent=_HELP_COLUMN)
        print()
        print_wrapped("@photo.png sends an image. Alt-Enter, or Enter after a backslash, begins a line.")
        print_wrapped("Ctrl-C stops an answer; /retry sends the question again. // begins one with a slash.")

    def _exit(self, _: str) -> None:
        raise Leave


def is_command(text: str) -> bool:
    """Reports whether a text is a command: `/word`, and not a path such as `/tmp/photo.png`."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    return word.startswith("/") and "/" not in word[1:]
