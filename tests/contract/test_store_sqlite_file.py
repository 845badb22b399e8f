# ruff: noqa: ASYNC240 - a test may wait for its files
"""The file of the SQLite store: privacy, size, and how much of it a query reads."""

import asyncio
import re
import time
from math import inf
from pathlib import Path
from typing import Any

import apsw
import pytest

from parley.core.ports import Caller, Claim, Reaped, SessionFilter, Window
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.core.sessions.account_export import lines
from parley.core.sessions.account_import import Counts, import_sessions
from parley.core.usage.tokens import message_tokens
from parley.stores import indexing
from parley.stores.indexing import documents
from parley.stores.purging import PurgeCursor
from parley.stores.sqlite import (
    SqliteStore,
    claims,
    deletion,
    reaper,
    search,
    sessions,
    turn_history,
    turns,
    writer,
)
from parley.stores.sqlite.maintenance import Maintenance
from tests.contract.stores import begin, complete, converse, message


class TestFile:
    """Tests of the file."""

    async def test_private(self, file: Path, store: SqliteStore) -> None:
        """Other users of the machine cannot read the files."""
        await converse(store, "s", "q", "a", new=True)
        modes = {name.name: name.stat().st_mode & 0o777 for name in file.parent.iterdir() if name.is_file()}
        assert {"parley.db", "parley.db-queue", "parley.db-shm", "parley.db-wal"} == set(modes)
        assert {0o600} == set(modes.values())

    async def test_deleted_text_is_overwritten(self, file: Path) -> None:
        """The text of a deleted session is not in the file after the store is closed."""
        store = SqliteStore(file)
        await converse(store, "s", "a very private thing", "indeed", new=True)
        await store.close()
        assert b"a very private thing" in file.read_bytes()
        store = SqliteStore(file)
        await store.delete_session("ada", "s")
        await store.close()
        assert b"a very private thing" not in b"".join(name.read_bytes() for name in file.parent.iterdir())

    async def test_a_reaper_that_deletes_nothing_leaves_the_log(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only a deletion has the log truncated, which waits for the disk; the reaper runs every two seconds."""
        scheduled: list[bool] = []
        monkeypatch.setattr(Maintenance, "schedule_truncation", lambda _: scheduled.append(True))
        store = SqliteStore(file)
        held = await store.claim("ada", "m", "key", b"digest", 10.0)
        assert isinstance(held, Claim)
        before = len(scheduled)  # at the start
        assert Reaped() == await store.reap(session_age=1e6, claim_age=1e6, limit=50)
        await store.end_claim(held, b"reply")  # by now, the writer has ended what follows a job of the reaper
        assert before == len(scheduled)
        assert Reaped(claims=1) == await store.reap(session_age=1e6, claim_age=-1.0, limit=50)
        await store.close()
        assert before + 1 == len(scheduled)

    async def test_a_log_that_grows_is_truncated(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Readers that keep the log from being written from its start do not let it grow for ever."""
        scheduled: list[bool] = []
        monkeypatch.setattr(Maintenance, "schedule_truncation", lambda _: scheduled.append(True))
        monkeypatch.setattr(writer, "_CHECKPOINT_PAGES", 10)
        monkeypatch.setattr(writer, "_LONG_PAGES", 60)
        store = SqliteStore(file)
        await converse(store, "s", "q", "a", new=True)
        before = len(scheduled)  # at the start
        for _ in range(10):
            await converse(store, "s", "q", "a")
        assert before == len(scheduled)
        reader = apsw.Connection(str(file))
        reader.execute("BEGIN; SELECT count(*) FROM sessions").fetchall()
        for _ in range(10):
            await converse(store, "s", "q", "a")
        await store.close()
        reader.close()
        assert len(scheduled) > before

    async def test_deleted_words_are_overwritten(self, file: Path) -> None:
        """The words of a deleted session are not in the index, also while other sessions have words beside them."""
        store = SqliteStore(file)
        for session, text in {"s": "zanzibar quokka", "t": "zanz quokk", "u": "zebra quorum"}.items():
            await converse(store, session, text, "indeed", new=True)
            await store.index_sessions("ada")
        await store.update_session("ada", "s", "titledzanzibar", {"labelled": "zanzibar"})
        await store.close()
        assert b"zanzibar" in file.read_bytes()
        store = SqliteStore(file)
        await store.delete_session("ada", "s")
        await store.close()
        left = b"".join(name.read_bytes() for name in file.parent.iterdir())
        assert [] == [word for word in (b"zanzibar", b"ibar", b"quokka", b"labelled") if word in left]

    async def test_the_index_is_written_and_removed_in_pieces(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No transaction writes or removes the words of many turns, so that other writes run in between."""
        monkeypatch.setattr(indexing, "PIECE_BYTES", 1024)
        monkeypatch.setattr(deletion, "_INDEXED_BYTES", 1024)
        store = SqliteStore(file, purge_seconds=0)
        text = " ".join(f"word{number:05}" for number in range(1024 // 32))  # half of a piece, with its account
        for number in range(6):
            await converse(store, "s", f"{number} {text}", "a", new=number == 0)
        before = store.counts.commits
        assert await store.index_sessions("ada")
        assert 4 <= store.counts.commits - before
        await store.delete_session("ada", "s")
        await store.close()
        connection = apsw.Connection(str(file))
        left: list[tuple[object, ...]] = []
        cursor: PurgeCursor | None = PurgeCursor()
        while cursor is not None:
            with connection:
                cursor = deletion.purge_batch(connection, "s", cursor)
            left += connection.execute("SELECT count(*) FROM turn_words").fetchall()
        assert [(4,), (2,), (0,)] == left

    @pytest.mark.parametrize("reaped", [False, True])
    async def test_deleted_text_leaves_the_log(self, file: Path, reaped: bool) -> None:
        """Within seconds after a deletion no file of a running store contains the text, even during other writes."""
        now = 1.7e9
        store, other = SqliteStore(file, lambda: now), SqliteStore(file, lambda: now)
        await converse(store, "s", "a very private thing", "indeed", new=True)
        if reaped:
            now += 3600
            await store.reap(session_age=60, claim_age=inf, limit=9)
            assert not await store.purge()
        else:
            await store.delete_session("ada", "s")
        number = 0
        async with asyncio.timeout(60):
            while b"a very private thing" in b"".join(name.read_bytes() for name in file.parent.iterdir()):
                await converse(other, f"t{number}", "q", "a", new=True)
                number += 1
        await store.close()
        await other.close()

    async def test_the_file_becomes_smaller(self, file: Path, store: SqliteStore) -> None:
        """The space of deleted sessions is released in steps, between which turns run."""
        for number in range(20):
            await converse(store, f"s{number}", "q" * 1_000_000, "a", new=True)
        await store.check()
        for number in range(20):
            await store.delete_session("ada", f"s{number}")
        number, slowest = 0, 0.0
        async with asyncio.timeout(60):
            while file.stat().st_size > 3_000_000:
                began = time.monotonic()
                await converse(store, f"t{number}", "q", "a", new=True)
                slowest = max(slowest, time.monotonic() - began)
                number += 1
        assert slowest < 2
        assert "ok" == apsw.Connection(str(file)).pragma("integrity_check")

    async def test_a_long_log_is_checkpointed(self, file: Path, store: SqliteStore) -> None:
        """The size of the write-ahead log is bounded."""
        for number in range(40):
            await converse(store, f"s{number}", "q" * 200_000, "a", new=True)
        assert Path(f"{file}-wal").stat().st_size < 7_000_000

    async def test_queries_search(self, store: SqliteStore, file: Path) -> None:
        """The statements of turns, lists, claims and the reaper use keys: none scans a table or sorts."""
        await store.check()
        modules = (sessions, turns, turn_history, claims, deletion, reaper, search)
        found = [value for module in modules for value in vars(module).values() if isinstance(value, str)]
        # SQLite itself runs the last one when a session is deleted.
        queries = [value for value in found if "WHERE " in value] + ["DELETE FROM claims WHERE session_id = ?"]
        connection = apsw.Connection(str(file))
        assert len(queries) > 20
        for query in queries:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", _anything(query)).fetchall()
            steps = [text for _, _, _, step in plan if "json_each" not in (text := str(step))]  # the query's list
            steps = [step for step in steps if not step.endswith("VIRTUAL TABLE INDEX 0:=")]  # a lookup by row id
            assert [] == [step for step in steps if step.startswith(("SCAN", "USE TEMP"))], query

    async def test_an_import_during_a_search_is_indexed_by_the_next(self, store: SqliteStore, file: Path) -> None:
        """A session that is imported after a search has read what to index, with older turns, is found later."""
        await converse(store, "s", "apple", "a", new=True)
        exported = [line async for line in lines(store, "ada", SessionFilter())]
        connection = apsw.Connection(str(file))
        connection.set_busy_timeout(60_000)
        for account in ("new", "known"):
            if account == "known":
                assert await store.index_sessions(account)
            found = search.read_unindexed(connection, account, time.time() + 3600)
            await import_sessions(store, Caller(account, "key"), exported, UNLIMITED_STORAGE, Counts())
            with connection:
                search.add(connection, await documents(account, found.turns))
                search.advance(connection, account, found)
            assert await store.index_sessions(account)
            listed, _ = await store.list_sessions(account, SessionFilter(query="apple"), page_size=9, page_token=None)
            assert 1 == len(listed), account

    async def test_large_messages_are_read_only_on_demand(self, store: SqliteStore, file: Path) -> None:
        """The end of a turn next to messages of a megabyte reads a few pages and no message."""
        for number in range(8):
            await converse(store, f"s{number}", "q" * 1_000_000, "a", new=True)
        await store.close()
        again = SqliteStore(file)
        before = _bytes_read()
        await converse(again, "s4", "q", "a")
        assert _bytes_read() - before < 2_000_000, "more than the history"
        await again.close()

    @pytest.mark.parametrize("window", [Window(max_messages=20), Window(max_tokens=20 * 260)])
    async def test_a_turn_reads_its_window_only(self, file: Path, window: Window) -> None:
        """A turn after 10,000 others, completed or not, reads no more of the file than one after 100."""
        await SqliteStore(file).close()
        sizes = [await _read_by_a_turn(file, f"s{turns}", turns, window) for turns in (100, 10_000)]
        assert sizes[1] < 1.2 * sizes[0] + 8 * 4096, "a few pages more, where trees are deeper"

    @pytest.mark.parametrize("incomplete", [True, False])
    async def test_a_resent_history_of_a_long_session(self, file: Path, incomplete: bool) -> None:
        """Only a request as long as the session can repeat it, and makes a turn read the complete session."""
        await SqliteStore(file).close()
        _fill(file, "s", 5000, state="incomplete" if incomplete else "completed")
        store = SqliteStore(file)
        before = _bytes_read()
        await begin(store, "s", *["again"] * 500, window=Window(max_messages=2))
        assert _bytes_read() - before < 1_000_000
        await store.close()


def _fill(file: Path, session: str, turns: int, state: str = "completed") -> None:
    """Creates a session with the given number of turns, the first with a system message."""
    system, question = (message(role, "a thousand bytes" * 60) for role in ("system", "user"))
    connection = apsw.Connection(str(file))
    with connection:
        connection.execute(
            "INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, completed_messages)"
            " VALUES (?, 'ada', 'm', 1, 1, ?, 1, ?)",
            (session, turns, 2 * turns + 1 if state == "completed" else 0),
        )
        size = (2, 2 * message_tokens(question))
        connection.executemany(
            "INSERT INTO turns (session_id, number, state, created, messages, tokens) VALUES (?, ?, ?, 1, ?, ?)",
            [(session, number, state, *size) for number in range(1, turns + 1)],
        )
        rows = [(session, 1, 2, system.SerializeToString(), 1)]
        rows += [
            (session, turn, seq, question.SerializeToString(), 0) for turn in range(1, turns + 1) for seq in (0, 1)
        ]
        connection.executemany(
            "INSERT INTO messages (session_id, turn, position, message, system) VALUES (?, ?, ?, ?, ?)", rows
        )
    connection.pragma("wal_checkpoint(TRUNCATE)")
    connection.close()


async def _read_by_a_turn(file: Path, session: str, turns: int, window: Window) -> int:
    """Runs a turn in a session with the given number of turns; returns the bytes read from the file."""
    _fill(file, session, turns)
    store = SqliteStore(file)
    before = _bytes_read()
    turn = await begin(store, session, "q", window=window)
    await complete(store, turn, "a")
    read = _bytes_read() - before
    assert 21 == len(turn.history)
    await store.close()
    return read


def _bytes_read() -> int:
    """Returns the bytes that this process has read from files, the page cache included."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _anything(query: str) -> Any:
    """Returns a value for each parameter of a query."""
    if ":" in query:
        return dict.fromkeys(re.findall(r":(\w+)", query), 1)
    numbered = [int(number) for number in re.findall(r"\?(\d+)", query)]
    return (1,) * max(numbered, default=query.count("?"))
