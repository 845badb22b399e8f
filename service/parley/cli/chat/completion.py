"""Completion at the prompt: commands, their arguments, and paths of images."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from parley.cli.shared.terminal import without_control_characters
from parley_client import ParleyError

Values = Callable[[], Iterable[tuple[str, str]]]


class ChatCompleter(Completer):
    """Completes the names of commands, what may follow them, and `@` paths.

    Args:
        commands: The help of each command by its name.
        values: Returns the possible arguments of a command, each with what is shown beside it, by its name. May raise
            ParleyError.
        files: The commands whose argument is a path.
    """

    def __init__(self, commands: Mapping[str, str], values: Mapping[str, Values], files: Iterable[str]) -> None:
        self._commands, self._values, self._files = commands, values, frozenset(files)
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yields what completes the text before the cursor."""
        text = document.text_before_cursor
        name, space, argument = text.partition(" ")
        if not text.startswith("/"):
            word = document.get_word_before_cursor(WORD=True)
            if word.startswith("@"):
                yield from self._path(word[1:], complete_event)
        elif not space:
            for command, help_text in self._commands.items():
                if command.startswith(text):
                    yield Completion(command, -len(text), display_meta=help_text)
        elif name in self._files:
            yield from self._path(argument, complete_event)
        elif name in self._values:
            yield from self._value(name, argument)

    def _path(self, start: str, event: CompleteEvent) -> Iterable[Completion]:
        return self._paths.get_completions(Document(start), event)

    def _value(self, name: str, argument: str) -> Iterable[Completion]:
        with suppress(ParleyError):  # the command itself reports it
            for value, shown in self._values[name]():
                if value.startswith(argument):
                    text, meta = map(without_control_characters, (value, shown))
                    yield Completion(text, -len(argument), display_meta=meta)
