# ruff: noqa: ASYNC230, ASYNC240 - a test may wait for its files, and keep its loop waiting
"""What SQLite alone must do in one process: share commits, keep its file in order."""

import asyncio
import fcntl
import re
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import apsw
import pytest

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound, StoreUnavailable
from parley.core.ports import ApiKey, Turn, Window
from parley.core.usage.tokens import message_tokens
from parley.stores.sqlite import SqliteStore, claims, deletion, reaper, sessions, turns

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import begin, complete, converse, key, message  # noqa: E402 - only now are its asserts rewritten


@contextmanager
def write_locked(file: Path) -> Iterator[None]:
    """Holds the file's write lock, as another process does while it commits."""
    connection = apsw.Connection(str(file))
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def queued(store: SqliteStore, file: Path, *writes: Coroutine[Any, Any, object]) -> list[object]:
    """Starts writes while nothing can be written, so that all of them wait together; returns their results."""
    with write_locked(file):
        tasks = [asyncio.create_task(write) for write in writes]
        # One turn of the loop lets every task put its job into the queue.
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
    return list(await asyncio.gather(*tasks, return_exceptions=True))


class TestGroupCommit:
    """Jobs that wait together share a commit."""

    async def test_waiting_jobs_share_a_commit(self, store: SqliteStore, file: Path) -> None:
        """64 turns that wait together begin in one transaction, and end in one."""
        before = store.counts.commits
        turns = await queued(store, file, *[begin(store, f"s{number}", "hi", new=True) for number in range(64)])
        assert 1 == store.counts.commits - before
        ends = [complete(store, turn) for turn in turns if isinstance(turn, Turn)]
        assert 64 == len(await queued(store, file, *ends))
        assert 2 == store.counts.commits - before
        assert 128 == store.counts.jobs

    async def test_a_failing_job_fails_alone(self, store: SqliteStore, file: Path) -> None:
        """In one transaction, refused jobs leave those before and after them as they are."""
        await converse(store, "s", "q", "a", new=True)
        before = store.counts.commits
        results = await queued(
            store,
            file,
            begin(store, "s", "first"),
            begin(store, "s", "second"),
            begin(store, "nowhere", "hi"),
            begin(store, "s", "taken", new=True),
            begin(store, "t", "new", new=True),
        )
        kinds = [type(result) for result in results]
        assert [Turn, SessionBusy, SessionNotFound, apsw.ConstraintError, Turn] == kinds
        assert 1 == store.counts.commits - before
        page, _ = await store.list_messages("ada", "s", page_size=10, page_token=None)
        assert ["q", "a", "first"] == [one.message.content.string_value for one in page]

    async def test_a_failing_job_leaves_nothing(self, store: SqliteStore, file: Path) -> None:
        """A job that fails after it has written something has that undone, and the job beside it has not."""
        await store.add_key(key(1, plan="pro"))
        results = await queued(store, file, store.add_key(key(1, plan="free")), store.add_key(key(2, account="bob")))
        assert [apsw.ConstraintError, ApiKey] == [type(result) for result in results]
        assert [key(1, plan="pro"), key(2, account="bob")] == await store.list_keys()

    async def test_what_is_done_again(self, store: SqliteStore, file: Path) -> None:
        """A turn that is refused after its lease was written changes nothing in the turns around it."""
        for session in ("s", "t", "u"):
            await converse(store, session, "q", "a", new=True)
        commits = store.counts.commits
        repeated = (message("user", "q"), message("assistant", "a"))
        results = await queued(
            store, file, begin(store, "s", "x"), begin(store, "t", *repeated), begin(store, "u", "y")
        )
        assert [Turn, InvalidRequest, Turn] == [type(result) for result in results]
        assert 1 == store.counts.commits - commits
        assert [2, 1, 2] == [(await store.get_session("ada", session)).turn_count for session in ("s", "t", "u")]
        assert 2 == (await begin(store, "t", "z")).fence

    async def test_cancelled_before_it_began(self, store: SqliteStore, file: Path) -> None:
        """A caller that goes away while its job waits has it left out."""
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            other = asyncio.create_task(begin(store, "t", "hi", new=True))
            await asyncio.sleep(0)
            task.cancel()
        await other
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")

    async def test_close_finishes_what_is_queued(self, file: Path) -> None:
        """What was queued before the store closes is on disk after it."""
        store = SqliteStore(file)
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0)
        await closing
        assert 1 == (await task).number
        again = SqliteStore(file)
        assert 1 == (await again.get_session("ada", "s")).turn_count
        await again.close()

    async def test_closed_store(self, file: Path) -> None:
        """A closed store refuses reads and writes, and may be closed again."""
        store = SqliteStore(file)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.check()
        with pytest.raises(StoreUnavailable):
            await begin(store, "s", "hi", new=True)

    async def test_the_loop_goes_on(self, store: SqliteStore, file: Path) -> None:
        """While a write waits for another process, reads and everything else in the loop go on."""
        await store.add_key(key(1))
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            for _ in range(50):
                assert key(1) == await store.find_key(bytes([1]) * 32)
            assert not task.done()
        await task


class TestTurnsOfWriters:
    """Writers of several processes go one after the other."""

    async def test_who_waits_first_goes_first(self, store: SqliteStore, file: Path) -> None:
        """Of two that wait for a third, the one that came first writes first, every time."""
        other = SqliteStore(file)
        for number in range(10):
            with write_locked(file):
                first = asyncio.create_task(begin(other, f"first {number}", "hi", new=True))
                await asyncio.sleep(0)
                _wait_for_the_place(file)
                second = asyncio.create_task(begin(store, f"second {number}", "hi", new=True))
                await asyncio.sleep(0)
            done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            assert first in done
            await second
        await other.close()

    async def test_stopped_in_the_place(self, store: SqliteStore, file: Path) -> None:
        """A process that was stopped while it was next keeps nobody from writing."""
        with Path(f"{file}-queue").open("rb") as place:
            fcntl.flock(place, fcntl.LOCK_EX)
            await converse(store, "s", "q", "a", new=True)


def _wait_for_the_place(file: Path) -> None:
    """Returns once some writer has the place of the next one."""
    with Path(f"{file}-queue").open("rb") as place:
        for _ in range(10_000):
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(place, fcntl.LOCK_UN)
            time.sleep(0.001)
    pytest.fail("no writer waits in the place of the next one")


class TestFile:
    """The file itself."""

    async def test_private(self, file: Path, store: SqliteStore) -> None:
        """Nobody else on the machine may read conversations."""
        await converse(store, "s", "q", "a", new=True)
        modes = {name.name: name.stat().st_mode & 0o777 for name in file.parent.iterdir() if name.is_file()}
        assert {"parley.db", "parley.db-queue", "parley.db-shm", "parley.db-wal"} == set(modes)
        assert {0o600} == set(modes.values())

    async def test_deleted_text_is_gone(self, file: Path) -> None:
        """What was in a deleted session is not in the file any more, once the store is closed."""
        store = SqliteStore(file)
        await converse(store, "s", "a very private thing", "indeed", new=True)
        await store.close()
        assert b"a very private thing" in file.read_bytes()
        store = SqliteStore(file)
        await store.delete_session("ada", "s")
        await store.close()
        assert b"a very private thing" not in b"".join(name.read_bytes() for name in file.parent.iterdir())

    @pytest.mark.parametrize("reaped", [False, True])
    async def test_deleted_text_leaves_the_log(self, file: Path, reaped: bool) -> None:
        """Within seconds after a deletion no file of a running store has the text, though others write to it."""
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
        async with asyncio.timeout(10):
            while b"a very private thing" in b"".join(name.read_bytes() for name in file.parent.iterdir()):
                await converse(other, f"t{number}", "q", "a", new=True)
                number += 1
        await store.close()
        await other.close()

    async def test_the_file_becomes_smaller(self, file: Path, store: SqliteStore) -> None:
        """Space that deleted sessions had is given back, in steps that turns go on between."""
        for number in range(20):
            await converse(store, f"s{number}", "q" * 1_000_000, "a", new=True)
        await store.check()
        for number in range(20):
            await store.delete_session("ada", f"s{number}")
        number, slowest = 0, 0.0
        async with asyncio.timeout(20):
            while file.stat().st_size > 3_000_000:
                began = time.monotonic()
                await converse(store, f"t{number}", "q", "a", new=True)
                slowest = max(slowest, time.monotonic() - began)
                number += 1
        assert slowest < 2
        assert "ok" == apsw.Connection(str(file)).pragma("integrity_check")

    async def test_a_long_log_is_moved_into_the_file(self, file: Path, store: SqliteStore) -> None:
        """The write-ahead log does not grow for ever."""
        for number in range(40):
            await converse(store, f"s{number}", "q" * 200_000, "a", new=True)
        assert Path(f"{file}-wal").stat().st_size < 7_000_000

    async def test_queries_search(self, store: SqliteStore, file: Path) -> None:
        """The statements of turns, lists, claims and the reaper search by key: none scans a table or sorts."""
        await store.check()
        modules = (sessions, turns, claims, deletion, reaper)
        found = [value for module in modules for value in vars(module).values() if isinstance(value, str)]
        # The last one is what SQLite itself asks when a session is deleted.
        queries = [value for value in found if "WHERE " in value] + ["DELETE FROM claims WHERE session_id = ?"]
        connection = apsw.Connection(str(file))
        assert len(queries) > 20
        for query in queries:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", _anything(query)).fetchall()
            steps = [str(step) for _, _, _, step in plan]
            assert [] == [step for step in steps if step.startswith(("SCAN", "USE TEMP"))], query

    async def test_large_messages_are_read_by_those_who_ask_for_them(self, store: SqliteStore, file: Path) -> None:
        """Ending a turn beside messages of a megabyte reads a few pages, and no message."""
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
        """A turn after 10,000 others reads no more of the file than one after 100, whatever became of the others."""
        await SqliteStore(file).close()
        sizes = [await _read_by_a_turn(file, f"s{turns}", turns, window) for turns in (100, 10_000)]
        assert sizes[1] < 1.2 * sizes[0] + 8 * 4096, "a few pages more, where trees are deeper"

    @pytest.mark.parametrize("incomplete", [True, False])
    async def test_a_resent_history_of_a_long_session(self, file: Path, incomplete: bool) -> None:
        """Only a request that is as long as the session could be one that repeats it, and makes a turn read it all."""
        await SqliteStore(file).close()
        _fill(file, "s", 5000, state="incomplete" if incomplete else "completed")
        store = SqliteStore(file)
        before = _bytes_read()
        await begin(store, "s", *["again"] * 500, window=Window(max_messages=2))
        assert _bytes_read() - before < 1_000_000
        await store.close()


def _fill(file: Path, session: str, turns: int, state: str = "completed") -> None:
    """Gives a session so many turns, the first with a system message."""
    system, said = (message(role, "a thousand bytes" * 60) for role in ("system", "user"))
    connection = apsw.Connection(str(file))
    with connection:
        connection.execute(
            "INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, completed_messages)"
            " VALUES (?, 'ada', 'm', 1, 1, ?, 1, ?)",
            (session, turns, 2 * turns + 1 if state == "completed" else 0),
        )
        size = (2, 2 * message_tokens(said))
        connection.executemany(
            "INSERT INTO turns (session_id, number, state, created, messages, tokens) VALUES (?, ?, ?, 1, ?, ?)",
            [(session, number, state, *size) for number in range(1, turns + 1)],
        )
        rows = [(session, 1, 2, system.SerializeToString(), 1)]
        rows += [
            (session, turn, place, said.SerializeToString(), 0) for turn in range(1, turns + 1) for place in (0, 1)
        ]
        connection.executemany(
            "INSERT INTO messages (session_id, turn, position, message, system) VALUES (?, ?, ?, ?, ?)", rows
        )
    connection.pragma("wal_checkpoint(TRUNCATE)")
    connection.close()


async def _read_by_a_turn(file: Path, session: str, turns: int, window: Window) -> int:
    """Makes a turn in a session that has so many; returns how many bytes that read from the file."""
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
    """How much this process has read from files, the cache of the system included."""
    return int(Path("/proc/self/io").read_text().split()[1])


def _anything(query: str) -> Any:
    """Gives every parameter of a query a value."""
    if ":" in query:
        return dict.fromkeys(re.findall(r":(\w+)", query), 1)
    return (1,) * query.count("?")
