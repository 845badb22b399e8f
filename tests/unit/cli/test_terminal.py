"""Untrusted text and long lines on a terminal."""

import json
import sys

import pytest

from parley.cli.main import print_failure
from parley.cli.shared.prose import print_wrapped, unbroken
from parley.cli.shared.terminal import json_text, print_table

NAME = "a\x1b[2J\x9b\u202eb\nkey_fake\tc\r"


def test_a_cell_imitates_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    """A name with control characters and line breaks stays in its row; columns may allow several lines."""
    print_table(("Name", "Targets"), [(NAME, "one\ntwo")], folded=("Name",), multiline=("Targets",))
    heading, first, second = capsys.readouterr().out.splitlines()
    assert (["Name", "Targets"], ["a[2Jb", "key_fake", "c", "one"], ["two"]) == (
        heading.split(),
        first.split(),
        second.split(),
    )


def test_json_controls_no_terminal() -> None:
    """JSON keeps its content with all control characters escaped."""
    text = json_text(json.dumps({"name": NAME, "other": "é"}, ensure_ascii=False))
    assert {"name": NAME, "other": "é"} == json.loads(text)
    assert text.isprintable()


PATH = f"/srv/{'long-name/' * 9}parley.yaml"


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the standard streams a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)


def test_a_line_ends_in_no_path_and_no_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path stays whole, and a command can be copied."""
    narrow(monkeypatch)
    print_wrapped(f"{PATH} can be read by others; run `chmod o-r {PATH}`, or move it", indent=4)
    print_wrapped(f"Next: {unbroken(f'parley doctor --config {PATH}')}", indent=4)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    sentence = [PATH, "can be read by others; run", f"`chmod o-r {PATH}`,", "or move it"]
    assert [*sentence, "Next:", f"parley doctor --config {PATH}"] == lines


def test_an_error_ends_its_lines_at_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of any command is wrapped at words, and each of its lines begins as one."""
    narrow(monkeypatch)
    with pytest.raises(SystemExit):
        print_failure("one: " + 20 * "configuration " + "\ntwo\x1b[2J: unknown", 1)
    lines = capsys.readouterr().err.splitlines()
    assert ["parley: one: configuration", "parley: two[2J: unknown"] == [lines[0][:26], lines[-1]]
    assert {"configuration"} == {word for line in lines[1:-1] for word in line.split()}
    assert max(map(len, lines)) <= 80
