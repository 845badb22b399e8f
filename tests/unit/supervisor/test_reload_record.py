"""Tests of the record of reloads."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.supervisor import reload_record

BEFORE: dict[str, Any] = {
    "backends": {"a": {"api_key": "secret-1"}, "b": {}},
    "models": [{"id": "m"}, {"id": "n"}],
    "limits": {"session": {"bytes": 1}},
    "store": {"kind": "sqlite", "path": None},
}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, []),
        ({"backends": {"a": {"api_key": "secret-2"}, "b": {}}}, ["backend a changed"]),
        ({"backends": {"a": {"api_key": "secret-1"}, "c": {}}}, ["backend c added", "backend b removed"]),
        ({"models": [{"id": "n"}, {"id": "m"}]}, ["models reordered"]),
        ({"models": [{"id": "m", "weight": 1}]}, ["model n removed", "model m changed"]),
        ({"store": {"kind": "sqlite", "path": "/x"}}, ["store changed"]),
        ({"limits": {"session": {"bytes": 2}}, "models": []}, ["limit session changed", "models changed"]),
    ],
)
def test_changes_have_names_and_no_values(after: dict[str, Any], expected: list[str]) -> None:
    """Changed parts are named, without their values, which may be secrets."""
    assert expected == reload_record.changes(json.dumps(BEFORE), json.dumps(BEFORE | after))


def test_a_reload_is_recorded(tmp_path: Path) -> None:
    """A reader sees a new number when a reload begins, and the outcome when it ends."""
    first = reload_record.read(tmp_path)
    end = reload_record.begin(tmp_path)
    running = reload_record.read(tmp_path)
    assert (0, True, False) == (first.number, running.number > 0, running.is_done)
    end("wrong", ())
    ended = reload_record.read(tmp_path)
    assert (running.number, True, "wrong") == (ended.number, ended.is_done, ended.error)


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The reload goes on without a record."""
    reload_record.begin(tmp_path / "missing")(None, ())
    assert reload_record.Outcome() == reload_record.read(tmp_path / "missing")


def test_a_later_reload_has_a_higher_number_after_the_clock_steps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`parley reload` waits for a higher number than that of the last reload, and so would wait forever."""
    reload_record.begin(tmp_path)(None, ())
    first = reload_record.read(tmp_path).number
    monkeypatch.setattr("parley.supervisor.reload_record.time.time_ns", lambda: first - 10**12)
    reload_record.begin(tmp_path)(None, ())
    assert reload_record.read(tmp_path).number > first
