"""Questions of a command to its user, each of which an option answers too."""

import sys
from collections.abc import Callable

from parley.cli.shared.prose import print_wrapped
from parley.supervisor.errors import CommandError

Check = Callable[[str], str]
"""Returns the value of an answer. Raises ValueError with what is wrong."""


class Dialog:
    """Asks on the terminal; without one, options and defaults have to answer.

    Args:
        asks: Whether questions are asked.
    """

    def __init__(self, *, asks: bool) -> None:
        self.asks = asks

    def value(self, given: str | None, option: str, question: str, default: str, check: Check) -> str:
        """Returns the checked value of an option, or else the answer to a question, or else the default.

        Args:
            given: The value of the option; None if it is not given.
            option: The name of the option.
            question: The question.
            default: The value of an empty answer; "" for none.
            check: Checks the value, also an empty one.

        Raises:
            CommandError: The value of the option is wrong, or it is needed and cannot be asked for.
        """
        if given is None and self.asks:
            return self._ask(question, default, check)
        try:
            return check(default if given is None else given)
        except ValueError as error:
            raise CommandError(f"{option}: {error}") from error

    def confirms(self, question: str) -> bool:
        """Returns whether the user agrees; False if nothing can be asked, and at the end of the input."""
        try:
            return self.asks and input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
        except EOFError:
            return False

    def _ask(self, question: str, default: str, check: Check) -> str:
        shown = f"{question} [{default}]: " if default else f"{question}: "
        while True:
            try:
                return check(input(shown).strip() or default)
            except ValueError as error:
                print_wrapped(f"  {error}", indent=2)
            except EOFError:
                raise CommandError("the answers ended; nothing is written") from None


def is_terminal() -> bool:
    """Returns whether questions can be asked: both stdin and stdout are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()
