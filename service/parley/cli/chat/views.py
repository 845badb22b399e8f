"""Plain output of answers: for pipes, files and terminals without a cursor."""

import sys
from typing import Self

from parley.cli.shared.interrupts import Interrupts


class PlainView:
    """Prints an answer as it is, to stdout.

    Args:
        interrupts: Makes writes interruptible, because a write to a pipe may block.
        model: The model that is on the screen; another one that answers is named on stderr. None names none.
    """

    def __init__(self, interrupts: Interrupts, model: str | None) -> None:
        self._interrupts = interrupts
        self._model = model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        if kind is None:
            self._print("\n")

    def show_model(self, model: str) -> None:
        """Names the model on stderr, unless it is on the screen."""
        if self._model not in {None, model}:
            print(f"({model})", file=sys.stderr)
            self._model = model

    def show_reasoning(self, text: str) -> None:
        """Shows nothing: the reader wants the answer."""

    def show(self, text: str) -> None:
        """Prints a part of the answer."""
        self._print(text)

    def _print(self, text: str) -> None:
        with self._interrupts.interruptible():
            print(text, end="", flush=True)
