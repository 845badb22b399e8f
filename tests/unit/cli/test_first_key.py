"""The first API key: on a terminal, or in a private file."""

import os
import sys
from pathlib import Path

import pytest

from parley.cli.shared import first_key
from parley.config.loader import load
from parley.supervisor.addresses import Address

HTTP, GRPC = Address("127.0.0.1", 8080), Address("127.0.0.1", 50051)


async def test_a_terminal_shows_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a person at a terminal sees the key itself; no file contains it."""
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader, "rb"):
        monkeypatch.setattr(sys, "stdout", terminal)
        key = await first_key.create(load(None), tmp_path)
    assert isinstance(key, str)
    text = first_key.greeting(HTTP, GRPC, key, load(None))
    assert f"shown only now:\n\n  {key}\n" in text
    assert f"-H 'Authorization: Bearer {key}'" in text
    assert not (tmp_path / "first-key").exists()


async def test_a_log_names_the_file_with_the_key(tmp_path: Path) -> None:
    """Where stdout is no terminal, the key is in a file of mode 0600, and the output has only its path."""
    file = await first_key.create(load(None), tmp_path)
    assert tmp_path / "first-key" == file
    assert 0o600 == file.stat().st_mode & 0o777
    text = first_key.greeting(HTTP, GRPC, file, load(None))
    assert f"Your first API key is in {file}\n" in text
    assert f'-H "Authorization: Bearer $(cat {file})"' in text
    assert "sk-" not in text
    assert await first_key.create(load(None), tmp_path) is None
