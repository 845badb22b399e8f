"""Completion at the prompt."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from parley.cli.chat.completion import ChatCompleter
from parley_client import UnavailableError


def unreachable() -> Iterator[tuple[str, str]]:
    """Fails as a call does without a service."""
    yield "new", ""
    raise UnavailableError("down", grpc.StatusCode.UNAVAILABLE)


@pytest.fixture
def completer() -> ChatCompleter:
    """A completer of a few commands."""
    commands = {"/model": "models", "/save": "a file", "/session": "sessions"}
    return ChatCompleter(
        commands,
        {"/model": lambda: [("small", "Small"), ("smart", ""), ("x\x1b[2J", "")], "/session": unreachable},
        ["/save"],
    )


def completed(completer: ChatCompleter, text: str) -> list[str]:
    """Returns the texts that the completions make of a text."""
    document = Document(text)
    found = completer.get_completions(document, CompleteEvent())
    return [text[: len(text) + one.start_position] + one.text for one in found]


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("/s", ["/save", "/session"]),
        ("/model sma", ["/model small", "/model smart"]),
        ("/model x", ["/model x[2J"]),
        ("/session ", ["/session new"]),
        ("/nonsense x", []),
        ("a question", []),
        ("mail ada@host", []),
    ],
)
def test_commands_and_their_arguments(completer: ChatCompleter, text: str, results: list[str]) -> None:
    """Commands complete at the start only; control characters are left out, and a failed call has no effect."""
    assert results == completed(completer, text)


def test_paths(completer: ChatCompleter, tmp_path: Path) -> None:
    """`@` and the argument of /save complete paths."""
    (tmp_path / "photo.png").touch()
    assert [f"see @{tmp_path}/photo.png"] == completed(completer, f"see @{tmp_path}/ph")
    assert [f"/save {tmp_path}/photo.png"] == completed(completer, f"/save {tmp_path}/ph")
