"""The error of a command, or of a process that it starts."""


class CommandError(Exception):
    """A command failed. The message is one line for the operator: the problem and the remedy."""
