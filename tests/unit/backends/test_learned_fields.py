"""What the workers of a machine learn about models, in a file that they share."""

from dataclasses import replace
from pathlib import Path

import pytest

from parley.backends.openai import learned_fields
from parley.backends.openai.learned_fields import Learned, LearnedFields


def _named(field: str) -> Learned:
    return Learned(field=field)


def test_a_worker_looks_at_the_file_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call between two looks has what the latest look found."""
    now = 100.0
    monkeypatch.setattr(learned_fields, "monotonic", lambda: now)
    one, other = (LearnedFields(tmp_path / "fields.json") for _ in range(2))
    assert Learned() == other.get("m")
    one.update("m", lambda known: replace(known, field="reasoning"))
    assert (_named("reasoning"), Learned()) == (one.get("m"), other.get("m"))
    now += 1.0
    assert _named("reasoning") == other.get("m")


def test_an_update_keeps_what_other_workers_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the file first, however short the time since the latest look."""
    monkeypatch.setattr(learned_fields, "monotonic", lambda: 100.0)
    one, other = (LearnedFields(tmp_path / "fields.json") for _ in range(2))
    other.get("m")
    one.update("m", lambda known: replace(known, field="reasoning"))
    other.update("m", lambda known: replace(known, rejected=frozenset({"audio"})))
    other.update("n", lambda known: replace(known, required=True))
    third = LearnedFields(tmp_path / "fields.json")
    assert Learned("reasoning", frozenset({"audio"})) == third.get("m")
    assert Learned(required=True) == third.get("n")
