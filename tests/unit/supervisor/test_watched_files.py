"""Tests of the watch of files with values of the configuration."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parley.supervisor import watched_files


@contextmanager
def _reads(files: dict[str, tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Watches the files on a running loop; yields a list that grows by each request to read again."""
    monkeypatch.setattr(watched_files, "_SECONDS", 0.001)
    reads: list[str] = []
    task = asyncio.ensure_future(watched_files.watch(lambda: files, lambda: reads.append("read")))
    try:
        yield reads
    finally:
        task.cancel()


async def test_each_change_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced file has the configuration read once, also if that fails and its state stays as it was."""
    file, other = tmp_path / "key", tmp_path / "other"
    file.write_text("one")
    state = file.stat()
    with _reads({str(file): (state.st_mtime_ns, state.st_ino, state.st_size)}, monkeypatch) as reads:
        await asyncio.sleep(0.05)
        assert [] == reads
        for count, content in enumerate(("two", "three!"), 1):
            other.write_text(content)
            other.replace(file)
            async with asyncio.timeout(60):
                while len(reads) < count:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert count == len(reads)


async def test_a_missing_file_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is missing for a moment does not have the configuration read, which would fail."""
    with _reads({str(tmp_path / "key"): (1, 2, 3)}, monkeypatch) as reads:
        await asyncio.sleep(0.05)
        assert [] == reads


async def test_a_file_that_is_written_in_place_is_read_once_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file is empty, or still grows, the configuration is not read: calls would get a part of a key."""
    file = tmp_path / "key"
    file.write_text("one")
    state = file.stat()
    with _reads({str(file): (state.st_mtime_ns, state.st_ino, state.st_size)}, monkeypatch) as reads:
        monkeypatch.setattr(watched_files, "_SECONDS", 0.05)
        file.write_text("")
        await asyncio.sleep(0.2)
        for length in range(1, 40):
            file.write_text("k" * length)
            await asyncio.sleep(0.01)
        assert [] == reads
        async with asyncio.timeout(60):
            while not reads:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert ["read"] == reads
