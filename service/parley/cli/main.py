"""The command line: which commands there are, and how their errors look."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

_EXAMPLES = """Examples:
  parley up                       start everything, make a first key
  parley keys create --name ada   make another key
  parley up --help                all options of a command, an example"""


def _version() -> str:
    """The version of the package."""
    return f"parley {version('parley-gateway')}"


app = App(
    name="parley",
    help="Chat completions over gRPC and REST, with sessions, from any model.",
    help_epilogue=_EXAMPLES,
    help_format="plaintext",
    version=_version,
    exit_on_error=False,
    print_error=False,
)
# Named by their import paths: a command's modules are imported when it is called, so that `parley --help` is fast.
app.command(
    "parley.cli.up:up",
    name="up",
    help="Start everything: workers, Envoy, the built-in model.",
    help_epilogue="Example:\n  parley up --config parley.yaml --http 0.0.0.0:8080 --workers 2",
)
app.command(
    "parley.cli.serve:serve",
    name="serve",
    help="Run one worker, gRPC only, without Envoy.",
    help_epilogue="Example:\n  parley serve --listen 0.0.0.0:50051 --config parley.yaml",
)
app.command(
    "parley.cli.models:models",
    name="models",
    help="List the configured models.",
    help_epilogue="Example:\n  parley models --config parley.yaml",
)
app.command("parley.cli.keys:app", name="keys", help="Make, list and revoke API keys.")
app.command("parley.cli.accounts:app", name="accounts", help="List accounts and change their plans.")
app.command("parley.cli.sessions:app", name="sessions", help="List, show, export and delete sessions.")
app.command(
    "parley.cli.chat:chat",
    name="chat",
    help="Talk to a model in the terminal.",
    help_epilogue="Examples:\n"
    "  PARLEY_API_KEY=sk-… parley chat --model smollm2\n"
    "  parley chat --key-file key --session 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10",
)
app.command("parley.cli.db:app", name="db", help="Upgrade the database, or move it to PostgreSQL.")
app.command("parley.cli.config:app", name="config", help="Check a configuration file.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `parley` with these arguments, by default the process's own.

    Exits with 0; with 1 and one line on stderr for an error; with 2 for wrong usage.
    """
    try:
        app(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _end_output()
    except CycloptsError as error:
        _fail(f"{' '.join(str(error).split())} See `parley --help`.", code=2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from parley.config import ConfigError
        from parley.supervisor.errors import CommandError

        if not isinstance(error, CommandError | ConfigError):
            raise
        _fail(str(error), code=1)


def _end_output() -> None:
    """Ends the command as a program that SIGPIPE ends: `parley … | head -1` has read what it wanted."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered would fail at the exit
    sys.exit(128 + signal.SIGPIPE)


def _fail(text: str, code: int) -> None:
    """Ends the command: one line on stderr for each line of the text."""
    for line in text.splitlines():
        print(f"parley: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
