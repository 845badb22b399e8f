"""Sessions of callers' own: their ids, titles, labels, searches, added messages, exports and imports."""

import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import ParseDict

from parley.core.offload import LARGE_BYTES
from parley.rpc import validation
from parley.v1 import sessions_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.keys import create_key
from tests.rpc.calling import chat_request, with_key
from tests.rpc.conftest import CONFIG, Worker, serving

_CONFIG = CONFIG.replace(
    "default_model", "  - {id: own, targets: [{backend: scripted}], sessions: {mode: auto, ids: caller}}\ndefault_model"
)
_UUIDS = ("0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10", "6f1c0a3e-55aa-4c1e-9d0e-0a1b2c3d4e5f")


@dataclass
class Service:
    """The stubs, and the metadata of callers by account."""

    worker: Worker
    chat: Any
    sessions: Any

    def caller(self, account: str = "ada") -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a caller."""
        return (("authorization", f"Bearer {self.worker.keys[account]}"),)

    async def say(self, session_id: str, text: str, account: str = "ada", model: str = "own") -> Any:
        """Makes a turn."""
        request = chat_request(text, model=model, chatSessionId=session_id)
        return await self.chat.CreateChatCompletion(request, metadata=self.caller(account))

    async def call(self, method: str, account: str = "ada", /, **fields: Any) -> Any:
        """Calls a method of the sessions; the fields are those of the JSON."""
        kind = getattr(messages, f"{method}Request")
        return await getattr(self.sessions, method)(ParseDict(fields, kind()), metadata=self.caller(account))

    async def texts(self, session_id: str, account: str = "ada") -> list[tuple[int, str]]:
        """Returns the turn and the text of every message."""
        found = await self.call("ListSessionMessages", account, chatSessionId=session_id)
        return [(one.turn, one.message.content.string_value) for one in found.messages]

    async def exported(self, account: str = "ada") -> bytes:
        """Returns the export of an account."""
        stream = self.sessions.ExportSessions(messages.ExportSessionsRequest(), metadata=self.caller(account))
        return b"".join([part.data async for part in stream])


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A worker with a model whose callers choose ids."""
    async with serving(tmp_path, _CONFIG) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        yield Service(worker, ChatCompletionsStub(channel), SessionsStub(channel))


async def _failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("session_id", ["order 4711/2", *_UUIDS, "~x~", "a" * 128])
async def test_an_id_of_the_caller_names_a_session_of_its_account(service: Service, session_id: str) -> None:
    """The first use creates the session, later ones continue it, and every method knows it by that id."""
    for account in ("ada", "bob"):
        answers = [await service.say(session_id, f"{account} {number}", account) for number in (1, 2)]
        assert [session_id] * 2 == [answer.session_id for answer in answers]
    assert [1, 3] * 2 == [len(call.request.messages) for call in service.worker.backend.calls]
    for account in ("ada", "bob"):
        session = await service.call("GetSession", account, chatSessionId=session_id)
        assert (session_id, 2) == (session.id, session.turn_count)
        assert [session_id] == [one.id for one in (await service.call("ListSessions", account)).sessions]
        texts = await service.texts(session_id, account)
        assert [(1, f"{account} 1"), (2, f"{account} 2")] == texts[::2]
    fork = await service.call("ForkSession", chatSessionId=session_id)
    assert session_id == fork.forked_from
    await service.call("DeleteSession", chatSessionId=session_id)
    code, message = await _failure(service.call("GetSession", chatSessionId=session_id))
    assert (grpc.StatusCode.NOT_FOUND, f'Unknown session "{session_id}"') == (code, message)
    assert 2 == (await service.call("GetSession", "bob", chatSessionId=session_id)).turn_count
    assert 2 == (await service.call("GetSession", chatSessionId=fork.id)).turn_count


@pytest.mark.parametrize("session_id", ["é", "a\tb", " a", "a ", "a" * 129])
async def test_other_ids_are_refused(service: Service, session_id: str) -> None:
    """An id that is not 1 to 128 printable ASCII characters names `chatSessionId`, and creates nothing."""
    code, message = await _failure(service.say(session_id, "q"))
    assert grpc.StatusCode.INVALID_ARGUMENT == code
    assert "`chatSessionId` must have 1 to 128 printable ASCII characters" in message
    assert not (await service.call("ListSessions")).sessions


async def test_other_models_create_no_session(service: Service) -> None:
    """For a model without `ids: caller` an unknown id is an error."""
    assert grpc.StatusCode.NOT_FOUND == (await _failure(service.say("mine", "q", model="kept")))[0]


async def test_generated_ids_continue_with_models_of_own_ids(service: Service) -> None:
    """A request without an id creates a session with a generated one, which a later request continues."""
    made = await service.chat.CreateChatCompletion(chat_request("one", model="own"), metadata=service.caller())
    again = await service.say(made.session_id, "two")
    assert made.session_id == again.session_id
    assert 2 == (await service.call("GetSession", chatSessionId=made.session_id)).turn_count


async def test_titles_labels_and_searches(service: Service) -> None:
    """A session is found by its title, its labels and its words, and a list without a match is empty."""
    await service.say("a", "Where is my refund?")
    await service.say("b", "Hello there")
    changed = await service.call("UpdateSession", chatSessionId="a", title="Order", labels={"team": "blue", "x": None})
    assert ("a", "Order", {"team": "blue"}) == (changed.id, changed.title, dict(changed.labels))
    for fields, expected in (
        ({"query": "REFUND"}, ["a"]),
        ({"query": "hel*"}, ["b", "a"]),  # the model answers `Hello`
        ({"query": "order"}, ["a"]),
        ({"labels": ["team=blue"]}, ["a"]),
        ({"labels": ["team"], "query": "there"}, []),
    ):
        found = await service.call("ListSessions", **fields)
        assert expected == [session.id for session in found.sessions], fields
        assert not found.HasField("incomplete")


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("UpdateSession", {}, "must have a `title` or `labels`"),
        ("UpdateSession", {"title": "x" * 513}, "`title` may have at most 512"),
        ("UpdateSession", {"labels": {"a=b": "c"}}, "names of `labels`"),
        ("UpdateSession", {"labels": {"a": 1}}, "must be strings, or null"),
        ("UpdateSession", {"labels": dict.fromkeys(map(str, range(10_000)), "x")}, "`labels` may have at most 64"),
        ("UpdateSession", {"labels": dict.fromkeys(map(str, range(17)), "x")}, "at most 16 labels"),
        ("UpdateSession", {"labels": {"a": "\0"}}, "values of `labels`"),
        ("UpdateSession", {"title": "\0"}, "`title` may have"),
        ("ListSessions", {"labels": ["=x"]}, "`labels` must be"),
        ("ListSessions", {"labels": [f"l{number}" for number in range(10_000)]}, "`labels` may have at most 16"),
        ("ListSessions", {"labels": ["a=1", "a=2"]}, "two values for one name: a"),
        ("ListSessions", {"query": "x" * 1025}, "`query` may have at most 1024"),
        ("ListSessions", {"query": '" * - ( )'}, "`query` must have"),
        ("ListSessions", {"query": "?"}, "`query` must have"),
        ("AddSessionMessages", {"messages": []}, "`messages` must be a non-empty array"),
        ("AddSessionMessages", {"messages": [{"role": "robot", "content": "q"}]}, "messages[0].role"),
    ],
)
async def test_invalid_fields_are_named(service: Service, method: str, fields: dict[str, Any], expected: str) -> None:
    """A wrong title, label, query or message is INVALID_ARGUMENT with its name."""
    await service.say("s", "q")
    session = {} if method == "ListSessions" else {"chatSessionId": "s"}
    code, message = await _failure(service.call(method, **session, **fields))
    assert grpc.StatusCode.INVALID_ARGUMENT == code
    assert expected in message


async def test_added_messages_are_history(service: Service) -> None:
    """Added messages are a completed turn, no model is asked, and the next turn has them before its own messages."""
    added = [{"role": "user", "content": "By phone"}]
    answer = await service.call("AddSessionMessages", chatSessionId="s", messages=added, model="own")
    assert ("s", "chat.session.messages", 1) == (answer.session_id, answer.object, answer.turn)
    answer = await service.call("AddSessionMessages", chatSessionId="s", messages=added, metadata={"by": "ann"})
    assert (2, []) == (answer.turn, service.worker.backend.calls)
    await service.say("s", "next")
    (call,) = service.worker.backend.calls
    assert ["By phone", "By phone", "next"] == [one.content.string_value for one in call.request.messages]
    found = await service.call("ListSessionMessages", chatSessionId="s")
    assert {"by": "ann"} == dict(found.messages[1].metadata)
    assert ["completed"] * 2 == [one.state for one in found.messages[:2]]


async def test_large_added_messages_do_not_hold_up_other_calls(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large messages are validated in a thread, as those of a completion are."""
    threads: list[int] = []
    validate = validation.validate

    def recording(*args: Any, **options: Any) -> None:
        threads.append(threading.get_ident())
        validate(*args, **options)

    monkeypatch.setattr(validation, "validate", recording)
    for text in ("q", "q" * LARGE_BYTES):
        added = [{"role": "user", "content": text}]
        await service.call("AddSessionMessages", chatSessionId="s", model="own", messages=added)
    assert [True, False] == [thread == threading.get_ident() for thread in threads]


async def test_added_messages_keep_the_order_of_keys(service: Service) -> None:
    """Unknown fields of a message and of a part that are Structs are stored in the order of the request's bytes."""
    names = [f"k{number:02}" for number in range(40)]
    added = {
        "role": "user",
        "parts": [{"text": "q", "extra": dict.fromkeys(names, 1)}],
        "extra": dict.fromkeys(names, 2),
    }
    fields = {"chatSessionId": "s", "model": "own", "messages": [added]}
    sent = ParseDict(fields, messages.AddSessionMessagesRequest()).SerializeToString(deterministic=True)  # sorted keys
    async with grpc.aio.insecure_channel(service.worker.address) as channel:
        call: Any = channel.unary_unary("/parley.v1.Sessions/AddSessionMessages")
        await call(sent, metadata=service.caller())
    line = json.loads((await service.exported()).splitlines()[1])
    assert names == [name for name in line["content"][0] if name in names]
    assert names == [name for name in line if name in names]


async def test_messages_are_added_once_per_key(service: Service) -> None:
    """A repeated call with an `Idempotency-Key` gets the first answer; another request with it fails."""
    request = ParseDict(
        {"chatSessionId": "s", "model": "own", "messages": [{"role": "user", "content": "q"}]},
        messages.AddSessionMessagesRequest(),
    )
    metadata = with_key(service.caller(), "k")
    answers = [await service.sessions.AddSessionMessages(request, metadata=metadata) for _ in range(2)]
    assert answers[0] == answers[1]
    assert [(1, "q")] == await service.texts("s")
    request.messages[0].content.string_value = "other"
    code, _ = await _failure(service.sessions.AddSessionMessages(request, metadata=metadata))
    assert grpc.StatusCode.FAILED_PRECONDITION == code


async def test_messages_for_no_session(service: Service) -> None:
    """An unknown id without a model, or with one that generates ids, adds nothing."""
    fields = {"chatSessionId": "s", "messages": [{"role": "user", "content": "q"}]}
    for more in ({}, {"model": "kept"}, {"model": "none"}):
        code, _ = await _failure(service.call("AddSessionMessages", **fields, **more))
        assert grpc.StatusCode.NOT_FOUND == code, more
    assert not (await service.call("ListSessions")).sessions


async def test_export_and_import_of_an_account(service: Service) -> None:
    """What one account exports, another imports; a second import skips all."""
    await service.say("s", "one")
    made = await service.chat.CreateChatCompletion(chat_request("two", model="kept"), metadata=service.caller())
    exported = await service.exported()
    lines = [json.loads(line) for line in exported.splitlines()]
    assert {"s", made.session_id} == {line["id"] for line in lines if line.get("object") == "chat.session"}
    for expected in ((2, 0), (0, 2)):
        request = messages.ImportSessionsRequest(body=HttpBody(content_type="application/jsonl", data=exported))
        result = await service.sessions.ImportSessions(request, metadata=service.caller("bob"))
        assert expected == (result.imported, result.skipped)
    assert sorted(exported.splitlines()) == sorted((await service.exported("bob")).splitlines())
    await service.say("s", "next", "bob")
    assert 2 == (await service.call("GetSession", "bob", chatSessionId="s")).turn_count


async def test_a_limited_key_exports_and_imports_its_models(service: Service) -> None:
    """A key that is limited to models exports the sessions of those, and imports no others."""
    for model in ("kept", "once"):
        await service.chat.CreateChatCompletion(chat_request("q", model=model), metadata=service.caller("ada"))
    exported = await service.exported("ada")
    request = messages.ImportSessionsRequest(body=HttpBody(data=exported))
    code, message = await _failure(service.sessions.ImportSessions(request, metadata=service.caller("tim")))
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (code, 'may not use the model "once"' in message)
    assert b'"once"' not in await service.exported("tim")


async def test_a_limited_key_learns_of_no_session_of_other_models(tmp_path: Path) -> None:
    """A limited key that adds messages to a session of another model gets an unknown session, not that model's name."""
    config = _CONFIG.replace("id: kept", "id: kept, sessions: {ids: caller}", 1)
    async with serving(tmp_path, config) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        service = Service(worker, ChatCompletionsStub(channel), SessionsStub(channel))
        _, worker.keys["unlimited"] = await create_key(worker.store, "all", "tim")
        await service.say("s", "one", "unlimited")
        added = {"chatSessionId": "s", "messages": [{"role": "user", "content": "q"}], "model": "kept"}
        found = await _failure(service.call("AddSessionMessages", "tim", **added))
    assert (grpc.StatusCode.NOT_FOUND, 'Unknown session "s"') == found
