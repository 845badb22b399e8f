"""`parley chat`: a conversation with a model in the terminal, over gRPC."""

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from parley.cli.shared.interrupts import Interrupts
from parley.cli.shared.terminal import without_control_characters
from parley.supervisor.errors import CommandError
from parley_client import Client, ParleyError, Retry

_PROMPT = "> "
# Seconds that a cancelled turn may take to release its session. If the store cannot be written meanwhile, the session
# is busy until the lease of 10 s expires.
_BUSY_SECONDS = 15.0
_PAUSE = 0.2
_ONCE = Retry(attempts=1)  # a user sees a failure at once, and decides


def chat(
    *,
    model: Annotated[
        str | None, Parameter(name="--model", help="The model's id. Default: the default model of the service.")
    ] = None,
    session: Annotated[str | None, Parameter(name="--session", help="The id of a session to continue.")] = None,
    address: Annotated[
        str,
        Parameter(
            name="--address", env_var="PARLEY_ADDRESS", help="Address of the gRPC listener, HOST:PORT; without TLS."
        ),
    ] = "127.0.0.1:50051",
    key_file: Annotated[
        Path | None,
        Parameter(name="--key-file", help="File that contains an API key. Default: the variable PARLEY_API_KEY."),
    ] = None,
) -> None:
    """Talk to a model. Ctrl-C stops an answer; Ctrl-D exits and shows the session's id."""
    person = sys.stdin.isatty()
    with Interrupts() as interrupts, Client(address, key=_key(key_file), tls=False, retry=_ONCE) as client:
        conversation = _Conversation(client, interrupts, address, model, session)
        try:
            for text in _lines(interrupts, person):
                _turn(conversation, text, person)
        finally:
            if conversation.session is not None:
                named = f" --model {model}" if model else ""
                print(
                    f"To go on: parley chat{named} --session {without_control_characters(conversation.session)}",
                    file=sys.stderr,
                )


@dataclass
class _Conversation:
    """A conversation. Without a session of the service, every call sends the whole history.

    Attributes:
        client: The gRPC client.
        interrupts: Handles Ctrl-C; cancels the current call.
        address: The service's address, for error messages.
        model: The model's id; None for the service's default.
        session: The session's id; None until the service returns one.
        history: The messages so far, sent while there is no session.
    """

    client: Client
    interrupts: Interrupts
    address: str
    model: str | None
    session: str | None
    history: list[Any] = field(default_factory=list)

    def send(self, text: str) -> Generator[str, None, None]:
        """Sends a user message and yields the text of the answer as it arrives. Raises ParleyError."""
        question = {"role": "user", "content": text}
        messages = [question] if self.session else [*self.history, question]
        with self.client.chat.stream(messages, session_id=self.session, model=self.model) as stream:
            self.interrupts.cancel_with(stream.cancel)
            for chunk in stream:
                self.session = chunk.session_id if chunk.HasField("session_id") else self.session
                for choice in chunk.choices:
                    yield choice.delta.content or choice.delta.refusal
            self.history += [question, stream.result().message]


def _turn(conversation: _Conversation, text: str, person: bool) -> None:
    """Sends a line and prints the answer. Raises CommandError if the conversation cannot continue."""
    try:
        _answer(conversation, text)
    except KeyboardInterrupt:
        if not person:
            raise
        conversation.interrupts.acknowledge()
        print("\n(stopped)", file=sys.stderr)
    except ParleyError as error:
        _report_failure(conversation, error, person)


def _answer(conversation: _Conversation, text: str) -> None:
    """Prints the answer as it arrives. Waits while the session is busy with a cancelled turn. Raises ParleyError."""
    started = time.monotonic()
    while True:
        try:
            with closing(conversation.send(text)) as parts:
                for text_part in parts:
                    _show(conversation, without_control_characters(text_part))
            _show(conversation, "\n")
        except ParleyError as error:
            conversation.interrupts.raise_pending()
            if error.reason != "SESSION_BUSY" or time.monotonic() - started > _BUSY_SECONDS:
                raise
            with conversation.interrupts.interruptible():
                time.sleep(_PAUSE)
        else:
            return


def _show(conversation: _Conversation, text: str) -> None:
    """Prints a part of the answer. Interruptible, because a write to a pipe may block."""
    with conversation.interrupts.interruptible():
        print(text, end="", flush=True)


def _report_failure(conversation: _Conversation, error: ParleyError, person: bool) -> None:
    """Prints the failure if the user can try again: at a terminal, after an answer. Otherwise raises CommandError."""
    if error.reason is None:
        why = error.message.rpartition(": ")[2]  # the last of gRPC's list of attempts
        message = f"nothing answers at {conversation.address} ({why}); start `parley up`, or name another --address"
        raise CommandError(without_control_characters(message)) from error
    if not (person and conversation.history):
        raise CommandError(without_control_characters(error.message)) from error
    print(f"parley: {without_control_characters(error.message)}", file=sys.stderr)


def _lines(interrupts: Interrupts, person: bool) -> Iterator[str]:
    """Yields the non-empty lines of the input, until Ctrl-D or its end."""
    read: Callable[[], str] = input
    if person:
        import readline  # noqa: F401 - adds arrow keys and a history to `input`

        print("Ctrl-C stops an answer, Ctrl-D leaves.", file=sys.stderr)
        read = _ask
    while True:
        try:
            with interrupts.interruptible():
                text = read()
        except EOFError:
            if person:
                print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            if not person:
                raise
            interrupts.acknowledge()
            print(file=sys.stderr)
            continue
        if text.strip():
            yield text


def _ask() -> str:
    return input(_PROMPT)


def _key(file: Path | None) -> str:
    """Returns the API key. It is never an argument, because other users can list those. Raises CommandError."""
    place, key = "PARLEY_API_KEY", os.environ.get("PARLEY_API_KEY", "").strip()
    if file is not None:
        place, key = str(file), _read(file)
    elif not key:
        raise CommandError("there is no API key; set PARLEY_API_KEY, or name a file that has one with --key-file")
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise CommandError(f"{place} has no API key; it must hold one and nothing else")
    return key


def _read(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
