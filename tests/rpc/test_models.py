"""Models that requests name by wildcards and aliases, and what is listed of them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from parley.config import Metadata
from parley.core.errors import UpstreamMisconfigured
from parley.core.ports import UsageQuery
from parley.v1 import models_pb2 as messages
from parley.v1 import sessions_pb2
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.keys import create_key
from tests.rpc.calling import chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import chunks, completion

_LAST_DAY = datetime.now(UTC).date() + timedelta(days=1)
CONFIG = f"""
backends: {{scripted: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
models:
  - {{id: "wild/*", targets: [{{backend: scripted, model: "*"}}]}}
  - id: described
    targets: [{{backend: scripted, model: one}}]
    aliases: [{{id: kept, retires: {_LAST_DAY}}}, {{id: gone, retires: 2020-01-31}}]
    metadata:
      name: One
      owner: example
      context_length: 128k
      max_output: 4096
      modalities: [text, image]
      tools: true
      reasoning: true
prices:
  scripted/priced: {{prompt: 1, completion: 1}}
  scripted/one: {{prompt: 0.25, completion: 2, cached_prompt: 0.025}}
"""


class _Caller:
    """Calls the server with the keys of an account."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel) -> None:
        self.worker = worker
        self._stubs: list[Any] = [stub(channel) for stub in (ChatCompletionsStub, ModelsStub, SessionsStub)]
        self._secret = worker.keys["ada"]

    async def use_key(self, *models: str) -> None:
        """Makes further calls with a key that may use these models."""
        _, self._secret = await create_key(self.worker.store, "limited", "ada", None, models)

    @property
    def _metadata(self) -> Any:
        return (("authorization", f"Bearer {self._secret}"),)

    async def chat(self, model: str | None, **more: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the answer and its headers."""
        fields = more if model is None else {"model": model, **more}
        call = self._stubs[0].CreateChatCompletion(chat_request(**fields), metadata=self._metadata)
        return await call, dict(await call.initial_metadata())

    async def stream(self, model: str) -> dict[str, Any]:
        """Reads a stream; returns its headers."""
        self.worker.backend.answer = lambda _: chunks("Hello")
        call = self._stubs[0].StreamChatCompletion(chat_request(model=model), metadata=self._metadata)
        assert [chunk async for chunk in call]
        return dict(await call.initial_metadata())

    async def models(self) -> list[Any]:
        """Returns the list of models."""
        return list((await self._stubs[1].ListModels(messages.ListModelsRequest(), metadata=self._metadata)).data)

    async def model(self, name: str) -> Any:
        """Returns a model."""
        return await self._stubs[1].GetModel(messages.GetModelRequest(model=name), metadata=self._metadata)

    async def sessions(self, model: str | None = None) -> list[str]:
        """Returns the models of the sessions that the key may read, of one model or of all."""
        request = sessions_pb2.ListSessionsRequest(model=model)
        found = await self._stubs[2].ListSessions(request, metadata=self._metadata)
        return [session.model for session in found.sessions]

    async def add(self, model: str | None, session_id: str) -> None:
        """Adds a message to a session."""
        request = sessions_pb2.AddSessionMessagesRequest(session_id=session_id, model=model or "")
        request.messages.add(role="user").content.string_value = "Note"
        await self._stubs[2].AddSessionMessages(request, metadata=self._metadata)


@pytest.fixture
async def caller(tmp_path: Path, log_file: Path) -> AsyncIterator[_Caller]:
    """A caller of the running server."""
    async with serving(tmp_path, CONFIG) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        yield _Caller(worker, channel)


async def test_a_model_is_listed_with_what_is_known_of_it(caller: _Caller) -> None:
    """The forms are those of OpenRouter and vLLM, which chat interfaces read; prices are those of one token."""
    found = MessageToDict(await caller.model("described"), preserving_proto_field_name=True)
    expected = {
        "id": "described",
        "object": "model",
        "owned_by": "example",
        "name": "One",
        "context_length": 128000,
        "max_model_len": 128000,
        "top_provider": {"context_length": 128000, "max_completion_tokens": 4096},
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "supported_parameters": ["tools", "tool_choice", "reasoning", "reasoning_effort"],
        "pricing": {"prompt": "0.00000025", "completion": "0.000002", "input_cache_read": "0.000000025"},
        "aliases": [{"id": "kept", "retires": str(_LAST_DAY)}],
    }
    assert expected == {name: value for name, value in found.items() if name != "created"}


async def test_a_model_of_which_nothing_is_known_has_the_fields_of_openai(caller: _Caller) -> None:
    """A name of a wildcard can be read, and belongs to the wildcard's backend."""
    found = MessageToDict(await caller.model("wild/some-model"), preserving_proto_field_name=True)
    assert {"id": "wild/some-model", "object": "model", "owned_by": "scripted"} == {
        name: value for name, value in found.items() if name != "created"
    }


async def test_the_names_of_a_backend_s_list_are_listed_with_its_metadata(caller: _Caller) -> None:
    """The list stands in place of the wildcard."""
    assert ["wild/*", "described"] == [model.id for model in await caller.models()]
    assert "wild/*" == (await caller.model("wild/*")).id
    caller.worker.router.listed("scripted", {"small": Metadata(context_length=8, owner="vendor")})
    small, _ = await caller.models()
    assert ("wild/small", 8, "vendor") == (small.id, small.context_length, small.owned_by)


async def test_a_session_belongs_to_the_name_that_was_requested(caller: _Caller) -> None:
    """The answer, the session and the receipt have the name; usage is counted for the wildcard."""
    answer, headers = await caller.chat("wild/qwen")
    session_id = headers["x-chat-session-id"]
    assert "wild/qwen" == answer.model
    again, _ = await caller.chat(None, chatSessionId=session_id)
    assert ("wild/qwen", "qwen") == (again.model, caller.worker.backend.calls[-1].model)
    with pytest.raises(grpc.aio.AioRpcError, match='belongs to the model "wild/qwen"'):
        await caller.chat("wild/other", chatSessionId=session_id)
    await caller.chat("described")
    await caller.use_key("wild/*")
    assert ["wild/qwen"] == await caller.sessions()
    await caller.use_key("wild/other")
    assert [] == await caller.sessions()
    query = UsageQuery(group=("model", "target"))
    async with asyncio.timeout(30):
        while len(rows := await caller.worker.store.usage(query)) < 3:
            await asyncio.sleep(0.02)
    expected = {("wild/*", "scripted/*"), ("wild/*", ""), ("described", "scripted/one")}
    assert expected == {row.group for row in rows}


async def test_usage_has_the_names_that_callers_did_not_choose(caller: _Caller) -> None:
    """Those of the backend's own list and those with a price are counted by name, all others as the wildcard."""
    caller.worker.router.listed("scripted", {"listed": Metadata()})
    for name in ("listed", "priced", "chosen"):
        await caller.chat(f"wild/{name}")
    query = UsageQuery(group=("model", "target"))
    async with asyncio.timeout(30):
        while len(rows := await caller.worker.store.usage(query)) < 3:
            await asyncio.sleep(0.02)
    assert {
        ("wild/listed", "scripted/listed"),
        ("wild/priced", "scripted/priced"),
        ("wild/*", "scripted/*"),
    } == {row.group for row in rows}


async def test_a_name_that_the_vendor_does_not_know_is_not_found(caller: _Caller) -> None:
    """The caller has chosen the name, so the error is the caller's, as for any unknown model."""
    caller.worker.backend.answer = lambda _: UpstreamMisconfigured("no", cause="HTTP 404: no such model")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.chat("wild/typo")
    assert (grpc.StatusCode.NOT_FOUND, 'Unknown model "wild/typo"') == (raised.value.code(), raised.value.details())


async def test_an_alias_is_announced_with_its_last_day(caller: _Caller) -> None:
    """The answer is that of the model, and a header has the day and the id to use. Then the alias is unknown."""
    answer, headers = await caller.chat("kept")
    assert ("described", f'{_LAST_DAY}; use="described"') == (answer.model, headers["x-parley-deprecated"])
    assert headers["x-parley-deprecated"] == (await caller.stream("kept"))["x-parley-deprecated"]
    caller.worker.backend.answer = lambda _: completion("Hello")
    _, headers = await caller.chat("described")
    assert "x-parley-deprecated" not in headers
    with pytest.raises(grpc.aio.AioRpcError, match='"gone" has retired on 2020-01-31; use "described"'):
        await caller.chat("gone")


async def test_the_sessions_of_a_model_survive_its_new_name(tmp_path: Path, log_file: Path) -> None:
    """A session of an id that is an alias now is continued under both ids, also with a key of the old one."""
    before = CONFIG[: CONFIG.index("  - id: described")] + "  - {id: kept, targets: [{backend: scripted}]}\n"
    async with serving(tmp_path, before) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        caller = _Caller(worker, channel)
        await caller.use_key("kept")
        _, headers = await caller.chat("kept")
        secret = caller._secret  # noqa: SLF001 - the same key after the change
    async with serving(tmp_path, CONFIG) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        caller = _Caller(worker, channel)
        caller._secret = secret  # noqa: SLF001
        for model in ("kept", "described", None):
            answer, _ = await caller.chat(model, chatSessionId=headers["x-chat-session-id"])
            assert "described" == answer.model
        assert ["kept"] == await caller.sessions()
        assert 7 == len(worker.backend.calls[-1].request.messages)


_OWN_IDS = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - id: new
    targets: [{backend: scripted}]
    sessions: {mode: auto, ids: caller}
    aliases: [{id: old}]
"""


async def test_callers_choose_ids_of_sessions_under_an_alias_too(tmp_path: Path, log_file: Path) -> None:
    """A session is created at its first use under any id of the model, and continued under all of them."""
    async with serving(tmp_path, _OWN_IDS) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        caller = _Caller(worker, channel)
        for model in ("old", "new"):
            answer, headers = await caller.chat(model, chatSessionId=f"of-{model}")
            assert ("new", f"of-{model}") == (answer.model, headers["x-chat-session-id"])
        for name in ("old", "new", None):
            await caller.add(name, "of-old")
            await caller.chat(name, chatSessionId="of-old")
        await caller.add("old", "added")
        assert 3 * ["new"] == await caller.sessions()
        assert 10 == len(worker.backend.calls[-1].request.messages)


async def test_a_session_of_an_old_id_is_added_to_and_listed_under_the_new_one(tmp_path: Path, log_file: Path) -> None:
    """The session keeps the id that it was stored with, which is no other model."""
    before = _OWN_IDS.replace("id: new", "id: old").replace("    aliases: [{id: old}]\n", "")
    async with serving(tmp_path, before) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        await _Caller(worker, channel).chat("old", chatSessionId="mine")
    async with serving(tmp_path, _OWN_IDS) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        caller = _Caller(worker, channel)
        for model in ("old", "new", None):
            await caller.add(model, "mine")
            await caller.chat(model, chatSessionId="mine")
        assert [["old"], ["old"]] == [await caller.sessions("new"), await caller.sessions("old")]


async def test_a_session_of_an_alias_that_is_removed_names_it(tmp_path: Path, log_file: Path) -> None:
    """The caller learns which model the session has, and can read it; a renamed model without its alias is another."""
    before = _OWN_IDS.replace("id: new", "id: old").replace("    aliases: [{id: old}]\n", "")
    async with serving(tmp_path, before) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        await _Caller(worker, channel).chat("old", chatSessionId="mine")
    after = _OWN_IDS.replace("    aliases: [{id: old}]\n", "")
    async with serving(tmp_path, after) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        caller = _Caller(worker, channel)
        with pytest.raises(grpc.aio.AioRpcError, match='belongs to the model "old"'):
            await caller.chat("new", chatSessionId="mine")
        with pytest.raises(grpc.aio.AioRpcError, match='Unknown model "old"'):
            await caller.chat(None, chatSessionId="mine")
        assert ["old"] == await caller.sessions()
