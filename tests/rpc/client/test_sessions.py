"""parley-client against the real server: sessions."""

import asyncio
import json
import time
from contextlib import closing
from typing import Any

import pytest

from parley.stores import indexing
from parley.stores.sqlite import search
from parley_client import AsyncClient, Client, NotFoundError, RateLimitError
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks, completion


def test_a_session_continues(worker: Worker, client: Any) -> None:
    """The first turn creates the session; later turns, whole and streamed, send only what is new."""
    session = client.sessions.open(model="kept", temperature=0.5)
    session.create("One")
    first = session.id
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    with session.stream("Two") as stream:
        stream.result()
    worker.backend.answer = lambda _: completion("Hello")
    session.run("Three", [])
    sent = [[one.content.string_value for one in call.request.messages] for call in worker.backend.calls]
    assert ["One", "Hello", "Two", "Hello", "Three"] == sent[-1]
    assert [0.5] * 3 == [call.request.temperature for call in worker.backend.calls]
    assert (first, 3) == (session.id, client.sessions.get(first).turn_count)


def test_a_stream_creates_a_session(worker: Worker, client: Any) -> None:
    """A session whose first turn is a stream has its id as soon as the first chunk has arrived."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    session = client.sessions.open(model="kept")
    with session.stream("One") as stream:
        assert "Hel" == next(iter(stream.text()))
        assert session.id is not None


def test_sessions_are_listed_over_pages(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of sessions and of messages have all pages."""
    for module in ("parley_client.sessions", "parley_client.aio.sessions"):
        monkeypatch.setattr(f"{module}.PAGE_SIZE", 2)
    made = [client.chat.create(f"Question {number}", model="kept").session_id for number in range(5)]
    listed = [session.id for session in client.sessions.list(model="kept")]
    assert list(reversed(made)) == listed[:5]
    assert [] == list(client.sessions.list(updated_before=1))
    client.chat.create("More", session_id=made[0])
    messages = [one.message.content.string_value for one in client.sessions.messages(made[0])]
    assert ["Question 0", "Hello", "More", "Hello"] == messages


def test_a_list_is_closed_before_its_end(worker: Worker) -> None:
    """A closed list reads no further page: it has ended, as a generator."""
    target, key = worker.address, worker.keys["ada"]

    async def read() -> list[str]:
        async with AsyncClient(target, key=key) as client:
            listed = client.sessions.list()
            await anext(listed)
            await listed.aclose()
            return [session.id async for session in listed]

    with Client(target, key=key) as client:
        client.chat.create("Question", model="kept")
        with closing(client.sessions.list()) as listed:
            next(listed)
        assert [] == list(listed)
    assert [] == asyncio.run(read())


def test_a_page_above_the_longest_message_is_read_in_smaller_ones(worker: Worker) -> None:
    """Messages with large content, for example images, are listed whatever the size of a page is in bytes."""
    target, key, options = worker.address, worker.keys["ada"], {"grpc.max_receive_message_length": 10_000}

    async def read(session_id: str) -> list[str]:
        async with AsyncClient(target, key=key, options=options) as client:
            return [one.message.text[:5] async for one in client.sessions.messages(session_id)]

    with Client(target, key=key, options=options) as client:
        session = client.sessions.open(model="kept")
        for number in range(2):
            session.create(f"{number}" * 3000)
        assert session.id is not None
        assert ["00000", "Hello", "11111", "Hello"] == [
            one.message.text[:5] for one in client.sessions.messages(session.id)
        ]
        assert ["00000", "Hello", "11111", "Hello"] == asyncio.run(read(session.id))
        too_large = client.sessions.open(model="kept")
        too_large.create("0" * 10_000)
        with pytest.raises(RateLimitError, match="larger than max"):
            list(client.sessions.messages(too_large.id or ""))


def test_a_session_is_exported_forked_and_deleted(client: Any) -> None:
    """An export has a line for each message; a fork is independent of the deleted original."""
    session = client.sessions.open(model="kept")
    for text in ("One", "Two"):
        session.create(text)
    lines = [json.loads(line) for line in client.sessions.export(session.id)]
    assert ["One", "Hello", "Two", "Hello"] == [line["content"] for line in lines]
    forks = [client.sessions.fork(session.id, through_turn=1, idempotency_key=session.id) for _ in range(2)]
    assert (forks[0].id, 1, session.id) == (forks[1].id, forks[1].turn_count, forks[1].forked_from)
    client.sessions.delete(session.id)
    with pytest.raises(NotFoundError) as caught:
        client.sessions.get(session.id)
    assert "SESSION_NOT_FOUND" == caught.value.reason
    with pytest.raises(NotFoundError):
        list(client.sessions.export(session.id))
    assert 1 == client.sessions.get(forks[0].id).turn_count


def test_sessions_are_changed_found_and_extended(worker: Worker, client: Any) -> None:
    """A session has a title, labels and added messages, and is found by them."""
    made = client.chat.create("Where is my parcel?", model="kept").session_id
    changed = client.sessions.update(made, title="Order 4711", labels={"team": "blue", "draft": "yes"})
    assert ("Order 4711", "yes") == (changed.title, changed.labels["draft"])
    assert {"team": "blue"} == dict(client.sessions.update(made, labels={"draft": None}).labels)
    added = [{"role": "user", "content": "By phone"}, {"role": "assistant", "content": "Noted zebra"}]
    asked = len(worker.backend.calls)
    assert 2 == client.sessions.add_messages(made, added, metadata={"by": "ann"})
    assert asked == len(worker.backend.calls)
    for filters in ({"query": "zebra"}, {"labels": ["team=blue"]}, {"query": "parcel", "labels": ["team"]}):
        assert [made] == [session.id for session in client.sessions.list(**filters)], filters
    client.sessions.delete(made)


def test_an_unfinished_search_says_so(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list knows whether turns remain that its search has not indexed; a repeated search finds them."""
    word = f"quagga{time.time_ns()}"
    list(client.sessions.list(query=word))
    monkeypatch.setattr(indexing, "INDEX_SECONDS", 0.0)
    monkeypatch.setattr(search, "BATCH_TURNS", 1)
    made = [client.chat.create(f"{word} {number}", model="kept").session_id for number in range(3)]
    found = []
    for _ in made:
        listed = client.sessions.list(query=word)
        found.append((len(list(listed)), listed.incomplete))
    assert [(1, True), (2, True), (3, False)] == found


def test_an_account_is_exported_and_imported(client: Any) -> None:
    """All sessions of an account are exported; an import skips those that exist and restores deleted ones."""
    made = client.chat.create("Question", model="kept").session_id
    exported = list(client.sessions.export_all(model="kept"))
    count = sum("role" not in json.loads(line) for line in exported)
    client.sessions.delete(made)
    result = client.sessions.import_all(exported)
    assert (1, count - 1) == (result.imported, result.skipped)
    assert sorted(exported) == sorted(client.sessions.export_all(model="kept"))
    assert "Question" == next(iter(client.sessions.messages(made))).message.content.string_value
