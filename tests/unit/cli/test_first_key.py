"""The first API key: on a terminal, or in a private file."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from parley.cli.shared import first_key
from parley.config.loader import load
from parley.supervisor.addresses import Address
from tests.pages import ROOT

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
    assert "keys create" not in text
    assert await first_key.create(load(None), tmp_path) is None


def words(text: str) -> list[str]:
    """Returns the words of the example call, as a shell reads them."""
    return shlex.split(text[text.index("curl ") : text.index("\nCtrl-C")])


@pytest.mark.parametrize(
    ("columns", "begin"), [(80, "'Authorization: Bearer sk-"), (60, '"Authorization: Bearer $KEY"')]
)
def test_the_example_fits_the_terminal(columns: int, begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal, and a shell reads one call with one JSON body."""
    monkeypatch.setenv("COLUMNS", str(columns))
    key = "sk-" + "k" * 43
    text = first_key.greeting(HTTP, GRPC, key, load(None))
    assert max(map(len, text.splitlines())) <= columns
    assert f"-H {begin}" in text
    call = words(text)
    assert ["curl", "http://127.0.0.1:8080/v1/chat/completions"] == call[:2]
    body = json.loads(call[call.index("-d") + 1])
    assert "smollm2" == body["model"]
    assert [{"role": "user", "content": "What is the capital of France?"}] == body["messages"]


def test_the_page_is_among_the_addresses() -> None:
    """The page is the root of the REST listener, unless it is not served."""
    lines = first_key.greeting(HTTP, GRPC, None, load(None)).splitlines()
    assert ["Page  http://127.0.0.1:8080/", "REST  http://127.0.0.1:8080", "gRPC  127.0.0.1:50051"] == lines[1:4]
    assert [lines[0], *lines[2:]] == first_key.greeting(HTTP, GRPC, None, load(None), page=False).splitlines()
    with_docs = first_key.greeting(HTTP, GRPC, None, load(None), docs=True).splitlines()
    assert [*lines[:4], "Docs  http://127.0.0.1:8080/docs/", *lines[4:]] == with_docs


@pytest.mark.parametrize(("page", "shown"), [(True, "Admin http://127.0.0.1:50052/"), (False, "Admin 127.0.0.1:50052")])
def test_the_admin_listener_is_among_the_addresses(page: bool, shown: str) -> None:
    """The admin listener is named where there is one; it has the Console unless there are no pages."""
    without = first_key.greeting(HTTP, GRPC, None, load(None), page=page).splitlines()
    admin = Address("127.0.0.1", 50052)
    lines = first_key.greeting(HTTP, GRPC, None, load(None), page=page, admin=admin).splitlines()
    place = without.index("gRPC  127.0.0.1:50051") + 1
    assert [*without[:place], shown, *without[place:]] == lines


@pytest.mark.parametrize("page", ["README.md", "docs/first-minutes.md"])
def test_the_documentation_shows_the_greeting(page: str) -> None:
    """README.md and the first minutes show what a first start prints."""
    text = (ROOT / page).read_text(encoding="utf-8")
    [key] = set(re.findall(r"sk-[A-Za-z0-9_-]{43}", text))
    assert first_key.greeting(HTTP, GRPC, key, load(None), docs=True) in text


def test_a_later_run_shows_how_to_create_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names this installation, and the state folder and the configuration unless they are the default."""
    program = Path(sys.executable).with_name("parley")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".parley").mkdir()
    monkeypatch.setenv("PATH", "/nowhere")
    assert f"{program} keys create" == first_key.create_command(None, tmp_path / ".parley")
    command = first_key.create_command(Path("my parley.yaml"), tmp_path / "other")
    assert f"{program} keys create --state-dir {tmp_path}/other --config 'my parley.yaml'" == command
    monkeypatch.setenv("PATH", str(program.parent))
    assert "parley keys create" == first_key.create_command(None, tmp_path / ".parley")
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")  # as of `pip install --user`
    assert "parley keys create" == first_key.create_command(None, tmp_path / ".parley")
    text = first_key.greeting(HTTP, GRPC, None, load(None), another=command)
    assert f"To create another API key:\n\n  {command} --name NAME\n" in text
