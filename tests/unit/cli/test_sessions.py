"""`parley sessions` as a user runs it: real processes on a real file."""

import asyncio
import io
import json
import os
import select
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from parley.cli.app import app
from parley.cli.shared.terminal import message_text
from parley.core.ports import Store, TurnEnd
from parley.stores.sqlite import SqliteStore
from parley.supervisor.errors import CommandError
from parley.v1.message_pb2 import FunctionCall, Message, ToolCall, Usage
from parley.v1.receipt_pb2 import Attempt, GuardResult, Receipt
from tests.contract.stores.making import begin, complete, converse, end_incomplete, message
from tests.processes import COMMAND, PATIENCE, environment, run_here


class Sessions:
    """The command on one state folder, in this process, because a separate one takes a second to start."""

    def __init__(self, state: Path, printed: pytest.CaptureFixture[str]) -> None:
        self.state = state
        self._printed = printed

    def stored(self, work: Callable[[Store], Awaitable[object]]) -> None:
        """Changes the store as a service would."""

        async def do() -> None:
            store = SqliteStore(self.state / "parley.db")
            await work(store)
            await store.close()

        self.state.mkdir(exist_ok=True)
        asyncio.run(do())

    def run(self, *arguments: str, account: str = "ada") -> str:
        """Runs `parley sessions …`; returns what it prints."""
        app(
            ["sessions", *arguments, "--account", account, "--state-dir", str(self.state)], result_action="return_value"
        )
        printed = self._printed.readouterr()
        return printed.out + printed.err

    def read(self, *arguments: str, account: str = "ada") -> Any:
        """Runs `parley sessions … --json`; returns the JSON."""
        return json.loads(self.run(*arguments, "--json", account=account))

    def fail(self, *arguments: str, account: str = "ada") -> str:
        """Runs `parley sessions …`, which must fail with one line and print nothing; returns the line."""
        with pytest.raises(CommandError) as caught:
            self.run(*arguments, account=account)
        assert ("", 1) == (self._printed.readouterr().out, len(str(caught.value).splitlines()))
        return str(caught.value)


@pytest.fixture
def sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sessions:
    """The command, on a state folder that does not exist yet."""
    return Sessions(tmp_path / "state", capsys)


async def _three(store: Store) -> None:
    """Creates two sessions of the account `ada` and one of `default`."""
    await converse(store, "s1", "Hi", "Hello", new=True)
    await complete(store, await begin(store, "s2", "Hi", new=True, model="[b]other"), "Hello")
    await complete(store, await begin(store, "s3", "Hi", new=True, account="default"), "Hello")


async def _create_session(store: Store) -> None:
    """Creates a session with all kinds of content that the command shows."""
    await converse(store, "s1", "[red]Hi", "Hello\x1b[2J", new=True)
    call = ToolCall(id="c", type="function", function=FunctionCall(name="weather", arguments='{"city": "Paris"}'))
    usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    turn = await begin(store, "s1", "Is it warm?", metadata={"trip": "7"})
    await store.end_turn(turn, TurnEnd("completed", answer=[Message(role="assistant", tool_calls=[call])], usage=usage))
    await end_incomplete(store, await begin(store, "s1", message("user", "And?")), "cancelled", "Per")


def test_list(sessions: Sessions) -> None:
    """The account's sessions are in a table, latest first, with complete ids; they can be filtered by model."""
    sessions.stored(_three)
    rows = [line.split() for line in sessions.run("list").splitlines()]
    assert [["s2", "[b]other", "1"], ["s1", "m", "1"]] == [row[:3] for row in rows[1:]]
    assert ["s1"] == [row["id"] for row in sessions.read("list", "--model", "m")]
    [only] = sessions.read("list", account="default")
    assert ["id", "object", "model", "created", "updated", "turn_count"] == list(only)
    assert ("s3", "chat.session", 1) == (only["id"], only["object"], only["turn_count"])


def test_a_long_list(sessions: Sessions) -> None:
    """The table has up to fifty sessions, or the limit, and reports further ones; JSON has all of them."""

    async def many(store: Store) -> None:
        for number in range(130):
            await complete(store, await begin(store, f"s{number:03}", "Hi", new=True), "Hello")

    sessions.stored(many)
    *rows, notice = sessions.run("list").splitlines()
    assert (51, "There are more") == (len(rows), notice[:14])
    assert 130 == len(sessions.read("list"))
    assert ["s129", "s128"] == [row["id"] for row in sessions.read("list", "--limit", "2")]
    assert 131 == len(sessions.run("list", "--limit", "130").splitlines())


def test_show_for_people(sessions: Sessions) -> None:
    """The conversation is shown in order, with tool calls and broken turns; no text moves the cursor."""
    sessions.stored(_create_session)
    shown = sessions.run("show", "s1")
    expected = ["[red]Hi", "Hello[2J", "Is it warm?", '→ weather({"city": "Paris"})', "And?", "Per"]
    lines = [line.strip() for line in shown.splitlines()]
    assert expected == [line for line in lines if line in expected]
    assert ["Turn 1", "Turn 2", "Turn 3"] == [line[:6] for line in lines if line.startswith("Turn")]
    assert "incomplete (cancelled)" in shown
    assert "\x1b" not in shown


async def _costly(store: Store) -> None:
    """Creates a session with a turn answered by a fallback, and one without an answer."""
    receipt = Receipt(cost=0.00021, duration_ms=1240)
    slow = {"model": "m", "backend": "vllm", "kind": "first", "outcome": "failed", "reason": "UPSTREAM_TIMEOUT"}
    receipt.attempts.add(**slow, duration_ms=30_000)
    receipt.guards.add(guard="pii", phase="before", outcome="failed_open", reason="timeout", duration_ms=12)
    fallback = {"model": "f", "backend": "openai", "target_model": "gpt-5-mini", "kind": "fallback"}
    usage = Usage(prompt_tokens=100, completion_tokens=34, total_tokens=134)
    receipt.attempts.add(**fallback, outcome="completed", duration_ms=1240, usage=usage, cost=0.00021)
    answer = [message("assistant", "Hello")]
    turn = await begin(store, "s1", "Hi", new=True)
    await store.end_turn(turn, TurnEnd("completed", answer=answer, usage=usage, receipt=receipt))
    half = Receipt(duration_ms=999, cost=12)
    broken = {"model": "m", "backend": "vllm", "target_model": "q\x1bwen", "kind": "first", "outcome": "cancelled"}
    half.attempts.add(**broken, duration_ms=999, usage=Usage(total_tokens=7), estimated=True, cost=12)
    await store.end_turn(await begin(store, "s1", "And?"), TurnEnd("incomplete", "cancelled", receipt=half))
    await converse(store, "s1", "Still there?", "Yes")


def test_show_has_the_attempts(sessions: Sessions) -> None:
    """Each answer is followed by its model, duration and cost, and preceded by failed attempts."""
    sessions.stored(_costly)
    shown = [line.strip() for line in sessions.run("show", "s1").splitlines() if line]
    assert [
        "user",
        "Hi",
        "assistant",
        "Hello",
        "guard pii, before the model: failed_open (timeout), 12 ms",
        "vllm: failed after 30.0 s (UPSTREAM_TIMEOUT)",
        "openai/gpt-5-mini (fallback): 1.2 s, 134 tokens, 0.00021",
        "user",
        "And?",
        "vllm/qwen: cancelled after 999 ms, about 7 tokens, 12.00",
        "user",
        "Still there?",
        "assistant",
        "Yes",
    ] == [line for line in shown[1:] if not line.startswith("Turn")]


def test_show_has_receipts_without_fields(sessions: Sessions) -> None:
    """An imported receipt may lack any field."""

    async def imported(store: Store) -> None:
        receipt = Receipt(attempts=[Attempt()], guards=[GuardResult()])
        await store.end_turn(await begin(store, "s1", "Hi", new=True), TurnEnd("incomplete", "failed", receipt=receipt))

    sessions.stored(imported)
    assert "guard ?, ? the model: ?, 0 ms" in sessions.run("show", "s1")


def test_export_has_receipts(sessions: Sessions) -> None:
    """The receipt is exported unchanged, on the answer or without one on the turn's last message."""
    sessions.stored(_costly)
    lines = [json.loads(line) for line in sessions.run("export", "s1").splitlines()]
    assert [False, True, True, False, False] == ["receipt" in line for line in lines]
    assert (0.00021, 1240) == (lines[1]["receipt"]["cost"], lines[1]["receipt"]["duration_ms"])
    assert ["vllm", "openai"] == [attempt["backend"] for attempt in lines[1]["receipt"]["attempts"]]


def test_show_for_programs(sessions: Sessions) -> None:
    """JSON has the session and its messages."""
    sessions.stored(_create_session)
    shown = sessions.read("show", "s1")
    assert ("s1", 3) == (shown["id"], shown["turn_count"])
    assert ["user", "assistant", "user", "assistant", "user", "assistant"] == [m["role"] for m in shown["messages"]]


def test_export(sessions: Sessions) -> None:
    """Each message is a line of JSON with its fields and those of its turn."""
    sessions.stored(_create_session)
    lines: list[dict[str, Any]] = [json.loads(line) for line in sessions.run("export", "s1").splitlines()]
    created = [line.pop("created") for line in lines]
    assert all(seconds > 1_700_000_000 for seconds in created)
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    second = {"turn": 2, "state": "completed", "metadata": {"trip": "7"}}
    third = {"turn": 3, "state": "incomplete", "reason": "cancelled"}
    assert [
        {"role": "user", "content": "[red]Hi", "turn": 1, "state": "completed"},
        {"role": "assistant", "content": "Hello\x1b[2J", "turn": 1, "state": "completed"},
        {"role": "user", "content": "Is it warm?", **second},
        {"role": "assistant", "tool_calls": [call], **second, "usage": usage},
        {"role": "user", "content": "And?", **third},
        {"role": "assistant", "content": "Per", **third},
    ] == lines


def test_an_export_to_a_closed_pipe(sessions: Sessions) -> None:
    """`| head -1` prints one line, without a traceback."""
    sessions.stored(lambda store: converse(store, "s1", "x" * 3_000_000, "Hello", new=True))
    command = f"{COMMAND} sessions export s1 --account ada --state-dir {sessions.state} | head -c 20"
    result = subprocess.run(
        ["bash", "-c", command],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ('{"role":"user","cont', "") == (result.stdout, result.stderr)


def test_delete(sessions: Sessions) -> None:
    """Several sessions are deleted together, or none if one is unknown."""
    sessions.stored(_three)
    assert 'Unknown session "nope"' in sessions.fail("delete", "s1", "nope", "--yes")
    assert "Deleted s1.\nDeleted s2.\n" == sessions.run("delete", "s1", "s2", "s1", "--yes")
    assert [] == sessions.read("list")
    assert ["s3"] == [row["id"] for row in sessions.read("list", account="default")]


def test_delete_without_a_terminal(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, only `--yes` deletes."""
    sessions.stored(_three)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    result = run_here("sessions", "delete", "s3", "--state-dir", str(sessions.state))
    assert (1, "") == (result.returncode, result.stdout)
    assert "parley: nothing was deleted: stdin is not a terminal; add --yes" in result.stderr
    assert "s3" in sessions.run("show", "s3", account="default")


@pytest.mark.parametrize("answer", [b"n\n", b"\n"])
def test_no_answer_but_yes_deletes(sessions: Sessions, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, `parley sessions delete` prompts; "n" and an empty line delete nothing."""
    sessions.stored(_three)
    ours, theirs = os.openpty()
    os.write(ours, answer)
    with open(theirs, encoding="utf-8") as terminal:  # noqa: PTH123 - a descriptor has no path
        monkeypatch.setattr("sys.stdin", terminal)
        result = run_here("sessions", "delete", "s3", "--state-dir", str(sessions.state))
    os.close(ours)
    assert (0, True) == (result.returncode, "[y/N]" in result.stdout)
    assert ["s3"] == [row["id"] for row in sessions.read("list", account="default")]


def test_yes_on_a_terminal_deletes(sessions: Sessions) -> None:
    """The prompt appears on the terminal of the process, and the answer "y" deletes."""
    sessions.stored(_three)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [COMMAND, "sessions", "delete", "s3", "--state-dir", str(sessions.state)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
    )
    os.close(theirs)
    screen = b""
    while b"[y/N]" not in screen:
        assert select.select([ours], [], [], PATIENCE)[0]
        screen += os.read(ours, 1000)
    os.write(ours, b"y\n")
    assert 0 == process.wait(PATIENCE)
    os.close(ours)
    assert [] == sessions.read("list", account="default")


def test_a_busy_session_is_not_deleted(sessions: Sessions) -> None:
    """A session with a turn in progress is not deleted."""
    sessions.stored(lambda store: begin(store, "s1", "Hi", new=True))
    assert "is answering another request" in sessions.fail("delete", "s1", "--yes")


def test_mistakes(sessions: Sessions) -> None:
    """Each mistake is one line with the value to change, and creates nothing."""
    for arguments in (("list",), ("show", "s1"), ("export", "s1"), ("delete", "s1", "--yes")):
        text = sessions.fail(*arguments)
        assert f"{sessions.state} has no sessions; " in text
        assert "--state-dir" in text
    assert not sessions.state.exists()
    sessions.stored(_three)
    for command in ("show", "export"):
        expected = 'Unknown session "s1"; see `parley sessions list`, and --account'
        assert expected == sessions.fail(command, "s1", account="default")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Help has an example for every command."""
    for arguments in ((), ("list",), ("show",), ("export",), ("delete",)):
        app(["sessions", *arguments, "--help"], result_action="return_value")
        assert "\n  parley sessions " in capsys.readouterr().out


def test_parts_of_a_message() -> None:
    """Text parts are shown as text, others by type; refusals and deprecated function calls are shown, too."""
    parts = [{"type": "text", "text": "What is\tthis?\n"}, {"type": "image_url", "image_url": {"url": "data:…"}}]
    assert "What is\tthis?\n\n[image_url]" == message_text({"role": "user", "content": parts})
    assert "No.\n→ f({})" == message_text({"refusal": "No.", "function_call": {"name": "f", "arguments": "{}"}})
    assert "→ run(1+1)" == message_text({"tool_calls": [{"custom": {"name": "run", "input": "1+1"}}]})
    assert "abc" == message_text({"content": "a\x1bb\x9b\u202e\rc"})


def test_update_and_search(sessions: Sessions) -> None:
    """A title and labels are set, shown and removed, and find the session, as its words do."""
    sessions.stored(lambda store: converse(store, "a", "Where is my refund?", "On its way", new=True))
    sessions.stored(lambda store: converse(store, "b", "Hello", "Hi", new=True))
    sessions.run("update", "a", "--title", "Order 4711", "--label", "team=blue", "--label", "draft=yes")
    sessions.run("update", "a", "--remove-label", "draft")
    assert "Order 4711\nteam=blue" in sessions.run("show", "a")
    for option in (["--search", "REF* way"], ["--search", "order 4711"], ["--label", "team=blue"], ["--label", "team"]):
        assert ["a"] == [session["id"] for session in sessions.read("list", *option)], option
    assert "Order 4711" in sessions.run("list")
    assert [] == sessions.read("list", "--label", "draft")
    assert "--label must be NAME=VALUE" in sessions.fail("list", "--label", "=x")


def test_add(sessions: Sessions, tmp_path: Path) -> None:
    """Messages of a file become a completed turn; an invalid line is named."""
    sessions.stored(lambda store: converse(store, "a", "q", "a", new=True))
    file = tmp_path / "messages.jsonl"
    file.write_text('{"role": "user", "content": "By phone"}\n{"role": "assistant", "content": "Noted"}\n')
    assert "Added turn 2.\n" == sessions.run("add", "a", str(file))
    messages = sessions.read("show", "a")["messages"]
    assert [(2, "completed", "By phone"), (2, "completed", "Noted")] == [
        (one["turn"], one["state"], one["content"]) for one in messages[2:]
    ]
    file.write_text('{"role": "user"}\n{"content": "x"}\n')
    assert "line 2: a message must be an object with a `role`" in sessions.fail("add", "a", str(file))
    assert "No such file" in sessions.fail("add", "a", str(tmp_path / "none"))


def test_export_and_import_of_an_account(sessions: Sessions, tmp_path: Path) -> None:
    """An account's export is imported into another account, unchanged, and once."""
    for name in ("a", "b"):
        sessions.stored(lambda store, name=name: converse(store, name, "q", "a", new=True))  # type: ignore[misc]
    exported = sessions.run("export", "--all")
    file = tmp_path / "export.jsonl"
    file.write_text(exported)
    for expected in ("Imported 2 sessions; skipped 0", "Imported 0 sessions; skipped 2"):
        assert expected in sessions.run("import", str(file), account="bob")
    assert sorted(exported.splitlines()) == sorted(sessions.run("export", "--all", account="bob").splitlines())
    assert "name one session, or use --all" in sessions.fail("export")
