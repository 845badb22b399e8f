"""Sessions of other accounts, and of models that a key may not use: indistinguishable from sessions that do not exist.

The calls are generated from the API document (REST) and the descriptors (gRPC), so that a new method is covered.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from parley.v1 import chat_completions_pb2, models_pb2, sessions_pb2
from tests.processes import Parley, run_here
from tests.upstream import ScriptedUpstream

UNKNOWN = "01890000-0000-7000-8000-000000000000"
MESSAGES = [{"role": "user", "content": "Hi"}]
FIELDS: dict[str, Any] = {"messages": MESSAGES, "title": "Mine"}
_DOCUMENT = json.loads(Path("edge/openapi.json").read_text(encoding="utf-8"))
_VARIABLE_HEADERS = ("date", "x-request-id", "x-correlation-id", "parley-processing-ms", "openai-processing-ms")


@dataclass(frozen=True, slots=True)
class Strangers:
    """A session, and the keys that may not use it: of another account, and of the same account for another model."""

    session: str
    keys: dict[str, str]


def _services() -> Iterator[ServiceDescriptor]:
    for module in (chat_completions_pb2, models_pb2, sessions_pb2):
        yield from module.DESCRIPTOR.services_by_name.values()


GRPC_METHODS = [
    method for service in _services() for method in service.methods if "session_id" in method.input_type.fields_by_name
]
REST_CALLS = [
    (verb, path)
    for path, operations in _DOCUMENT["paths"].items()
    for verb in operations
    if "{session_id}" in path or path.endswith("/chat/completions")
]


def _new_key(stack: Parley, account: str, *options: str) -> str:
    command = (
        "keys",
        "create",
        "--name",
        "stranger",
        "--account",
        account,
        "--json",
        "--state-dir",
        str(stack.folder / "state"),
    )
    return str(json.loads(run_here(*command, *options).stdout)["key"])


@pytest.fixture(scope="module")
def strangers(stack: Parley, client: openai.OpenAI, the_upstream: ScriptedUpstream) -> Strangers:
    """A session of the first key's account and of the model `scripted`."""
    the_upstream.reset()
    made = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "Hi"}], extra_body={"store": True}
    )
    keys = {"account": _new_key(stack, "stranger"), "model": _new_key(stack, "default", "--model", "smollm2")}
    return Strangers(str(made.model_extra["chatSessionId"]), keys)  # type: ignore[index]


def _masked(text: str, session: str) -> str:
    return re.sub(r'"[^"]*(?:request|correlation)[^"]*": ?"[^"]*"', "", text.replace(session, "SESSION"))


def _body(operation: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a body with the fields that an operation needs; None if it needs no body."""
    if not operation.get("requestBody", {}).get("required"):
        return None
    fields = operation["requestBody"]["content"]["application/json"]["schema"].get("properties", ())
    return {name: value for name, value in FIELDS.items() if name in fields}


@pytest.mark.parametrize("kind", ["account", "model"])
@pytest.mark.parametrize(("verb", "path"), REST_CALLS)
def test_rest(stack: Parley, strangers: Strangers, kind: str, verb: str, path: str) -> None:
    """Status, headers and body of a foreign session are those of an unknown one, on every path of the document."""

    def response(session: str) -> tuple[int, dict[str, str], str]:
        body = _body(_DOCUMENT["paths"][path][verb])
        if "{session_id}" not in path:
            named = {} if path.startswith("/v1/") else {"model": "smollm2"}
            body = {"messages": MESSAGES, "chatSessionId": session, **named}
        headers = {"authorization": f"Bearer {strangers.keys[kind]}"}
        answer = httpx.request(
            verb, stack.http + path.replace("{session_id}", session), json=body, headers=headers, timeout=60
        )
        shown = {name: value for name, value in answer.headers.items() if name not in _VARIABLE_HEADERS}
        return answer.status_code, shown, _masked(answer.text, session)

    expected = response(UNKNOWN)
    assert 404 == expected[0], expected
    assert expected == response(strangers.session)


@pytest.mark.parametrize("kind", ["account", "model"])
@pytest.mark.parametrize("method", GRPC_METHODS, ids=lambda method: method.full_name)
def test_grpc(stack: Parley, strangers: Strangers, kind: str, method: MethodDescriptor) -> None:
    """Status, details and trailing metadata of a foreign session are those of an unknown one, in every method."""
    metadata = (("authorization", f"Bearer {strangers.keys[kind]}"),)
    with grpc.insecure_channel(stack.grpc) as channel:
        call = _caller(channel, method)

        def outcome(session: str) -> tuple[Any, str, dict[str, str]]:
            fields = {name: value for name, value in FIELDS.items() if name in method.input_type.fields_by_name}
            request = ParseDict({"session_id": session, **fields}, GetMessageClass(method.input_type)())
            with pytest.raises(grpc.RpcError) as caught:
                list(call(request, metadata=metadata, timeout=60))
            error: Any = caught.value
            trailing = {
                key: _masked(value if isinstance(value, str) else value.decode("latin-1"), session)
                for key, value in error.trailing_metadata()
                if key not in _VARIABLE_HEADERS
            }
            return error.code(), _masked(error.details(), session), trailing

        expected = outcome(UNKNOWN)
        assert grpc.StatusCode.NOT_FOUND == expected[0], expected
        assert expected == outcome(strangers.session)


def _caller(channel: grpc.Channel, method: MethodDescriptor) -> Callable[..., Any]:
    """Returns the method as a function that returns an iterable."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    serializer, reader = GetMessageClass(method.input_type).SerializeToString, GetMessageClass(method.output_type)
    if method.server_streaming:
        return channel.unary_stream(path, serializer, reader.FromString)
    unary = channel.unary_unary(path, serializer, reader.FromString)
    return lambda *args, **options: [unary(*args, **options)]


def test_the_session_is_untouched(client: openai.OpenAI, stack: Parley, strangers: Strangers) -> None:
    """After all attempts its owner still has the session, and no key sees it in its list."""
    for key in strangers.keys.values():
        listed = httpx.get(f"{stack.http}/api/v1/sessions", headers={"authorization": f"Bearer {key}"}).json()
        assert strangers.session not in json.dumps(listed)
    owned = httpx.get(
        f"{stack.http}/api/v1/sessions/{strangers.session}", headers={"authorization": f"Bearer {client.api_key}"}
    )
    assert (200, 1) == (owned.status_code, owned.json()["turn_count"]), owned.text
