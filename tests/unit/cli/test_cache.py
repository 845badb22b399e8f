"""`parley cache` on a real file."""

import asyncio
import json
from pathlib import Path

import pytest

from parley.cli.app import app
from parley.cli.shared import receipts
from parley.core.ports import KeptAnswer
from parley.core.ports.cache import ROW_BYTES
from parley.stores.sqlite import SqliteStore
from parley.supervisor.errors import CommandError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with answers of two accounts and two models."""

    async def keep() -> None:
        store = SqliteStore(tmp_path / "parley.db")
        for number, (account, model) in enumerate([("ada", "faq"), ("ada", "faq"), ("ada", "m"), ("bob", "faq")]):
            await store.keep_answer(KeptAnswer(bytes([number]), account, model, None, b"x" * 1000, 60.0))
        await store.close()

    asyncio.run(keep())
    return tmp_path


def run(state: Path, *arguments: str) -> None:
    """Runs `parley cache …`."""
    app(["cache", *arguments, "--state-dir", str(state)], result_action="return_value")


def test_sizes(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answers are counted by account and model, in a table or as JSON."""
    run(state, "--json")
    size = 1000 + ROW_BYTES
    assert {"account": "ada", "model": "faq", "answers": 2, "bytes": 2 * size} == json.loads(capsys.readouterr().out)[0]
    run(state)
    assert ["ada", "faq", "2", "2,512"] == capsys.readouterr().out.splitlines()[1].split()


def test_clear(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers are cleared by model, by account, or all; the command must say which."""
    for arguments in ([], ["--all", "--model", "faq"]):
        with pytest.raises(CommandError, match="name the answers to remove"):
            run(state, "clear", *arguments)
    run(state, "clear", "--model", "faq", "--account", "ada")
    run(state, "clear", "--account", "bob")
    run(state, "clear", "--all")
    run(state, "--json")
    printed = capsys.readouterr().out
    assert "Removed 2 answers.\nRemoved 1 answer.\nRemoved 1 answer.\n[]\n" == printed


def test_the_line_of_a_hit() -> None:
    """Conversations show of a kept answer that it is one."""
    assert ["from the cache"] == receipts.lines({"cache": "hit", "cost": 0.0, "duration_ms": 0})
    assert [] == receipts.lines({"cache": "miss", "attempts": []})


def test_no_store(tmp_path: Path) -> None:
    """Without a store, the commands say so and make none."""
    with pytest.raises(CommandError, match="has no answers"):
        run(tmp_path / "none")
    assert not (tmp_path / "none").exists()
