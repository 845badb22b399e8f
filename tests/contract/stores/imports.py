"""The contract of exports and imports of accounts."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from parley.core.errors import InvalidRequest, StorageLimitExceeded
from parley.core.ports import Caller, SessionFilter, StorageLimits, Store, TurnBegin, TurnEnd
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.core.session_ids import chosen_key
from parley.core.sessions import account_export
from parley.core.sessions.account_export import lines
from parley.core.sessions.account_import import Counts, import_sessions
from parley.v1.message_pb2 import Message, Usage
from parley.v1.receipt_pb2 import Attempt, Receipt
from tests.contract.stores.making import Clock, begin, complete, converse, end_incomplete, message, texts

_SESSION: dict[str, Any] = {"object": "chat.session", "id": "s", "model": "m", "created": 1, "updated": 1}
_MESSAGE: dict[str, Any] = {"role": "user", "content": "q", "turn": 1, "state": "completed", "created": 1}


async def _exported(store: Store, account: str = "ada") -> list[Any]:
    return [json.loads(line) async for line in lines(store, account, SessionFilter())]


async def _import(
    store: Store, exported: Sequence[Any], account: str = "bob", storage: StorageLimits = UNLIMITED_STORAGE
) -> Counts:
    counts = Counts()
    await import_sessions(
        store, Caller(account, "key"), [json.dumps(line).encode() for line in exported], storage, counts
    )
    return counts


async def _rich_session(store: Store, session: str) -> None:
    """Makes a session with turns of every kind, unknown fields, usage, receipts, a title and labels."""
    called = Message(role="assistant", extra_json='{"thought":[1,2.5],"b":{"z":1,"a":null}}')
    call = called.tool_calls.add(id="c", type="function")
    call.function.name, call.function.arguments = "f", '{"z": 1, "a": 2}'
    turn = await begin(store, session, message("system", "be brief"), "q1", new=True, metadata={"team": "blue"})
    receipt = Receipt(attempts=[Attempt(backend="b", model="m")])
    await store.end_turn(turn, TurnEnd("completed", answer=[called], usage=Usage(prompt_tokens=3), receipt=receipt))
    result = message("tool", "done")
    result.tool_call_id = "c"
    await complete(store, await begin(store, session, result), "a1")
    await end_incomplete(store, await begin(store, session, "q2"), "cancelled", "par")
    await store.end_turn(await begin(store, session, "q3"), TurnEnd("incomplete", "failed", receipt=receipt))
    await store.update_session("ada", session, "Title", {"team": "blue"})


class ImportContract:
    """Exports of accounts, and their imports."""

    async def test_round_trip(self, store: Store, second: Store, clock: Clock) -> None:
        """An export that another account of the same database imports is exported unchanged, and continues alike."""
        await _rich_session(store, "s1")
        clock.advance(60)
        await converse(store, "s2", "q", "a", new=True)
        exported = await _exported(store)
        counts = await _import(second, exported)
        assert (2, 0) == (counts.imported, counts.skipped)
        assert exported == await _exported(store, "bob")
        own = await begin(store, "s1", "next")
        imported = await begin(second, chosen_key("bob", "s1"), "next", account="bob")
        assert (own.number, own.history) == (imported.number, imported.history)
        assert ["be brief", "q1", "", "done", "a1"] == texts(imported.history)

    async def test_fork_of_an_odd_id(self, store: Store) -> None:
        """The origin of a fork keeps its id through an import, also one that looks like a key of the store."""
        odd = chosen_key("ada", "~x~y")
        turn = await store.begin_turn(TurnBegin("ada", "m", odd, False, [message("user", "q")], may_create=True), 10)
        await complete(store, turn, "a")
        await store.fork_session("ada", odd, "fork", None)
        await _import(store, await _exported(store))
        assert await _exported(store) == await _exported(store, "bob")

    async def test_known_sessions_are_skipped(self, store: Store) -> None:
        """A repeated import, also into the account of the export, adds nothing and changes nothing."""
        await converse(store, "s", "q", "a", new=True)
        exported = await _exported(store)
        for account, expected in (("ada", (0, 1)), ("bob", (1, 0)), ("bob", (0, 1))):
            counts = await _import(store, exported, account)
            assert expected == (counts.imported, counts.skipped), account
        assert exported == await _exported(store)

    async def test_running_turn(self, store: Store) -> None:
        """A turn that was in progress at the export is incomplete after the import, and the session is free."""
        await begin(store, "s", "q", new=True)
        await _import(store, await _exported(store))
        assert [("incomplete", "crashed")] == [
            (line["state"], line["reason"]) for line in await _exported(store, "bob") if "role" in line
        ]
        assert 2 == (await begin(store, chosen_key("bob", "s"), "next", account="bob")).number

    async def test_imported_words_are_found(self, store: Store, clock: Clock) -> None:
        """A search finds imported sessions that are older than those of the latest search."""
        await converse(store, "s", "apple", "a", new=True)
        exported = await _exported(store)
        clock.advance(3600)
        assert await store.index_sessions("bob")
        await _import(store, exported)
        assert await store.index_sessions("bob")
        chosen = SessionFilter(query="apple")
        assert 1 == len((await store.list_sessions("bob", chosen, page_size=9, page_token=None))[0])

    async def test_limits(self, store: Store) -> None:
        """An import counts against the limits of the account: sessions that fit are stored, and the next one fails."""
        for number in range(3):
            await converse(store, f"s{number}", "q", "a", new=True)
        with pytest.raises(StorageLimitExceeded):
            await _import(store, await _exported(store), storage=StorageLimits(sessions=2))
        assert 2 == len([line for line in await _exported(store, "bob") if "role" not in line])

    @pytest.mark.parametrize(
        "more",
        [
            {"metadata": {str(number): "x" * 512 for number in range(3)}},
            {"usage": {"prompt_tokens": 1, "odd": "x" * 1500}},
            {"receipt": {"attempts": [{"backend": "x" * 1500}]}},
        ],
    )
    async def test_all_that_a_caller_writes_is_counted(self, store: Store, more: dict[str, Any]) -> None:
        """Metadata, usage and receipts of an import count against the limits, of the account and of the session."""
        for limits in (StorageLimits(bytes=1000), StorageLimits(session_bytes=1000)):
            with pytest.raises(StorageLimitExceeded):
                await _import(store, [_SESSION, _MESSAGE | more], storage=limits)
        await _import(store, [_SESSION, _MESSAGE | more], storage=StorageLimits(bytes=2000))
        with pytest.raises(StorageLimitExceeded):
            await _import(store, [_SESSION | {"id": "t"}, _MESSAGE | more], storage=StorageLimits(bytes=2000))

    async def test_byte_order_mark(self, store: Store) -> None:
        """A file that an editor has saved with a byte order mark and other line ends is imported."""
        counts = Counts()
        text = "\ufeff" + "\r\n".join(map(json.dumps, [_SESSION, _MESSAGE]))
        lines_sent = text.encode().splitlines(keepends=True)
        await import_sessions(store, Caller("bob", "key"), lines_sent, UNLIMITED_STORAGE, counts)
        assert ["q"] == [line["content"] for line in await _exported(store, "bob") if "role" in line]

    async def test_cut_file(self, store: Store) -> None:
        """A file that ends before the last turn of a session is refused; the complete one is imported afterwards."""
        await converse(store, "s1", "q", "a", new=True)
        for number in range(3):
            await converse(store, "s2", f"q{number}", "a", new=number == 0)
        exported = await _exported(store)
        session = 1 + max(place for place, line in enumerate(exported) if "role" not in line)
        for kept in range(session, len(exported) - 2):
            with pytest.raises(InvalidRequest, match=f"Line {session}.*lines end with turn"):
                await _import(store, exported[:kept])
        await _import(store, exported)
        assert exported == await _exported(store, "bob")

    async def test_sessions_that_begin_or_go_on_during_an_export(
        self, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An export reads page by page, has each earlier session once, with turns of meanwhile, and has an end."""
        monkeypatch.setattr(account_export, "_PAGE_SIZE", 2)
        for number in range(6):
            await converse(store, f"s{number}", "q", "a", new=True)
            clock.advance(1)
        found: list[Any] = []
        async for line in lines(store, "ada", SessionFilter()):
            found.append(json.loads(line))
            clock.advance(1)
            if len(found) < 40:
                await converse(store, f"later{len(found)}", "q", "a", new=True)
            if len(found) == 2:
                await converse(store, "s0", "moved", "a")
                await converse(store, "s5", "moved", "a")
        assert {f"s{number}" for number in range(6)} == {line["id"] for line in found if "role" not in line}
        assert 6 == len([line for line in found if "role" not in line])
        assert "moved" in [line.get("content") for line in found], "the turn of the one that was not read before"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ({"role": "user", "content": "q", "turn": 1, "state": "done"}, "`state`"),
            ({"role": "user", "content": "q", "turn": 0, "state": "completed"}, "`turn`"),
            ({"role": "user", "turn": "x", "state": "completed"}, "`turn` has a wrong type"),
            ({"object": "chat.session", "id": "é", "model": "m"}, "printable ASCII"),
            ({"object": "chat.session", "id": "x", "model": "m", "colour": 1}, "`colour` is unknown"),
            ([1], "JSON object"),
        ],
    )
    async def test_invalid_line(self, store: Store, line: Any, reason: str) -> None:
        """An invalid line is named with its number; a session that it belongs to is not stored."""
        session = {"object": "chat.session", "id": "s", "model": "m", "created": 1, "updated": 1}
        with pytest.raises(InvalidRequest, match=f"Line 2.*{reason}"):
            await _import(store, [session, line])
        before = int(isinstance(line, dict) and "role" not in line)
        assert before == len(await _exported(store, "bob"))

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (_SESSION | {"title": "x" * 513}, "`title`"),
            (_SESSION | {"title": "\0"}, "`title`"),
            (_SESSION | {"model": "a\0b"}, "`model`"),
            (_SESSION | {"model": "m" * 257}, "`model`"),
            (_SESSION | {"forked_from": "\0"}, "`forked_from`"),
            (_SESSION | {"labels": {f"l{number}": "" for number in range(10_000)}}, "labels"),
            (_SESSION | {"labels": {"": "x"}}, "labels"),
            (_SESSION | {"labels": {"a": "x" * 513}}, "labels"),
            (_SESSION | {"labels": {"a": "\0"}}, "labels"),
            (_SESSION | {"labels": {"a": 1}}, "`labels` has a wrong type"),
            (_SESSION | {"title": "\ud800"}, "`title` has a wrong type"),
            (_SESSION | {"created": float("inf")}, "JSON object"),
            (_MESSAGE | {"odd": "\ud800"}, "`message` has a wrong type"),
            (_MESSAGE | {"odd": json.loads("[" * 200 + "]" * 200)}, "nested too deeply"),
            (_MESSAGE | {"content": json.loads("[" * 200 + "]" * 200)}, "nested too deeply"),
            (_MESSAGE | {"reason": "\0"}, "`reason`"),
            (_MESSAGE | {"role": "\0"}, "`role`"),
            (_MESSAGE | {"metadata": {"a": 1}}, "`metadata` has a wrong type"),
            (_MESSAGE | {"metadata": {f"l{number}": "" for number in range(17)}}, "`metadata` may have at most 16"),
            (_MESSAGE | {"metadata": {"a": "x" * 513}}, "`metadata` may have at most 16"),
            (_MESSAGE | {"metadata": {"a" * 65: "x"}}, "`metadata` may have at most 16"),
            (_MESSAGE | {"usage": {"prompt_tokens": 1, "odd": "x" * 70_000}}, "64 KiB"),
            (_MESSAGE | {"receipt": {"attempts": [{"backend": "x" * 70_000}]}}, "64 KiB"),
            (_MESSAGE | {"receipt": {"attempts": [{"colour": 1}]}}, "`receipt` has a wrong type"),
            ({"message": "text", "turn": 1, "state": "completed"}, "`message` has a wrong type"),
        ],
    )
    async def test_hostile_line(self, store: Store, line: dict[str, Any], reason: str) -> None:
        """A line with values that other calls would refuse is refused with its number."""
        exported = [_SESSION, line] if line.keys() >= {"turn"} else [line]
        with pytest.raises(InvalidRequest, match=f"Line {len(exported)}.*{reason}"):
            await _import(store, exported)
        assert [] == await _exported(store, "bob")

    async def test_exact_json(self, store: Store) -> None:
        """Large numbers, the order of keys and unknown fields with the names of a turn's survive unchanged."""
        part = {"type": "text", "text": "q", "z": 9007199254740993, "a": {"y": 1.50, "b": [12345678901234567890123]}}
        kept = {"metadata": {"n": 1}, "turn": "x", "state": None, "deep": json.loads("[" * 60 + "]" * 60)}
        lines_sent = [
            _SESSION,
            _MESSAGE | {"content": [part], "note": {"z": 18446744073709551616, "a": 1}},
            {"message": {"role": "assistant", "content": "a", **kept}, "turn": 1, "state": "completed", "created": 1},
        ]
        await _import(store, lines_sent)
        found = [line async for line in lines(store, "bob", SessionFilter())]
        sent = [json.dumps(line, separators=(",", ":")) for line in (part, lines_sent[1]["note"], kept)]
        for expected, line in zip(sent, (found[1], found[1], found[2]), strict=True):
            assert expected.strip("{}") in line.decode()
