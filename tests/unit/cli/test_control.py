"""Tests of `parley reload`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from parley.cli import control
from parley.cli.shared import operating
from parley.supervisor import reload_record
from parley.supervisor.errors import CommandError


@pytest.fixture(autouse=True)
def accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service accepts the request, and runs on."""
    monkeypatch.setattr(control, "_BEGIN_SECONDS", 0.0)
    monkeypatch.setattr(operating, "folder", lambda _: tmp_path)
    monkeypatch.setattr(operating, "is_running", lambda _: True)
    monkeypatch.setattr(operating, "call", lambda *_: None)


def test_a_reload_without_a_record_is_an_error() -> None:
    """A full disk keeps the service from recording the reload; the command must not wait forever."""
    with pytest.raises(CommandError, match="has no record of the reload"):
        control.reload()


def test_a_running_reload_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a reload runs, the time for its begin does not pass."""
    ends = [reload_record.begin(tmp_path)]

    def sleep(_seconds: float) -> None:
        changes: Sequence[str] = ("model m added",)
        ends.pop()(None, changes)

    monkeypatch.setattr(reload_record, "read", _later(tmp_path))
    monkeypatch.setattr("parley.cli.control.time.sleep", sleep)
    control.reload()
    assert "The new configuration is in use: model m added.\n" == capsys.readouterr().out


def _later(folder: Path) -> object:
    """Returns a function that reads the record, at first without the reload that has begun meanwhile."""
    answers = [reload_record.Outcome()]
    read = reload_record.read
    return lambda _: answers.pop() if answers else read(folder)
