"""The options of `parley chat`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from parley.cli.chat import access as connection
from parley.cli.chat import images
from parley.cli.chat.access import Access
from parley.cli.chat.conversation import Conversation
from parley.cli.shared.interrupts import Interrupts
from parley.cli.shared.terminal import without_control_characters
from parley.supervisor.errors import CommandError


def chat(  # noqa: PLR0913 - one parameter an option
    *,
    model: Annotated[
        str | None, Parameter(name="--model", help="The model's id. Default: the default model of the service.")
    ] = None,
    session: Annotated[str | None, Parameter(name="--session", help="The id of a session to continue.")] = None,
    once: Annotated[
        str | None,
        Parameter(
            name="--once",
            allow_leading_hyphen=True,
            help="Answer this one question and exit. What is piped in is added; `-` for that alone.",
        ),
    ] = None,
    system: Annotated[str | None, Parameter(name="--system", help="The system prompt of a new session.")] = None,
    image: Annotated[
        list[Path] | None,
        Parameter(name="--image", negative=(), help="An image for the first question. Repeatable."),
    ] = None,
    address: Annotated[
        str, Parameter(name="--address", env_var="PARLEY_ADDRESS", help="Address of the gRPC listener, HOST:PORT.")
    ] = "127.0.0.1:50051",
    tls: Annotated[
        bool | None,
        Parameter(
            name="--tls", negative="--no-tls", help="Use TLS. Default: yes, except for an address of this machine."
        ),
    ] = None,
    ca: Annotated[
        Path | None, Parameter(name="--ca", help="File with the authorities of the service's certificate.")
    ] = None,
    cert: Annotated[
        Path | None, Parameter(name="--cert", help="File with a certificate of the caller (mTLS), instead of a key.")
    ] = None,
    cert_key: Annotated[Path | None, Parameter(name="--cert-key", help="File with the key of --cert.")] = None,
    tls_name: Annotated[
        str | None,
        Parameter(name="--tls-name", help="The host name in the service's certificate. Default: that of --address."),
    ] = None,
    key_file: Annotated[
        Path | None,
        Parameter(name="--key-file", help="File that contains an API key. Default: the variable PARLEY_API_KEY."),
    ] = None,
    history: Annotated[
        bool, Parameter(name="--history", help="Keep typed questions for the next time, in a private file.")
    ] = True,
) -> None:
    """Talk to a model. Ctrl-C stops an answer; Ctrl-D exits and shows the session's id."""
    secure = connection.tls_of(tls=tls, ca=ca, certificate=cert, certificate_key=cert_key)
    if session is not None and system is not None:
        raise CommandError("--system is that of a new session; leave out --session, or use /system at the prompt")
    access = Access(
        connection.address_of(address), connection.api_key(key_file, has_certificate=cert is not None), secure, tls_name
    )
    pictures = list(map(images.read_image, image or []))
    with Interrupts() as interrupts, access.client() as client, access.side_client() as side:
        conversation = Conversation(client, side, interrupts, model, session, system)
        try:
            _run(conversation, access, once, pictures, _history_file() if history else None)
        finally:
            _show_session(conversation, model)


def _run(
    conversation: Conversation,
    access: Access,
    once: str | None,
    pictures: list[dict[str, Any]],
    history: Path | None,
) -> None:
    if once is None and sys.stdin.isatty():
        from parley.cli.chat.dialogue import Dialogue

        Dialogue(conversation, access, history, pictures).run()
        return
    from parley.cli.chat import pipes

    if once is None:
        pipes.answer_lines(conversation, access, pictures)
    else:
        pipes.answer_once(conversation, access, once, pictures)


def _show_session(conversation: Conversation, model: str | None) -> None:
    """Prints how to go on, on stderr."""
    if conversation.session is None:
        return
    known = conversation.model or model
    named = f" --model {shlex.quote(without_control_characters(known))}" if known else ""
    session = without_control_characters(conversation.session)
    separator = "=" if session.startswith("-") else " "
    print(f"To go on: parley chat{named} --session{separator}{shlex.quote(session)}", file=sys.stderr)


def _history_file() -> Path:
    """Returns the file of the questions, as the XDG Base Directory Specification places it."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "parley" / "chat-history"
