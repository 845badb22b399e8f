"""gRPC libraries with a `retryPolicy` obey the pushback of a failed call, through Envoy."""

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message
from tests.e2e.node_packages import installed
from tests.e2e.rollouts.settings import PROTOS, RECOMMENDED
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import Json, ScriptedUpstream

__all__ = ["installed"]
PROGRAM = Path(__file__).with_name("grpc_clients") / "failing.mjs"


@pytest.fixture
def failing(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """An upstream that fails every call."""
    upstream.default = Json({"error": {"message": "no"}}, status=503)
    return upstream


def test_grpcio_does_not_repeat_a_call_that_parley_has_retried(stack: Parley, failing: ScriptedUpstream) -> None:
    """A model with one attempt a call is called once, although the client may make five attempts."""
    message = Message(role="user")
    message.content.string_value = "Hi"
    request = CreateChatCompletionRequest(model="scripted", messages=[message])
    with grpc.insecure_channel(stack.grpc, [("grpc.service_config", json.dumps(RECOMMENDED))]) as channel:
        stub: Any = ChatCompletionsStub(channel)
        known = {"metadata": [("authorization", f"Bearer {stack.key}")], "timeout": PATIENCE}
        with pytest.raises(grpc.RpcError) as failed:
            stub.CreateChatCompletion(request, **known)
        with pytest.raises(grpc.RpcError) as stream_failed:
            list(stub.StreamChatCompletion(request, **known))
    failures: list[Any] = [failed.value, stream_failed.value]
    for error in failures:
        assert (grpc.StatusCode.UNAVAILABLE, "-1") == (
            error.code(),
            dict(error.trailing_metadata())["grpc-retry-pushback-ms"],
        )
    assert 2 == len(failing.requests)


def test_grpc_js_does_not_repeat_a_call_that_parley_has_retried(
    stack: Parley, failing: ScriptedUpstream, installed: Path
) -> None:
    """The same holds for the client library of Node."""
    config = json.dumps(RECOMMENDED)
    known = environment(PARLEY_GRPC=stack.grpc, KEY=stack.key, PROTOS=str(PROTOS), SERVICE_CONFIG=config)
    command = ["node", "--input-type=module", "--eval", PROGRAM.read_text()]
    done = subprocess.run(
        command, cwd=installed, env=known, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ("UNAVAILABLE -1\n", "") == (done.stdout, done.stderr)
    assert 1 == len(failing.requests)


def test_rest_shows_no_pushback(stack: Parley, failing: ScriptedUpstream) -> None:
    """REST clients get `retry-after` and `x-should-retry`."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    with stack.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), stack.headers())
        headers = connection.getresponse().headers
    assert ("1", "true") == (headers["retry-after"], headers["x-should-retry"])
    assert not [name for name in headers if name.startswith("grpc-")]
    assert 1 == len(failing.requests)
