"""`parley keys`, `parley accounts` and `parley audit`: changes of keys and accounts on a real file."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from parley.auth.api_keys import ApiKeys
from parley.core.administration import os_user
from parley.core.errors import AccountSuspended, InvalidApiKey
from parley.core.ports import Credentials
from parley.stores.sqlite import SqliteStore
from tests.processes import run_here


class Commands:
    """The commands, on one state folder with one key."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.made = self.read("keys", "create", "--name", "ada", "--account", "acme")
        self.id = str(self.made["id"])

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `parley …`."""
        return run_here(*arguments, PARLEY_STATE_DIR=str(self.state), COLUMNS="200")

    def print(self, *arguments: str) -> str:
        """Runs `parley …`, which must succeed; returns its output."""
        done = self.run(*arguments)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    def read(self, *arguments: str) -> Any:
        """Runs `parley … --json`; returns the JSON."""
        return json.loads(self.print(*arguments, "--json"))

    def fail(self, *arguments: str) -> str:
        """Runs `parley …`, which must fail with one line; returns it without `parley: `."""
        done = self.run(*arguments)
        assert (1, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
        return done.stderr.strip().removeprefix("parley: ")

    def key(self) -> Any:
        """Returns the key as `parley keys show` prints it."""
        return self.read("keys", "show", self.id)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """The commands."""
    return Commands(tmp_path / "state")


def test_settings_of_a_key(commands: Commands) -> None:
    """`keys set`, `rename` and `expire` change one key, and `show` shows it."""
    commands.print("keys", "set", commands.id, "--model", "smollm2", "--scope", "chat", "--scope", "models")
    commands.print("keys", "set", commands.id, "--limit", "requests_per_minute=60", "--limit", "tokens_per_day=5M")
    commands.print("keys", "set", commands.id, "--no-limit", "requests_per_minute")
    assert f'{commands.id} is named "batch".\n' == commands.print("keys", "rename", commands.id, "batch")
    key = commands.key()
    assert ("batch", ["smollm2"], ["chat", "models"]) == (key["name"], key["models"], key["scopes"])
    assert {"tokens_per_day": 5_000_000} == key["limits"]
    shown = commands.print("keys", "set", commands.id, "--all-models", "--all-scopes")
    assert ["all", "all"] == [line.split()[1] for line in shown.splitlines() if line.startswith(("Models", "Scopes"))]
    commands.print("keys", "expire", commands.id, "--in", "1h")
    assert abs(commands.key()["expires"] - time.time() - 3600) < 60
    commands.print("keys", "expire", commands.id)
    assert "expired" == commands.key()["state"]
    assert "never expires" in commands.print("keys", "expire", commands.id, "--never")
    assert ("active", None) == (commands.key()["state"], commands.key()["expires"])


async def test_rotation(commands: Commands) -> None:
    """After a rotation both secrets are valid, or with `--keep 0` the new one alone."""
    store = SqliteStore(commands.state / "parley.db")

    async def is_valid(secret: str) -> bool:
        try:
            return commands.id == (await ApiKeys(store).authenticate(Credentials(f"Bearer {secret}"))).key_id
        except InvalidApiKey:
            return False

    first, second = commands.made["key"], commands.read("keys", "rotate", commands.id, "--overlap", "1h")["key"]
    assert [True, True] == [await is_valid(secret) for secret in (first, second)]
    rotated = commands.run("keys", "rotate", commands.id, "--keep", "0")
    [third] = rotated.stdout.splitlines()
    assert "The old secret is no longer valid." in rotated.stderr
    assert [False, False, True] == [await is_valid(secret) for secret in (first, second, third)]
    await store.close()


async def test_accounts(commands: Commands) -> None:
    """Accounts are created, changed, suspended and resumed; a suspended one has no valid key."""
    assert "pro" in commands.print("accounts", "create", "beta")
    commands.print("accounts", "set", "beta", "--plan", "free", "--limit", "sessions=100")
    expected = {"name": "beta", "plan": "free", "limits": {"sessions": 100}, "suspended": None}
    assert expected == commands.read("accounts", "show", "beta")
    store, sent = SqliteStore(commands.state / "parley.db"), Credentials(f"Bearer {commands.made['key']}")
    assert 'Suspended the account "acme".\n' == commands.print("accounts", "suspend", "acme")
    with pytest.raises(AccountSuspended):
        await ApiKeys(store).authenticate(sent)
    assert "suspended since" in commands.print("accounts", "list")
    commands.print("accounts", "resume", "acme")
    assert "acme" == (await ApiKeys(store).authenticate(sent)).account
    await store.close()


def test_audit(commands: Commands) -> None:
    """`parley audit` shows every change, the latest first, with the user and without secrets."""
    rotated = commands.read("keys", "rotate", commands.id)
    commands.print("accounts", "suspend", "acme")
    events = commands.read("audit", "--since", "1h")
    assert ["SuspendAccount", "RotateKey", "CreateKey"] == [event["method"] for event in events]
    assert {(f"user:{os_user()}", "cli")} == {(event["actor"], event["source"]) for event in events}
    assert {"before": None, "after": "ada"} == events[-1]["changes"]["name"]
    assert ["SuspendAccount"] == [event["method"] for event in commands.read("audit", "--subject", "account:acme")]
    table = commands.print("audit")
    assert "name: - → ada" in table
    for secret in (commands.made["key"], rotated["key"]):
        assert secret not in table
        assert secret not in json.dumps(events)
    assert "--since" in commands.fail("audit", "--since", "yesterday")


def test_mistakes_change_nothing(commands: Commands) -> None:
    """Each mistake is one line that names the option, and is not in the audit log."""
    create = ("keys", "create", "--name", "x")
    assert '--scope: no scope is named "all"; use one of: chat, ' in commands.fail(*create, "--scope", "all")
    assert '--limit has no "nope"; the limits are: ' in commands.fail(*create, "--limit", "nope=1")
    assert '--limit: "x" is not NAME=VALUE' in commands.fail(*create, "--limit", "x")
    assert "--limit requests_per_minute: " in commands.fail(*create, "--limit", "requests_per_minute=-1")
    assert "--name must not have control characters" == commands.fail("keys", "create", "--name", "\x1b[31mred")
    assert "nothing to change" in commands.fail("keys", "set", commands.id)
    assert 'no key has the id "key_x"' in commands.fail("keys", "rotate", "key_x")
    assert "exclude each other" in commands.fail("keys", "set", commands.id, "--model", "m", "--all-models")
    assert '--plan: no plan is named "gold"; use one of: ' in commands.fail("accounts", "set", "acme", "--plan", "gold")
    assert 'no account is named "eve"' in commands.fail("accounts", "suspend", "eve")
    assert 'An account named "acme" exists' in commands.fail("accounts", "create", "acme")
    assert "--keep" in commands.fail("keys", "rotate", commands.id, "--keep", "9999d")
    assert 1 == len(commands.read("audit"))


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("keys", ("create", "list", "show", "set", "rename", "rotate", "expire", "revoke")),
        ("accounts", ("list", "show", "create", "set", "suspend", "resume")),
        ("audit", ()),
    ],
)
def test_help(group: str, commands: tuple[str, ...]) -> None:
    """Help has examples for every command."""
    for arguments in ([], *([name] for name in commands)):
        shown = run_here(group, *arguments, "--help").stdout
        assert "Example" in shown
        assert f"\n  parley {group}" in shown
