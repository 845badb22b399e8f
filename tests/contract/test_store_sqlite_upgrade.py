"""Tests of the migrations of files of older versions."""

from pathlib import Path
from typing import Any

import apsw
import pytest

from parley.core.errors import StoreUnavailable
from parley.core.ports import SessionFilter, TurnEnd, Window
from parley.stores.migrations import Migration, migrations
from parley.stores.sqlite import SqliteStore, database
from parley.stores.sqlite.database import add_functions, upgrade
from parley.v1.message_pb2 import Message
from tests.contract.stores import begin, key, message, receipt, texts

STEPS = migrations("parley.stores.sqlite")


def _call() -> Message:
    made = Message(role="assistant")
    made.tool_calls.add(id="c", type="function").function.name = "look"
    return made


def _image() -> Message:
    made = Message(role="user")
    made.content.list_value.values.add().struct_value.update({"type": "image_url", "image_url": {"url": "data:"}})
    return made


# State, reason, request messages, answer messages.
TURNS: list[tuple[str, str | None, list[Message], list[Message]]] = [
    ("completed", None, [message("system", "be kind"), message("user", "q1")], [message("assistant", "a1" * 99)]),
    ("incomplete", "failed", [message("system", "never said"), message("user", "q2")], [message("assistant", "half")]),
    ("completed", None, [_image()], [_call()]),
    ("completed", None, [message("developer", "be short"), message("tool", "found")], [message("assistant", "a4")]),
    ("completed", None, [], []),
    ("in_progress", None, [message("user", "q6")], []),
]


def _old_file(file: Path, version: int) -> None:
    """Creates a file of an older version, with a session, a crashed turn, a key and a limit.

    The rows have the form of the first two versions; for later versions, their migrations are applied.
    """
    db = apsw.Connection(str(file))
    db.pragma("journal_mode", "wal")
    for step in STEPS[: min(version, 2)]:
        db.execute(step.sql)
    db.execute("INSERT INTO accounts VALUES ('ada', 'pro')")
    values: list[Any] = [key(1).id, key(1).digest, key(1).name, "ada", '["m1", "m2"]', key(1).created]
    db.execute("INSERT INTO api_keys (id, digest, name, account, models, created) VALUES (?, ?, ?, ?, ?, ?)", values)
    db.execute("INSERT INTO sessions VALUES ('s', 'ada', 'm', 1000.5, 2000.5, ?, 6, 2010.5)", (len(TURNS),))
    db.execute("INSERT INTO sessions VALUES ('empty', 'bob', 'm', 1.5, 1.5, 0, 0, NULL)")
    for number, (state, reason, questions, answer) in enumerate(TURNS, 1):
        db.execute("INSERT INTO turns VALUES ('s', ?, ?, ?, ?)", (number, state, reason, 1000.5 + number))
        rows = [("s", number, seq, one.SerializeToString()) for seq, one in enumerate(questions + answer)]
        db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    if version > 1:
        db.execute("INSERT INTO buckets VALUES ('key:1', 'tokens', 60, 1e10)")
    add_functions(db)
    for step in STEPS[2:version]:
        db.execute(step.sql)
    db.pragma("user_version", version)
    db.close()


async def _new_file(file: Path) -> None:
    """Creates a file with the same session in the current version."""
    store = SqliteStore(file)
    for number, (state, reason, questions, answer) in enumerate(TURNS, 1):
        turn = await begin(store, "s", *questions, new=number == 1)
        if state != "in_progress":
            await store.end_turn(turn, TurnEnd(state, reason, answer))
    await store.close()


@pytest.fixture(params=range(1, len(STEPS)))
def old(request: pytest.FixtureRequest, file: Path) -> Path:
    """A file of an older version, for each version."""
    _old_file(file, request.param)
    return file


class TestUpgrade:
    """Tests of migrations of a file with data."""

    def test_an_old_file_is_not_opened(self, old: Path) -> None:
        """Before the upgrade the file is rejected with the remedy, and remains unchanged."""
        before = apsw.Connection(str(old)).pragma("user_version")
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(old)
        assert f"has version {before}" in str(rejected.value.cause)
        assert "parley db upgrade" in str(rejected.value.cause)
        assert before == apsw.Connection(str(old)).pragma("user_version")

    def test_versions_are_returned(self, old: Path) -> None:
        """An upgrade returns the versions before and after, and a second upgrade does nothing."""
        before = apsw.Connection(str(old)).pragma("user_version")
        assert (before, len(STEPS)) == upgrade(old)
        assert (len(STEPS), len(STEPS)) == upgrade(old)

    async def test_rows_are_as_if_written_now(self, old: Path, tmp_path: Path) -> None:
        """New columns of messages, turns and sessions have the values that the current version writes."""
        upgrade(old)
        await _new_file(tmp_path / "new.db")
        for query in (
            "SELECT turn, position, message, system FROM messages ORDER BY turn, position",
            "SELECT number, state, reason, messages, tokens, bytes, continues FROM turns ORDER BY number",
            "SELECT metadata, usage, receipt FROM turns ORDER BY number",
            "SELECT model, turn_count, completed_messages, forked_from, lease_fence FROM sessions WHERE id = 's'",
            "SELECT id, bytes FROM sessions WHERE id = 's'",
            "SELECT * FROM storage WHERE account = 'ada'",
            "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name",
        ):
            was, now = (apsw.Connection(str(file)).execute(query).fetchall() for file in (old, tmp_path / "new.db"))
            assert now == was

    async def test_upgraded_sessions_continue(self, old: Path) -> None:
        """Listing, crashed turns, windows and resent histories work with an upgraded session."""
        upgrade(old)
        store = SqliteStore(old)
        listed, _ = await store.list_sessions("ada", SessionFilter(), page_size=9, page_token=None)
        assert [("s", 1000, 2000, 6)] == [(one.id, one.created, one.updated, one.turn_count) for one in listed]
        completed = [one for state, _, questions, answer in TURNS if state == "completed" for one in questions + answer]
        turn = await begin(store, "s", *completed, "q7", window=Window(max_messages=4))
        assert (7, ["q7"]) == (turn.number, texts(turn.messages))
        assert ["be kind", "be short", "", "", "found", "a4"] == texts(turn.history)
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a7")]))
        found, _ = await store.list_messages("ada", "s", page_size=99, page_token=None)
        assert ["crashed"] == [one.reason for one in found if one.turn == 6]
        await store.close()

    async def test_turns_have_receipts(self, old: Path) -> None:
        """Older turns have no receipt; the next turn has one."""
        upgrade(old)
        store = SqliteStore(old)
        turn = await begin(store, "s", "q7")
        await store.end_turn(turn, TurnEnd("incomplete", "failed", receipt=receipt(1)))
        found, _ = await store.list_messages("ada", "s", page_size=99, page_token=None)
        assert [("q7", receipt(1))] == [
            (one.message.content.string_value, one.receipt) for one in found if one.HasField("receipt")
        ]
        await store.close()

    async def test_keys_stay(self, old: Path) -> None:
        """Keys and accounts remain unchanged."""
        upgrade(old)
        store = SqliteStore(old)
        assert [key(1)] == (await store.list_keys(page_size=9))[0]
        await store.close()

    def test_a_failing_upgrade_changes_nothing(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failed upgrade leaves the file unchanged."""
        db = apsw.Connection(str(old))
        before = db.pragma("user_version")
        failing = Migration(len(STEPS) + 1, "CREATE TABLE sessions (id)")
        monkeypatch.setattr(database, "migrations", lambda _: (*STEPS, failing))
        schema = db.execute("SELECT sql FROM sqlite_schema").fetchall()
        with pytest.raises(apsw.SQLError):
            upgrade(old)
        assert (before, schema) == (db.pragma("user_version"), db.execute("SELECT sql FROM sqlite_schema").fetchall())
