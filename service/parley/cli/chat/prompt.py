"""The prompt of a terminal with a cursor: history, completion, several lines."""

import os
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_MENU_LINES = 6


class Prompt:
    """Reads questions. Enter sends; Alt-Enter, or Enter after a backslash, begins a line. Pasted lines stay together.

    Args:
        completer: Completes the text.
        history: The file of earlier questions; None to keep none.
    """

    def __init__(self, completer: Completer, history: Path | None) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            completer=completer,
            complete_in_thread=True,
            complete_while_typing=Condition(self._is_command),
            history=_history(history),
            key_bindings=_bindings(),
            prompt_continuation="  ",
            reserve_space_for_menu=_MENU_LINES,
        )

    def read(self, label: str) -> str:
        """Returns the next text. Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C."""
        return self._session.prompt(FormattedText([("bold", label), ("", "> ")]))

    def _is_command(self) -> bool:
        text = self._session.default_buffer.document.text
        return text.startswith("/") or "@" in text


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.apply_completion(buffer.complete_state.current_completion)
        elif buffer.document.current_line_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings


def _history(file: Path | None) -> History:
    """Returns the history of a file, which only its owner can read; one in memory if the file cannot be written."""
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(file)
