"""`parley keys` on a real file, in this process and as a separate one beside a service."""

import hashlib
import json
import shlex
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parley.auth.api_keys import ApiKeys
from parley.core.errors import InvalidApiKey
from parley.core.ports import Credentials
from parley.stores.sqlite import SqliteStore
from tests.processes import COMMAND, environment, run, run_here

Result = subprocess.CompletedProcess[str]
RunCommand = Callable[..., Result]


class Keys:
    """The command, on one state folder."""

    def __init__(self, state: Path, how: RunCommand = run_here) -> None:
        self.state = state
        self._run = how

    def run(self, *arguments: str, **environment: str) -> Result:
        """Runs `parley keys …`."""
        return self._run("keys", *arguments, **{"PARLEY_STATE_DIR": str(self.state), "COLUMNS": "100"} | environment)

    def read(self, *arguments: str) -> Any:
        """Runs `parley keys … --json`, which must succeed."""
        result = self.run(*arguments, "--json")
        assert (0, "") == (result.returncode, result.stderr)
        return json.loads(result.stdout)

    def fail(self, *arguments: str, **environment: str) -> str:
        """Runs `parley keys …`, which must fail with one line; returns it."""
        result = self.run(*arguments, **environment)
        assert (1, "", 1) == (result.returncode, result.stdout, len(result.stderr.splitlines()))
        return result.stderr.strip()


FIELDS = (
    *("name", "account", "plan", "models", "scopes", "limits"),
    *("created", "expires", "revoked", "previous_expires", "state"),
)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The command, on a state folder that does not exist yet."""
    return Keys(tmp_path / "state")


def test_create_for_people(keys: Keys) -> None:
    """stdout has the secret alone, so that `KEY=$(…)` works; stderr says that it is not shown again."""
    result = keys.run("create", "--name", "ada")
    [secret], notice = result.stdout.splitlines(), result.stderr
    assert (0, "sk-", 46) == (result.returncode, secret[:3], len(secret))
    assert "only time" in notice
    assert '"ada"' in notice
    assert secret not in keys.run("list").stdout
    assert secret.encode() not in b"".join(file.read_bytes() for file in keys.state.iterdir())


def test_create_for_programs(keys: Keys, tmp_path: Path) -> None:
    """JSON has the key and all its fields; the order of options does not matter."""
    config = tmp_path / "parley.yaml"
    config.write_text(
        "backends: {b: {kind: openai, base_url: 'http://127.0.0.1:9'}}\n"
        "models: [{id: m1, targets: [{backend: b}]}, {id: m2, targets: [{backend: b}]}]\n"
    )
    began = int(time.time())
    options = ("--model", "m2", "--account", "acme", "--model", "m1", "--plan", "free", "--expires", "30d")
    made = keys.read("create", "--config", str(config), "--name", "batch", *options)
    assert ["id", "key", *FIELDS] == list(made)
    assert ("batch", "acme", "free", ["m2", "m1"]) == (made["name"], made["account"], made["plan"], made["models"])
    assert began <= made["created"] <= time.time()
    assert began + 30 * 86400 <= made["expires"] <= made["created"] + 30 * 86400


def test_defaults(keys: Keys) -> None:
    """Without options a key belongs to the account `default` on the plan `pro`, for all models, without expiry."""
    made = keys.read("create", "--name", "ada")
    assert ("default", "pro", [], None) == (made["account"], made["plan"], made["models"], made["expires"])


def test_the_plan_of_an_account_stays(keys: Keys) -> None:
    """Another key does not change the account's plan; another `--plan` is rejected with the command that changes it."""
    keys.run("create", "--name", "one", "--account", "acme", "--plan", "free")
    assert "free" == keys.read("create", "--name", "two", "--account", "acme")["plan"]
    assert "free" == keys.read("create", "--name", "three", "--account", "acme", "--plan", "free")["plan"]
    assert (
        'parley: --plan: the account "acme" is on the plan free; to change it: parley accounts set acme --plan pro'
        == keys.fail("create", "--name", "four", "--account", "acme", "--plan", "pro")
    )
    assert ["free", "free", "free"] == [key["plan"] for key in keys.read("list")]


def test_accounts_changes_the_plan(keys: Keys) -> None:
    """`parley accounts` lists the accounts and changes the plan of one; an unknown one is named."""
    state = {"PARLEY_STATE_DIR": str(keys.state)}
    keys.run("create", "--name", "one", "--account", "acme")
    keys.run("create", "--name", "two", "--account", "bob")
    done = run_here("accounts", "set", "acme", "--plan", "free", **state)
    assert (0, ["Plan", "free"]) == (done.returncode, done.stdout.splitlines()[1].split())
    listed = run_here("accounts", "list", "--json", **state)
    assert [("acme", "free"), ("bob", "pro")] == [(one["name"], one["plan"]) for one in json.loads(listed.stdout)]
    assert ["acme", "free"] == run_here("accounts", "list", **state).stdout.splitlines()[1].split()[:2]
    failed = run_here("accounts", "set", "eve", "--plan", "free", **state)
    assert (1, 'parley: no account is named "eve"; see `parley accounts list`\n') == (failed.returncode, failed.stderr)


def test_the_folder_of_make_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without options use `.parley` in the working folder, else the user's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".parley").mkdir(mode=0o700)
    done = run_here("keys", "create", "--name", "ada", HOME=str(tmp_path / "home"), XDG_STATE_HOME="")
    assert 0 == done.returncode
    assert (tmp_path / ".parley" / "parley.db").exists()
    assert not (tmp_path / "home").exists()


def test_a_closed_pipe_ends_the_command_quietly(keys: Keys) -> None:
    """A command whose output nothing reads ends without an error; stderr has the notice beside a key alone."""
    for arguments, notice in (("keys create --name ada | head -1", "only time"), ("keys list | true", "")):
        done = subprocess.run(
            ["sh", "-c", f"{shlex.quote(COMMAND)} {arguments}"],
            env=environment(PARLEY_STATE_DIR=str(keys.state)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (bool(notice), 0) == (len(done.stderr.splitlines()), done.returncode)
        assert notice in done.stderr


async def test_works_beside_a_service(tmp_path: Path) -> None:
    """While a service has the store open, a new key is valid there, and a revoked one is not."""
    keys = Keys(tmp_path / "state", run)
    store = SqliteStore(keys.state / "parley.db")
    now = [1_900_000_000.0]
    service = ApiKeys(store, clock=lambda: now[0])
    made = keys.read("create", "--name", "ada")
    assert made["id"] == (await service.authenticate(Credentials(f"Bearer {made['key']}"))).key_id
    revoked = keys.run("revoke", made["id"])
    assert (0, f'Revoked {made["id"]} ("ada").\n') == (revoked.returncode, revoked.stdout)
    now[0] += 0.5
    with pytest.raises(InvalidApiKey):
        await service.authenticate(Credentials(f"Bearer {made['key']}"))
    await store.close()


def test_list(keys: Keys) -> None:
    """The list has every key, oldest first, with complete ids and states, and without secrets or digests."""
    first = keys.read("create", "--name", "[bold]ada", "--expires", "1h")
    second = keys.read("create", "--name", "bob")
    keys.run("revoke", second["id"])
    table = keys.run("list").stdout
    lines = table.splitlines()
    assert (first["id"], "[bold]ada", "active") == (lines[1].split()[0], lines[1].split()[1], lines[1].split()[-1])
    assert (second["id"], "revoked") == (lines[2].split()[0], lines[2].split()[-1])
    listed = keys.read("list")
    assert [first["id"], second["id"]] == [one["id"] for one in listed]
    assert ["active", "revoked"] == [one["state"] for one in listed]
    for text in (table, json.dumps(listed)):
        assert first["key"] not in text
        assert hashlib.sha256(first["key"].encode()).hexdigest() not in text


def test_dates_in_a_terminal_of_80_columns(keys: Keys) -> None:
    """Ids and dates are complete; long names are wrapped."""
    made = keys.read("create", "--name", "a name that is rather long for a table", "--expires", "30d")
    created, expires = (datetime.fromtimestamp(made[one], UTC).strftime("%Y-%m-%d") for one in ("created", "expires"))
    lines = keys.run("list", COLUMNS="80").stdout.splitlines()
    assert {made["id"], "default", "pro", "all", created, expires, "active"} <= set(lines[1].split())
    assert all(len(line) <= 80 for line in lines)


def test_wide_ids_in_a_narrow_terminal(keys: Keys) -> None:
    """An id is complete in a terminal of any width, so that it can be pasted."""
    made = keys.read("create", "--name", "a name that is rather long for a table")
    assert made["id"] in keys.run("list", COLUMNS="40").stdout


def test_a_folder_without_keys(keys: Keys) -> None:
    """Listing or revoking in a folder without keys names the folder and creates nothing."""
    for arguments in (("list",), ("revoke", "key_1")):
        text = keys.fail(*arguments)
        assert f"parley: {keys.state} has no keys; " in text
        assert "--state-dir" in text
    assert not keys.state.exists()


def test_mistakes(keys: Keys, tmp_path: Path) -> None:
    """Each mistake is one line with the value to change."""
    keys.read("create", "--name", "ada")
    assert '--model: no model has the id "nope"; use one of: smollm2' in keys.fail(
        "create", "--name", "x", "--model", "nope"
    )
    assert '--expires: "soon" is not a duration' in keys.fail("create", "--name", "x", "--expires", "soon")
    assert "--expires" in keys.fail("create", "--name", "x", "--expires", "99999999999d")
    assert "--name must not be empty" in keys.fail("create", "--name", " ")
    assert 'no key has the id "key_x"; see `parley keys list`' in keys.fail("revoke", "key_x")
    assert "--config" in keys.fail("create", "--name", "x", "--config", str(tmp_path / "none.yaml"))
    assert 1 == len(keys.read("list"))


def test_broken_store(keys: Keys) -> None:
    """The error for an unusable store names it and the remedy."""
    keys.state.mkdir()
    (keys.state / "parley.db").write_bytes(b"no database " * 1000)
    assert "it is not an SQLite database" in keys.fail("list")
    assert "it is not an SQLite database" in keys.fail("create", "--name", "x")


def test_state_dir_option_wins(keys: Keys, tmp_path: Path) -> None:
    """`--state-dir` precedes the variable; `~` and missing folders are accepted."""
    other = tmp_path / "home" / "deep"
    keys.read("create", "--name", "ada", "--state-dir", str(other))
    result = keys.run("list", "--state-dir", "~/deep", HOME=str(tmp_path / "home"))
    assert (0, True) == (result.returncode, "ada" in result.stdout)
    assert not keys.state.exists()


def test_help(keys: Keys) -> None:
    """Help has examples for every command."""
    for arguments in ((), ("create",), ("list",), ("revoke",)):
        result = keys.run(*arguments, "--help")
        assert (0, "") == (result.returncode, result.stderr)
        assert "Example" in result.stdout
        assert "\n  parley keys " in result.stdout
