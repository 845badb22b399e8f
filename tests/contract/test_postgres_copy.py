# ruff: noqa: ASYNC220 - a test may wait for its processes
"""Tests of `parley db`: complete copies, and errors in one line."""

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from parley.core.errors import ReplyDeleted
from parley.core.ports import Account, Alert, ApiKey, AuditFilter, Store, TurnEnd, UsageKey, UsageQuery
from parley.stores.migrations import migrations
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore
from parley.v1.message_pb2 import Usage
from tests import processes
from tests.contract.stores import (
    begin,
    charge,
    converse,
    counts,
    end_incomplete,
    key,
    message,
    receipt,
    settlement,
)
from tests.keys import event
from tests.postgres import Server

DIGEST = b"d" * 32


async def fill(file: Path, sessions: int) -> None:
    """Creates a store with data of every kind."""
    store = SqliteStore(file)
    await store.add_key(key(2, plan="free", account="bob", expires=1_900_000_000), event)
    await store.add_key(key(1), event)
    await store.update_key("key_2", lambda old: replace(old, revoked=1_700_000_500), event)
    await store.reserve([charge(5)])
    await store.add_alert(Alert("msg_1", "account:ada", "cost_per_day", "2026-11-26", 0.8, "{}"), deliver=True)
    await store.add_usage("w", 1, {UsageKey("ada", day, "key_1", "m", "t"): counts(day) for day in (20_000, 20_001)})
    await asyncio.gather(*[_session(store, f"s{number:04}") for number in range(sessions)])
    await store.fork_session("ada", "s0000", "fork", 1)
    await store.close()


async def _session(store: Store, session: str) -> None:
    claim = await store.claim("ada", "Create", f"key of {session}", DIGEST, 10)
    assert not isinstance(claim, bytes)
    messages = (message("system", "be brief"), message("user", "π \0"))
    turn = await begin(store, session, *messages, new=True, metadata={"label": "\0é"})
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    answer = [message("assistant", f"a of {session}")]
    await store.end_turn(
        turn, TurnEnd("completed", None, answer, usage, claim, b"reply", settlement((charge(0), 1)), receipt(1))
    )
    await converse(store, session, "q2", "a2")
    await store.end_turn(await begin(store, session, "q3"), TurnEnd("incomplete", "failed", receipt=receipt(2)))


def copy(file: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    return processes.run_here("db", "copy", "--from", str(file), "--to", url)


async def everything(store: Store, sessions: int) -> list[object]:
    """Reads all data of a store through its methods."""
    found: list[object] = list((await store.list_keys(page_size=9))[0])
    found += (await store.list_audit_events(AuditFilter(), page_size=9, page_token=None))[0]
    found += await store.usage(UsageQuery(("account", "day", "key", "model", "target")))
    for session in [*(f"s{number:04}" for number in range(sessions)), "fork"]:
        found += [await store.get_session("ada", session)]
        found += [await store.list_messages("ada", session, page_size=1000, page_token=None)]
        if session != "fork":
            found += [await store.claim("ada", "Create", f"key of {session}", DIGEST, 10)]
    return found


class TestCopy:
    """Tests of `parley db copy`."""

    async def test_everything(self, tmp_path: Path, postgres_url: str) -> None:
        """All data of the file are in the database and usable."""
        file = tmp_path / "parley.db"
        await fill(file, 5)
        done = copy(file, postgres_url)
        assert 0 == done.returncode, done.stderr
        for line in (
            "2 accounts",
            "2 keys",
            "6 sessions",
            "16 turns",
            "33 messages",
            "5 stored replies",
            "2 usage rows",
            "1 alerts",
            "1 buckets",
        ):
            assert f"  {line}\n" in done.stdout
        assert ["0 of 6 sessions", "6 of 6 sessions"] == done.stderr.splitlines()
        source, target = SqliteStore(file), await PostgresStore.open(postgres_url)
        assert await everything(source, 5) == await everything(target, 5)
        alerts = [await store.take_alert(10) for store in (source, target)]
        assert alerts[0] == alerts[1] is not None
        turns = [await begin(store, "s0001", "next") for store in (source, target)]
        assert turns[0] == replace(turns[1], fence=turns[0].fence)
        assert ["be brief", "π \0", "a of s0001", "q2", "a2"] == [one.content.string_value for one in turns[1].history]
        await source.close()
        await target.close()

    async def test_killed_in_the_middle(self, tmp_path: Path, postgres_server: Server, postgres_url: str) -> None:
        """A copy that is killed repeatedly continues; at the end nothing is missing or duplicated."""
        file = tmp_path / "parley.db"
        await fill(file, 600)
        for tenth in ("120", "240", "480"):
            running = subprocess.Popen(
                [processes.COMMAND, "db", "copy", "--from", str(file), "--to", postgres_url],
                env=processes.environment(),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            assert running.stderr is not None
            for line in running.stderr:
                if int(line.split()[0]) >= int(tenth):
                    break
            running.kill()
            running.wait()
        assert 0 < int(postgres_server.sql("SELECT count(*) FROM parley.sessions", "parley"))
        processes.until(lambda: 0 == copy(file, postgres_url).returncode, "the killed one's lock is free")
        source, target = SqliteStore(file), await PostgresStore.open(postgres_url)
        assert await everything(source, 600) == await everything(target, 600)
        await source.close()
        await target.close()

    async def test_a_second_copy(self, tmp_path: Path, postgres_url: str) -> None:
        """A second copy adds newer data and leaves the rest unchanged."""
        file = tmp_path / "parley.db"
        await fill(file, 3)
        copy(file, postgres_url)
        source = SqliteStore(file)
        await converse(source, "s0001", "q4", "a4")
        await source.delete_session("ada", "s0002")
        await source.add_key(ApiKey("key_9", "late", Account("ada", "pro"), b"9" * 32, (), 1), event)
        await source.close()
        target = await PostgresStore.open(postgres_url)
        await target.delete_session("ada", "s0002")
        assert 0 == copy(file, postgres_url).returncode
        assert 4 == (await target.get_session("ada", "s0001")).turn_count
        assert b"reply" == await target.claim("ada", "Create", "key of s0001", DIGEST, 10)
        with pytest.raises(ReplyDeleted):
            await target.claim("ada", "Create", "key of s0002", DIGEST, 10)
        assert 3 == len((await target.list_keys(page_size=9))[0])
        await target.close()

    async def test_in_use(self, tmp_path: Path, postgres_url: str) -> None:
        """A file with a turn in progress is rejected."""
        file = tmp_path / "parley.db"
        store = SqliteStore(file)
        turn = await begin(store, "s", "q", new=True)
        rejected = copy(file, postgres_url)
        assert 1 == rejected.returncode
        assert f"parley: {file} has turns in progress: stop Parley, wait 10 s and copy again\n" == rejected.stderr
        await end_incomplete(store, turn, "failed")
        await store.close()
        assert 0 == copy(file, postgres_url).returncode

    async def test_rows_of_deleted_sessions(self, tmp_path: Path, postgres_server: Server, postgres_url: str) -> None:
        """Rows that an interrupted deletion left in the file are not copied."""
        file = tmp_path / "parley.db"
        await fill(file, 3)
        store = SqliteStore(file, purge_seconds=0)
        await store.delete_session("ada", "s0001")
        await store.close()
        done = copy(file, postgres_url)
        assert 0 == done.returncode, done.stderr
        assert "  3 sessions\n" in done.stdout, "of 4"
        assert "0" == postgres_server.sql("SELECT count(*) FROM parley.messages WHERE session_id = 's0001'", "parley")

    async def test_sessions_of_its_own(self, tmp_path: Path, postgres_url: str) -> None:
        """A database with other sessions or newer turns is rejected and remains unchanged."""
        file = tmp_path / "parley.db"
        await fill(file, 2)
        copy(file, postgres_url)
        target = await PostgresStore.open(postgres_url)
        await converse(target, "s0001", "more", "here")
        assert "s0001 has newer turns in the database" in copy(file, postgres_url).stderr
        await target.delete_session("ada", "s0001")
        await converse(target, "own", "q", "a", new=True)
        assert "has sessions that the file does not have" in copy(file, postgres_url).stderr
        assert 1 == (await target.get_session("ada", "own")).turn_count
        await target.close()

    @pytest.mark.parametrize("name", ["missing.db", "."])
    def test_no_file(self, tmp_path: Path, name: str, postgres_url: str) -> None:
        """A missing file is rejected and not created."""
        rejected = copy(tmp_path / name, postgres_url)
        assert (1, True) == (rejected.returncode, "is not a file" in rejected.stderr)
        assert [] == list(tmp_path.iterdir())

    def test_a_pooler(self, tmp_path: Path) -> None:
        """A copy through a pooler in transaction mode is rejected with the remedy."""
        asyncio.run(SqliteStore(tmp_path / "parley.db").close())
        config = configured(tmp_path, "postgresql://127.0.0.1:1/parley", pooling="transaction")
        source = ["--from", str(tmp_path / "parley.db")]
        rejected = processes.run_here("db", "copy", *source, "--config", config)
        assert (1, True) == (rejected.returncode, "name the server itself with --to" in rejected.stderr), (
            rejected.stderr
        )

    def test_no_server(self, tmp_path: Path) -> None:
        """The error for an unreachable server is one line without the password."""
        file = tmp_path / "parley.db"
        asyncio.run(SqliteStore(file).close())
        rejected = copy(file, "postgresql://me:very-secret@127.0.0.1:1/parley")
        assert (1, 1) == (rejected.returncode, rejected.stderr.count("\n"))
        assert "PostgreSQL at 127.0.0.1:1/parley" in rejected.stderr
        assert "very-secret" not in rejected.stderr


class TestUpgrade:
    """Tests of `parley db upgrade`, and of starting without it."""

    def test_postgres(self, tmp_path: Path, postgres_url: str) -> None:
        """The first upgrade creates the tables, and the second does nothing."""
        config = configured(tmp_path, postgres_url)
        lines = [processes.run_here("db", "upgrade", "--config", config).stdout for _ in range(2)]
        version = len(migrations("parley.stores.postgres"))
        upgraded = f"Upgraded the schema from version 0 to {version}.\n"
        assert [upgraded, f"Nothing to do: the schema has version {version}.\n"] == lines

    def test_sqlite(self, tmp_path: Path) -> None:
        """A file of a newer version is rejected with the remedy."""
        assert 0 == processes.run_here("db", "upgrade", "--state-dir", str(tmp_path)).returncode
        apsw.Connection(str(tmp_path / "parley.db")).pragma("user_version", 99)
        rejected = processes.run_here("db", "upgrade", "--state-dir", str(tmp_path))
        assert (1, True) == (rejected.returncode, "install the one that upgraded the schema" in rejected.stderr)

    def test_keys_in_postgres(self, tmp_path: Path, postgres_url: str) -> None:
        """`parley keys` and `parley sessions` use the configured store."""
        config = configured(tmp_path, postgres_url)
        assert 0 == processes.run_here("keys", "create", "--name", "ada", "--config", config).returncode
        assert "ada" in processes.run_here("keys", "list", "--config", config).stdout
        assert 0 == processes.run_here("sessions", "list", "--config", config).returncode
        assert not (tmp_path / "parley.db").exists()

    def test_config_check(self, tmp_path: Path) -> None:
        """Only the form of a store's URL is checked, and the URL is never shown."""
        good = processes.run_here("config", "check", configured(tmp_path, "postgresql://me:very-secret@nowhere/x"))
        assert 0 == good.returncode, good.stderr
        bad = processes.run_here("config", "check", configured(tmp_path, "mysql://me:very-secret@nowhere/x"))
        assert (1, True, False) == (bad.returncode, "store.url" in bad.stderr, "very-secret" in bad.stderr)


def configured(folder: Path, url: str, pooling: str = "session") -> str:
    """Writes a configuration with this store; returns its path."""
    file = folder / "parley.yaml"
    file.write_text(
        "backends: {b: {kind: openai, base_url: 'http://127.0.0.1:1'}}\n"
        "models: [{id: m, targets: [{backend: b, model: m}]}]\n"
        f"store: {{kind: postgres, url: '{url}', pooling: {pooling}}}\n"
    )
    return str(file)
