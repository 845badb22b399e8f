"""What `parley chat` prints at its end."""

import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from parley.cli.chat.command import _show_session


@pytest.mark.parametrize("session", ["0199c1b2", "ticket 1; rm -rf ~", "it's", "$(reboot)", "-x", "--help"])
def test_the_command_to_go_on_is_safe_to_paste(session: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell reads the printed command as it is meant, whatever id a caller has chosen."""
    conversation: Any = SimpleNamespace(session=session, model="m'1")
    _show_session(conversation, None)
    words = shlex.split(capsys.readouterr().err.removeprefix("To go on: "))
    assert ["parley", "chat", "--model", "m'1"] == words[:4]
    assert [f"--session={session}"] == words[4:] or ["--session", session] == words[4:]
    assert session.startswith("-") == (len(words) == 5)
