# ruff: noqa: ASYNC240 - a test may wait for its files
"""Tests of failures of SQLite: one line states the cause, and the store recovers with the cause."""

import os
import shutil
import subprocess
import sys
import tempfile
from math import inf
from pathlib import Path

import apsw
import pytest

from parley.config import SqliteConfig
from parley.core.errors import StoreUnavailable
from parley.stores.open import create_store, open_store
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.database import require_safe_library
from tests.contract.stores import begin, converse, key
from tests.keys import event

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from parley.core.errors import StoreUnavailable
from parley.stores.sqlite import SqliteStore
from tests.contract.stores import converse
file = Path(sys.argv[1])
async def main():
    store = SqliteStore(file)
{body}
    await store.close()
asyncio.run(main())
"""


class TestOutage:
    """Tests of an unavailable store, which states the cause and recovers by itself."""

    async def test_a_missing_file_that_returns(self, file: Path, store: SqliteStore) -> None:
        """While the file is missing, every call, also a key lookup, raises StoreUnavailable until it is back."""
        await store.add_key(key(1), event)
        await converse(store, "s", "q", "a", new=True)
        away = file.with_name("away.db")
        file.rename(away)
        with pytest.raises(StoreUnavailable) as rejected:
            await store.find_key(bytes([1]) * 32)
        assert f"{file}: it is missing or inaccessible (No such file or directory)" == rejected.value.cause
        with pytest.raises(StoreUnavailable):
            await begin(store, "s", "two")
        with pytest.raises(StoreUnavailable):
            await store.check()
        away.rename(file)
        await store.check()
        assert key(1) == await store.find_key(bytes([1]) * 32)
        assert 2 == (await begin(store, "s", "two")).number

    async def test_replaced_file(self, file: Path, store: SqliteStore, tmp_path: Path) -> None:
        """A file that replaces the old one is opened, and an empty one is rejected."""
        await store.add_key(key(1), event)
        restored = SqliteStore(tmp_path / "backup" / "parley.db")
        await restored.add_key(key(2), event)
        await restored.close()
        for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
            name.rename(f"{name}-old")
        file.touch()
        with pytest.raises(StoreUnavailable) as rejected:
            await store.find_key(bytes([2]) * 32)
        assert f"{file}: it is empty; restore it from a backup" == rejected.value.cause
        (tmp_path / "backup" / "parley.db").replace(file)
        assert key(2) == await store.find_key(bytes([2]) * 32)
        await store.add_key(key(3), event)

    @pytest.mark.parametrize("content", [b"this is no database, " * 500, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_not_a_database(self, file: Path, content: bytes) -> None:
        """A file that is not a database is rejected in one line and remains unchanged."""
        file.write_bytes(content)
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert str(rejected.value.cause).startswith(f"{file}: it is ")
        assert content == file.read_bytes()

    def test_another_programs_database(self, file: Path) -> None:
        """The database of another program is rejected and remains unchanged."""
        apsw.Connection(str(file)).execute("CREATE TABLE theirs (x)")
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert f"{file}: it has no tables of Parley but other content" in str(rejected.value.cause)
        assert [("theirs",)] == apsw.Connection(str(file)).execute("SELECT name FROM sqlite_schema").fetchall()

    def test_newer_schema(self, file: Path) -> None:
        """A file of a newer version is rejected."""
        apsw.Connection(str(file)).pragma("user_version", 99)
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert "its schema has version 99" in str(rejected.value.cause)
        assert "install the one that upgraded the schema" in str(rejected.value.cause)

    def test_folder_instead_of_the_file(self, file: Path) -> None:
        """A folder instead of the file is rejected in one line."""
        file.mkdir()
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert f"{file}: it cannot be opened" in str(rejected.value.cause)

    def test_file_instead_of_the_folder(self, tmp_path: Path) -> None:
        """A file instead of the folder is rejected in one line."""
        (tmp_path / "state").touch()
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(tmp_path / "state" / "parley.db")
        assert "check its folder" in str(rejected.value.cause)

    def test_read_only_file(self) -> None:
        """A file without write permission is rejected when the store is opened."""
        result = _as_unprivileged_user("os.chmod(file, 0o444); os.chmod(file.parent, 0o555)", "SqliteStore(file)")
        assert "cannot be written; check the owner and mode" in result

    async def test_a_missing_file_is_not_created(self, file: Path, store: SqliteStore) -> None:
        """A missing file is not created by a running store or a later one, which opens it once it is available."""
        await store.add_key(key(1), event)
        kept = file.with_name("kept")
        shutil.copy(file, kept)
        shutil.copy(f"{file}-wal", f"{kept}-wal")
        file.unlink()
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert "parley.db-queue" in str(rejected.value.cause)
        later = SqliteStore(file, allow_unavailable=True)
        for one in (store, later):
            with pytest.raises(StoreUnavailable):
                await one.find_key(bytes([1]) * 32)
            with pytest.raises(StoreUnavailable):
                await begin(one, "s", "q", new=True)
        assert not file.exists()
        for name in ("-wal", "-shm"):
            Path(f"{file}{name}").unlink(missing_ok=True)
        shutil.copy(f"{kept}-wal", f"{file}-wal")
        kept.rename(file)
        assert key(1) == await later.find_key(bytes([1]) * 32)
        await later.close()

    async def test_a_worker_creates_nothing(self, file: Path, store: SqliteStore) -> None:
        """After the loss of all files with their folder, a worker that starts has an unavailable store."""
        await store.add_key(key(1), event)
        shutil.rmtree(file.parent)
        worker = SqliteStore(file, allow_unavailable=True)
        for one in (store, worker):
            with pytest.raises(StoreUnavailable):
                await one.find_key(bytes([1]) * 32)
            with pytest.raises(StoreUnavailable):
                await one.add_key(key(2), event)
        assert not file.parent.exists()
        await worker.close()

    async def test_an_empty_file(self, file: Path, store: SqliteStore) -> None:
        """A file that was truncated is neither read nor filled with new tables."""
        await store.add_key(key(1), event)
        other = apsw.Connection(str(file))
        other.execute("SELECT * FROM sessions").fetchall()
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # or the log would fill the file again
        other.close()
        os.truncate(file, 0)
        worker = SqliteStore(file, allow_unavailable=True)
        for one in (store, worker):
            with pytest.raises(StoreUnavailable) as rejected:
                await one.find_key(bytes([1]) * 32)
            assert f"{file}: it is empty; restore it from a backup" == rejected.value.cause
            with pytest.raises(StoreUnavailable):
                await one.add_key(key(2), event)
        with pytest.raises(StoreUnavailable) as rejected:
            SqliteStore(file)
        assert "it existed before and is missing or empty" in str(rejected.value.cause)
        assert 0 == file.stat().st_size
        await worker.close()

    async def test_a_folder_replaces_the_file(self, file: Path, store: SqliteStore) -> None:
        """A folder in the place of the file is an outage."""
        await store.add_key(key(1), event)
        file.rename(file.with_name("away"))
        file.mkdir()
        worker = SqliteStore(file, allow_unavailable=True)
        for one in (store, worker):
            with pytest.raises(StoreUnavailable) as rejected:
                await one.find_key(bytes([1]) * 32)
            assert f"{file}: it cannot be opened" in str(rejected.value.cause)
        await worker.close()

    async def test_overwritten_tables(self, file: Path, store: SqliteStore) -> None:
        """Where another program has removed the tables, calls fail as in an outage."""
        await store.add_key(key(1), event)
        other = apsw.Connection(str(file))
        other.execute("PRAGMA foreign_keys = OFF; DROP TABLE api_keys")
        other.close()
        for call in (store.find_key(bytes([1]) * 32), store.add_key(key(2), event)):
            with pytest.raises(StoreUnavailable) as rejected:
                await call
            assert "its tables are missing; restore it from a backup" in str(rejected.value.cause)

    async def test_another_database_of_parley(self, file: Path, tmp_path: Path) -> None:
        """A store with an identity accepts a backup of the same database, and no other database."""
        store = SqliteStore(file)
        identity = await store.identity()
        assert identity == await store.identity()
        await store.add_key(key(1), event)
        await store.close()
        shutil.copy(file, tmp_path / "backup")
        other = SqliteStore(tmp_path / "other.db")
        await other.add_key(key(2), event)
        await other.close()
        worker = SqliteStore(file, allow_unavailable=True, identity=identity)
        assert key(1) == await worker.find_key(bytes([1]) * 32)
        for name in ("-wal", "-shm"):
            Path(f"{file}{name}").unlink()
        (tmp_path / "other.db").replace(file)
        with pytest.raises(StoreUnavailable) as rejected:
            await worker.find_key(bytes([2]) * 32)
        assert "it is another database than before; restore the right one, or remove known-stores.json" in str(
            rejected.value.cause
        )
        with pytest.raises(StoreUnavailable):
            SqliteStore(file, identity=identity)
        for name in ("-wal", "-shm"):
            Path(f"{file}{name}").unlink(missing_ok=True)
        (tmp_path / "backup").replace(file)
        assert key(1) == await worker.find_key(bytes([1]) * 32)
        await worker.close()

    async def test_a_state_folder_knows_its_store(self, tmp_path: Path) -> None:
        """A store that a state folder has used is not created anew after the loss of all its files."""
        config = SqliteConfig(kind="sqlite")
        identity = await create_store(config, tmp_path)
        assert identity == await create_store(config, tmp_path)
        for lost in tmp_path.glob("parley.db*"):
            lost.unlink()
        for opening in (create_store(config, tmp_path), open_store(config, tmp_path).__aenter__()):
            with pytest.raises(StoreUnavailable) as rejected:
                await opening
            assert "remove parley.db-queue and known-stores.json to start with an empty store" in str(
                rejected.value.cause
            )
        assert not (tmp_path / "parley.db").exists()
        (tmp_path / "known-stores.json").unlink()
        assert identity != await create_store(config, tmp_path)

    async def test_a_check_of_a_full_disk(
        self, file: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The check fails on a full disk while reads succeed, and recovers by itself."""
        await store.add_key(key(1), event)
        await store.check()
        full = os.statvfs_result((4096, 4096, 1000, 1, 1, 100, 50, 50, 0, 255))
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", lambda _: full)
            with pytest.raises(StoreUnavailable) as rejected:
                await store.check()
            assert "the disk is full" in str(rejected.value.cause)
            assert key(1) == await store.find_key(bytes([1]) * 32)
        await store.check()

    async def test_a_check_writes(self, file: Path, store: SqliteStore) -> None:
        """The check fails for a file that can be read and not written."""
        await store.check()
        store._checked = -inf  # noqa: SLF001 - as if the interval had passed
        holder = apsw.Connection(str(file))
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.check()
        holder.execute("ROLLBACK")
        await store.check()

    def test_full_disk(self, file: Path) -> None:
        """On a full disk writes fail and reads succeed; with free space writes succeed again."""
        script = (
            "import resource\n"
            "size = resource.RLIMIT_FSIZE\n"
            "await converse(store, 's', 'q', 'a', new=True)\n"
            "resource.setrlimit(size, (100_000, resource.RLIM_INFINITY))\n"
            "try:\n"
            "    for n in range(1000): await converse(store, 's', 'q' * 1000, 'a')\n"
            "except StoreUnavailable as refused: print('refused', refused.cause)\n"
            "try: await converse(store, 't', 'q' * 1000, 'a', new=True)\n"
            "except StoreUnavailable: print('refused again')\n"
            "print('readable', (await store.get_session('ada', 's')).model)\n"
            "resource.setrlimit(size, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
            "await converse(store, 't', 'q' * 1000, 'a', new=True)\n"
            "print('written', (await store.get_session('ada', 't')).turn_count)\n"
        )
        lines = _run_script(file, script).splitlines()
        assert lines[0].startswith(f"refused {file}: the disk fails or is full")
        assert ["refused again", "readable m", "written 1"] == lines[1:]

    @pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
    def test_unsafe_library(self, version: str) -> None:
        """An SQLite that can corrupt a shared file is rejected, with the version to install."""
        with pytest.raises(StoreUnavailable) as rejected:
            require_safe_library(version)
        assert version in str(rejected.value.cause)
        assert "install apsw 3.51.3 or later" in str(rejected.value.cause)

    @pytest.mark.parametrize("version", ["3.6.23", "3.51.3", "3.54.1", "4.0.0"])
    def test_safe_library(self, version: str) -> None:
        """An SQLite without that bug is accepted."""
        require_safe_library(version)


def _run_script(file: Path, body: str) -> str:
    """Runs code with a store in a separate process; returns its output."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    command = [sys.executable, "-c", _SCRIPT.format(body=indented), str(file)]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _as_unprivileged_user(prepare: str, action: str) -> str:
    """Creates a store, then runs an action as an unprivileged user; returns the cause of its failure."""
    # Not pytest's folder, which only the user of the tests can access.
    folder = Path(tempfile.mkdtemp(prefix="parley-"))
    folder.chmod(0o755)
    body = (
        f"await store.close()\n{prepare}\nif os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        f"try: {action}\nexcept StoreUnavailable as refused: print(refused.cause)\n"
        "os._exit(0) if not sys.stdout.flush() else None\n"
    )
    try:
        return _run_script(folder / "parley.db", body)
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)
