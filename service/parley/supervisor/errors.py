"""The error of a command, or of a process that it starts."""


class CommandError(Exception):
    """A command cannot do what it was asked. Its text is one line for a person: what is wrong, what to change."""
