"""Untrusted text on a terminal."""

import json

import pytest

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
