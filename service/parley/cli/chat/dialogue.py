"""A conversation with a user at a terminal."""

import io
import os
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from parley.cli.chat import answers, images
from parley.cli.chat.access import Access
from parley.cli.chat.answers import View
from parley.cli.chat.commands import Commands, Leave, is_command
from parley.cli.chat.conversation import Conversation
from parley.cli.chat.views import PlainView
from parley.cli.shared.interrupts import Interrupts
from parley.cli.shared.prose import print_error, print_wrapped
from parley.cli.shared.terminal import without_control_characters
from parley.supervisor.errors import CommandError
from parley_client import ParleyError

Read = Callable[[str], str]
_DENIED = "PERMISSION_DENIED"
_STYLES = {"markdown.code": "bold cyan"}  # without rich's black background, for light terminals


class Dialogue:
    """Reads questions and commands, and shows answers.

    Args:
        conversation: The conversation.
        access: The connection, for the messages of errors.
        history: The file of earlier questions; None to keep none.
        pictures: Images that are sent with the first question.
    """

    def __init__(
        self, conversation: Conversation, access: Access, history: Path | None, pictures: list[dict[str, Any]]
    ) -> None:
        self._conversation, self._access, self._history = conversation, access, history
        self._pictures = pictures
        self._commands = Commands(conversation, self._ask)

    def run(self) -> None:
        """Talks until Ctrl-D or `/exit`. Raises CommandError if the service cannot be used at all."""
        self._greet()
        read, self._view = self._parts()
        with _without_echo() if has_cursor() else nullcontext():
            self._talk(read)

    def _talk(self, read: Read) -> None:
        for text in _texts(read, self._label, self._conversation.interrupts):
            try:
                self._take(text)
            except Leave:
                return
            except KeyboardInterrupt:
                self._conversation.interrupts.acknowledge()
                print("(stopped)" if has_cursor() else "\n(stopped)", file=sys.stderr)
            except ParleyError as error:
                print_error(self._access.explain(error))
            except CommandError as error:
                print_error(str(error))

    def _greet(self) -> None:
        """Names the model and the session. Raises CommandError if the service rejects the key, or is not there."""
        conversation = self._conversation
        try:
            ids = list(self._commands.model_ids())
            found = None if conversation.session is None else conversation.attach(conversation.session)
            conversation.find_default_model()
            if conversation.model is None and len(ids) == 1:
                conversation.model = ids[0]
        except ParleyError as error:
            conversation.interrupts.raise_pending()
            if error.code.name != _DENIED:  # a key for completions only
                conversation.session = None  # it is not known to exist
                raise CommandError(self._access.explain(error)) from error
            found = None
        model = conversation.model or "the default model of the service"
        place = "a new session" if found is None else f"turn {found.turn_count + 1} of session {found.id}"
        title = f': "{found.title}"' if found is not None and found.title else ""
        print_wrapped(f"{model}, {place}{title}", file=sys.stderr)
        print_wrapped("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", file=sys.stderr)

    def _parts(self) -> tuple[Read, Callable[[], View]]:
        """Returns what reads and what shows: the full ones on a terminal with a cursor."""
        interrupts, model = self._conversation.interrupts, self._conversation.model
        if not has_cursor():
            return _plain_reader(interrupts), lambda: PlainView(interrupts, model or "")
        from parley.cli.chat.completion import ChatCompleter
        from parley.cli.chat.prompt import Prompt

        commands = {name: command.help for name, command in self._commands.all().items()}
        values = {"/model": lambda: self._commands.model_ids().items(), "/session": self._commands.session_ids}
        return Prompt(ChatCompleter(commands, values, ["/save"]), self._history).read, markdown_view

    def _label(self) -> str:
        answered = self._conversation.answers
        return without_control_characters(self._conversation.model or (answered[-1].model if answered else ""))

    def _take(self, text: str) -> None:
        """Runs a command, or sends a question. Raises CommandError, ParleyError, Leave and KeyboardInterrupt."""
        if is_command(text):
            try:
                self._commands.run(text)
            finally:  # an interrupt during a short call must not cancel the next answer
                self._conversation.interrupts.acknowledge()
            return
        if text.startswith("//"):
            text = text[1:]
        question, paths = images.find_images(text)
        pictures = [*self._pictures, *map(images.read_image, paths)]
        for path in paths:
            print_wrapped(f"(with the image {path})", file=sys.stderr)
        self._pictures = []
        self._ask(images.message(question, pictures))

    def _ask(self, question: Any) -> None:
        is_new = self._conversation.session is None
        with _without_echo():
            cut = answers.answer(self._conversation, question, self._view())
        if is_new:
            with suppress(ParleyError):  # a key for completions only
                self._conversation.name_after(question)
        if cut:
            print(f"({cut})", file=sys.stderr)


def has_cursor() -> bool:
    """Reports whether stdin and stdout are a terminal that can move its cursor."""
    return sys.stdin.isatty() and can_draw()


def can_draw() -> bool:
    """Reports whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}


def markdown_view() -> View:
    """Returns a view that shows an answer as Markdown."""
    from rich.console import Console
    from rich.theme import Theme

    from parley.cli.chat.markdown import MarkdownView

    return MarkdownView(Console(highlight=False, theme=Theme(_STYLES)))


def _texts(read: Read, label: Callable[[], str], interrupts: Interrupts) -> Iterator[str]:
    """Yields what the user enters, without empty texts, until Ctrl-D. Ctrl-C discards what is being entered."""
    while True:
        try:
            text = read(label())
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            interrupts.acknowledge()
            print(file=sys.stderr)
            continue
        if text.strip():
            yield text


def _plain_reader(interrupts: Interrupts) -> Read:
    """Returns a function that reads one line."""
    import readline  # noqa: F401 - adds arrow keys and a history to `input`

    def read(_: str) -> str:
        with interrupts.interruptible():
            return input("> ")

    return read


@contextmanager
def _without_echo() -> Iterator[None]:
    """Shows no typed keys meanwhile, which would be mixed into the answer. They are read at the next prompt."""
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (termios.error, io.UnsupportedOperation, ValueError):
        yield
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
