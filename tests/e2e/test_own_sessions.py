"""Sessions of callers' own through the edge: ids, added messages, labels, searches, and the move to another Parley."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import openai
import pytest
from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.processes import Parley, run_here, started, until
from tests.upstream import ScriptedUpstream, completion

SESSIONS = "/api/v1/sessions"
IMPORT = "/api/v1/account/import"
TICKET = "ticket 4711/a%"
ODD_IDS = (
    "..",
    ".",
    ";",
    "-x",
    "a:b",
    "x/messages",
    "x/../y",
    "a&b=c;d",
    "{id}",
    "*",
    "%2e%2e",
    "%252F",
    "x:stream",
    "export",
    "~",
    "~x~y",
    "a/b",
    "%2F",
    "%",
    "a b",
    ".hidden",
    "a?b#c",
    "+",
    "a+b",
    "[0]",
    '"',
    "\\",
    "a//b",
)
BULK = 300


@pytest.fixture(scope="module")
def parleys(
    the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Parley, Parley]]:
    """Two Parleys with a model whose callers choose ids."""
    file = tmp_path_factory.mktemp("own") / "parley.yaml"
    file.write_text(
        f'backends:\n  up: {{kind: openai, base_url: "{the_upstream.url}"}}\ndefault_model: own\n'
        "models:\n  - {id: own, targets: [{backend: up}], sessions: {mode: auto, ids: caller}}\n"
    )
    with started("--config", str(file)) as one, started("--config", str(file)) as other:
        yield one, other


def _path(session: str) -> str:
    return f"{SESSIONS}/{quote(session, safe='')}"


def _ok(parley: Parley, method: str, path: str, body: Any = None) -> Any:
    status, answer = parley.request(method, path, body)
    assert 200 == status, answer
    return answer


def _found(parley: Parley, key: str | None = None, **filters: str) -> list[str]:
    status, listed = parley.request("GET", f"{SESSIONS}?{urlencode(filters)}", key=key)
    assert (200, None) == (status, listed.get("incomplete")), listed
    return [session["id"] for session in listed["sessions"]]


def _export(parley: Parley) -> bytes:
    with parley.connection() as connection:
        connection.request("GET", "/api/v1/account/export", headers=parley.headers())
        return connection.getresponse().read()


def _import(parley: Parley, lines: bytes) -> tuple[int, Any]:
    with parley.connection() as connection:
        connection.request("POST", IMPORT, lines, parley.headers() | {"Content-Type": "application/jsonl"})
        response = connection.getresponse()
        return response.status, response.read()


def _sent(upstream: ScriptedUpstream) -> list[str]:
    """Returns the contents of the messages in the last request of the upstream."""
    return [message["content"] for message in upstream.requests[-1].json["messages"]]


def test_a_session_of_the_caller_s_own(parleys: tuple[Parley, Parley], upstream: ScriptedUpstream) -> None:
    """A chosen id is created at its first use, found by its words and labels, and continues in another Parley."""
    one, other = parleys
    upstream.answer(completion("A refund?"), completion("Yes"), completion("Hello"), completion("Sent"))
    with openai.OpenAI(base_url=f"{one.http}/v1", api_key=one.key, max_retries=0) as client:
        for question in ("Where is my money?", "Really?"):
            answer = client.chat.completions.with_raw_response.create(
                model="own",
                messages=[{"role": "user", "content": question}],
                extra_headers={"X-Chat-Session-ID": TICKET},
            )
            assert TICKET == answer.headers["x-chat-session-id"]
    assert ["Where is my money?", "A refund?", "Really?"] == _sent(upstream)
    call = {"model": "own", "chatSessionId": "grpc-1", "messages": [{"role": "user", "content": "Hi"}]}
    with grpc.insecure_channel(one.grpc) as channel:
        request = ParseDict(call, CreateChatCompletionRequest())
        metadata = (("authorization", f"Bearer {one.key}"),)
        assert "grpc-1" == ChatCompletionsStub(channel).CreateChatCompletion(request, metadata=metadata).session_id

    note = {"messages": [{"role": "user", "content": "Telefonat: Rückruf erbeten"}]}
    assert 3 == _ok(one, "POST", f"{_path(TICKET)}/messages", note)["turn"]
    assert 3 == len(upstream.requests)
    session = _ok(one, "PATCH", _path(TICKET), {"title": "Geld zurück", "labels": {"team": "blue"}})
    assert ("Geld zurück", {"team": "blue"}) == (session["title"], session["labels"])
    for filters in (
        {"query": "rückruf"},
        {"query": "GELD"},
        {"labels": "team=blue"},
        {"query": "telef*", "labels": "team"},
    ):
        assert [TICKET] == _found(one, **filters), filters
    stranger = (
        "keys",
        "create",
        "--name",
        "s",
        "--account",
        "stranger",
        "--json",
        "--state-dir",
        str(one.folder / "state"),
    )
    assert [] == _found(one, json.loads(run_here(*stranger).stdout)["key"], query="rückruf")

    exported = _export(one)
    status, counts = _import(other, exported)
    assert (200, {"imported": 2, "skipped": 0}) == (status, json.loads(counts))
    assert sorted(exported.splitlines()) == sorted(_export(other).splitlines())
    body = {"model": "own", "chatSessionId": TICKET, "messages": [{"role": "user", "content": "And now?"}]}
    _ok(other, "POST", "/api/v1/chat/completions", body)
    assert ["Where is my money?", "A refund?", "Really?", "Yes", "Telefonat: Rückruf erbeten", "And now?"] == _sent(
        upstream
    )
    assert [TICKET] == _found(other, query="rückruf")
    _ok(other, "DELETE", _path(TICKET))
    assert ([], []) == (_found(other, query="rückruf"), _found(other, query="Geld"))


@pytest.mark.parametrize("session", ODD_IDS)
def test_odd_ids_in_paths(parleys: tuple[Parley, Parley], session: str) -> None:
    """Every printable id is that of its own session in every path, if its reserved characters are encoded."""
    one, _ = parleys
    added = {"model": "own", "messages": [{"role": "user", "content": "Hi"}]}
    assert session == _ok(one, "POST", f"{_path(session)}/messages", added)["chatSessionId"]
    assert session == _ok(one, "GET", _path(session))["id"]
    assert 1 == len(_ok(one, "GET", f"{_path(session)}/messages")["messages"])
    assert session == _ok(one, "PATCH", _path(session), {"title": "t"})["id"]
    assert session == _ok(one, "DELETE", _path(session))["id"]
    assert 404 == one.request("GET", _path(session))[0]


def _bulk() -> bytes:
    session = {"object": "chat.session", "model": "own", "created": 1_900_000_000, "updated": 1_900_000_000}
    turn = {"turn": 1, "state": "completed", "created": 1_900_000_000}
    lines: list[Any] = []
    for number in range(BULK):
        lines += [session | {"id": f"bulk-{number}"}, {"role": "user", "content": f"q{number}"} | turn]
        lines.append({"role": "assistant", "content": f"a{number}"} | turn)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _large_session(session: str, size: int) -> bytes:
    """Returns a session as an export, of about so many bytes."""
    properties = {"object": "chat.session", "id": session, "model": "own", "created": 1795790000, "updated": 1795790000}
    message = {"role": "user", "content": "q" * 900, "turn": 1, "state": "completed", "created": 1795790000}
    line = json.dumps(message).encode() + b"\n"
    return json.dumps(properties).encode() + b"\n" + line * (size // len(line))


@pytest.mark.parametrize("size", [8_400_000, 20_000_000])
def test_an_import_that_is_too_large_is_refused(parleys: tuple[Parley, Parley], size: int) -> None:
    """The edge discards a body that is too large, and does not answer for the rest of it as for an empty import."""
    one, _ = parleys
    status, answer = _import(one, _large_session("too large", size))
    assert (413, b'{"error":"The request body is larger than 8 MiB"}') == (status, answer)
    assert 404 == one.request("GET", _path("too large"))[0]


def test_a_killed_worker_loses_nothing_of_an_import(parleys: tuple[Parley, Parley], tmp_path: Path) -> None:
    """Sessions that an import has stored survive the death of its worker complete, and a repetition adds the rest."""
    _, other = parleys
    bulk = _bulk()

    def stored() -> set[str]:
        status, listed = other.request("GET", f"{SESSIONS}?page_size=500&model=own")
        return {session["id"] for session in listed["sessions"]} if status == 200 else set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_import, other, bulk)
        until(lambda: len(stored()) >= 5, "some sessions are stored")
        before = stored()
        os.kill(other.workers()[0], signal.SIGKILL)
        status, _ = running.result()
    until(stored, "another worker serves")
    assert before <= stored()
    assert status != 200 or BULK == sum(name.startswith("bulk-") for name in stored())
    status, counts = _import(other, bulk)
    assert (200, BULK) == (status, sum(json.loads(counts).values()))
    lines = [json.loads(line) for line in _export(other).splitlines()]
    texts = [line["content"] for line in lines if line.get("content", "")[:1] in ("q", "a")]
    assert sorted(f"{kind}{number}" for kind in "qa" for number in range(BULK)) == sorted(texts)
