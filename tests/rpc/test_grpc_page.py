"""The tables of docs/grpc.md agree with the service."""

import json
import re
from pathlib import Path
from typing import Any

import grpc

from parley.core.errors import UpstreamUnavailable
from parley.rpc.error_catalogue import EDGE, SERVICE, WORKER_LOST, reason_name
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.error_reason_pb2 import ErrorReason
from tests.pages import ROOT
from tests.rpc.calling import chat_request
from tests.rpc.conftest import serving
from tests.rpc.scripted import completion

PAGE = (ROOT / "docs" / "grpc.md").read_text(encoding="utf-8")
CONFIG = json.dumps(
    {
        "backends": {"scripted": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
        "models": [
            {
                "id": "m",
                "targets": [{"backend": "scripted", "model": "one"}],
                "aliases": [{"id": "old", "retires": "2999-12-31"}],
                "cache": {},
            }
        ],
        "default_model": "m",
        "limits": {"key": {"requests_per_minute": 100, "tokens_per_minute": 10**6}},
    }
)


def rows(first: str) -> list[list[str]]:
    """Returns the cells of the table whose first column has this title."""
    table = PAGE.split(f"\n| {first} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in table]


def names(cell: str) -> list[str]:
    """Returns the names in a cell."""
    return re.findall(r"`([^`]+)`", cell)


async def called(stub: Any, request: Any, *metadata: tuple[str, str]) -> set[str]:
    """Makes a call; returns the names of its initial and trailing metadata."""
    call = stub.CreateChatCompletion(request, metadata=metadata)
    await call.code()
    pairs = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
    return {name for name, _ in pairs}


async def test_the_table_of_answers_names_all_metadata(tmp_path: Path) -> None:
    """Answers, replays and failures together have the metadata of the table and no other."""
    async with serving(tmp_path, CONFIG) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        stub: Any = ChatCompletionsStub(channel)
        key = ("authorization", f"Bearer {worker.keys['ada']}")
        worker.backend.answer = lambda _: completion("Hi")
        request = chat_request()
        seen = await called(stub, request, key, ("idempotency-key", "k"))
        seen |= await called(stub, request, key, ("idempotency-key", "k"))
        seen |= await called(stub, request, key, ("parley-receipt", "json"))
        seen |= await called(stub, chat_request(temperature=3), key)
        seen |= await called(stub, chat_request(model="old"), key)
        worker.backend.answer = lambda _: UpstreamUnavailable("No backend", retry_after=1)
        seen |= await called(stub, request, key)
    assert {name for row in rows("in the answer") for name in names(row[0])} == seen


def test_the_table_of_requests_names_what_the_service_reads() -> None:
    """Each name is one that the code reads."""
    source = "".join(file.read_text() for file in (ROOT / "service" / "parley" / "rpc").rglob("*.py")).lower()
    listed = [name for row in rows("in the request") for name in names(row[0])]
    assert ["authorization", "idempotency-key"] == listed[:2]
    assert [] == [name for name in listed if f'"{name}"' not in source]


def test_the_table_of_errors_has_every_reason_with_its_status() -> None:
    """Each reason, of the service and of the edge, is listed once, with its status and whether a retry may succeed."""
    listed = [
        (reason, (names(status)[0], retry == "yes"))
        for status, reasons, retry, _ in rows("status")
        for reason in names(reasons)
    ]
    errors: list[Any] = [*SERVICE.items()]
    errors += [(error.reason, error) for error in (*EDGE.values(), WORKER_LOST) if error.reason]
    expected = [(reason_name(reason), (error.grpc_status.name, error.should_retry)) for reason, error in errors]
    assert sorted(expected) == sorted(listed)
    assert {*ErrorReason.keys()} == {f"ERROR_REASON_{reason}" for reason, _ in listed} | {"ERROR_REASON_UNSPECIFIED"}
