"""Calls of curl, the openai package, the generated stubs and grpcurl to the built-in model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message
from tests import sse
from tests.processes import Parley

QUESTION = "What is the capital of France?"
BODY = {"model": "smollm2", "messages": [{"role": "user", "content": QUESTION}]}
PATHS = ("/v1/chat/completions", "/api/v1/chat/completions")
GRPCURL = str(Path(sys.executable).with_name("grpcurl"))


def curl(stack: Parley, path: str, body: dict[str, Any], *options: str) -> str:
    """Runs curl with a JSON body."""
    curl = shutil.which("curl")
    assert curl, "curl is not installed"
    headers = [f"-H{name}: {value}" for name, value in stack.headers().items()]
    command = [curl, "-sN", *headers, *options, "-d", json.dumps(body), stack.http + path]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def grpcurl(stack: Parley, *arguments: str, key: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs grpcurl with reflection on the gRPC listener."""
    header = ["-H", f"authorization: Bearer {stack.key}"] if key else []
    command = [sys.executable, GRPCURL, "-plaintext", *header, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("path", PATHS)
def test_curl_complete_answer(stack: Parley, path: str) -> None:
    """The answer of the built-in model names Paris and has the documented format."""
    answer = json.loads(curl(stack, path, BODY))
    expected = "chatSessionId id object created model choices usage system_fingerprint"
    assert expected.split() == list(answer)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", [{"stream": True}, "Accept: text/event-stream"], ids=["body", "accept"])
def test_curl_stream(stack: Parley, path: str, how: Any) -> None:
    """`stream` in the body or the Accept header selects a stream, which ends with [DONE]."""
    text = curl(stack, path, BODY, "-H", how) if isinstance(how, str) else curl(stack, path, BODY | how)
    chunks = sse.chunks(text)
    assert "Paris" in sse.text(chunks)
    assert {"role": "assistant", "content": ""} == chunks[0]["choices"][0]["delta"]
    assert ({}, "stop") == (chunks[-1]["choices"][0]["delta"], chunks[-1]["choices"][0]["finish_reason"])
    assert {None} == {chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]}


def test_the_openai_package_reads_answers_and_streams(client: openai.OpenAI) -> None:
    """OpenAI's client needs only another base URL."""
    non_streaming = client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": QUESTION}])
    assert "Paris" in (non_streaming.choices[0].message.content or "")
    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_the_openai_package_raises_its_own_errors(stack: Parley, client: openai.OpenAI) -> None:
    """Errors have the statuses, codes and parameters that the package parses."""
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nosuch", messages=[{"role": "user", "content": "Hi"}])
    assert ("model_not_found", "model") == (missing.value.code, missing.value.param)
    stranger = openai.OpenAI(base_url=f"{stack.http}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="Invalid API key"):
        stranger.models.list()
    with pytest.raises(openai.BadRequestError, match="`temperature` must be between 0 and 2"):
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "Hi"}], temperature=9)


def test_the_openai_package_lists_models(client: openai.OpenAI) -> None:
    """The list and each model have OpenAI's format."""
    assert ["smollm2", "scripted", "guarded", "unguarded"] == [model.id for model in client.models.list()]
    model = client.models.retrieve("smollm2")
    assert ("local", 4096) == (model.owned_by, model.to_dict()["context_length"])


def test_the_generated_stub_reads_answers_and_streams(stack: Parley) -> None:
    """An internal service can call gRPC with the code that `make gen` generates."""
    request = CreateChatCompletionRequest(model="smollm2", messages=[Message(role="user")])
    request.messages[0].content.string_value = QUESTION
    metadata = (("authorization", f"Bearer {stack.key}"),)
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = ChatCompletionsStub(channel)
        non_streaming = stub.CreateChatCompletion(request, metadata=metadata)
        assert "Paris" in non_streaming.choices[0].message.content.string_value
        chunks = list(stub.StreamChatCompletion(request, metadata=metadata))
    assert "Paris" in "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.total_tokens > 0


def test_grpcurl_uses_reflection(stack: Parley) -> None:
    """grpcurl lists, describes and calls methods by reflection, streams included."""
    listed = grpcurl(stack, stack.grpc, "list", key=False)
    assert {"parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models"} <= set(listed.stdout.split())
    method = grpcurl(stack, stack.grpc, "describe", "parley.v1.ChatCompletions.CreateChatCompletion", key=False)
    assert "rpc CreateChatCompletion ( .parley.v1.CreateChatCompletionRequest )" in method.stdout, method.stderr
    described = grpcurl(stack, stack.grpc, "describe", "parley.v1.ChatCompletions", key=False)
    assert "rpc StreamChatCompletion" in described.stdout
    non_streaming = grpcurl(stack, "-d", json.dumps(BODY), stack.grpc, "parley.v1.ChatCompletions/CreateChatCompletion")
    assert "Paris" in json.loads(non_streaming.stdout)["choices"][0]["message"]["content"]
    is_stream = grpcurl(stack, "-d", json.dumps(BODY), stack.grpc, "parley.v1.ChatCompletions/StreamChatCompletion")
    assert "chat.completion.chunk" in is_stream.stdout
    rejected = grpcurl(stack, "-d", "{}", stack.grpc, "parley.v1.ChatCompletions/CreateChatCompletion", key=False)
    assert ("Unauthenticated" in rejected.stderr, "Missing API key" in rejected.stderr) == (True, True)


def test_internal_services_are_not_on_the_rest_listener(stack: Parley) -> None:
    """Native gRPC on the REST listener reaches neither reflection, health nor Parley's methods."""
    address = stack.http.removeprefix("http://")
    for what in (("list",), ("-d", "{}", "grpc.health.v1.Health/Check")):
        *options, method = what
        rejected = grpcurl(stack, *options, address, method)
        assert 0 != rejected.returncode
        assert "SERVING" not in rejected.stdout
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        ChatCompletionsStub(channel).CreateChatCompletion(
            CreateChatCompletionRequest(), metadata=(("authorization", f"Bearer {stack.key}"),)
        )
    internal = ("/grpc.health.v1.Health/Check", "/parley.v1.ChatCompletions/CreateChatCompletion")
    for path in (*internal, PATHS[0] + ":stream"):
        status, body = stack.request("POST", path, BODY)
        assert (404, True) == (status, "error" in body)


def test_parameters_of_the_embedded_model(client: openai.OpenAI) -> None:
    """`n`, `seed`, `logprobs`, `stop`, limits and a JSON Schema have their documented effect."""
    messages: Any = [{"role": "user", "content": QUESTION}]
    create = client.chat.completions.create
    two = create(model="smollm2", messages=messages, n=2, max_tokens=4, logprobs=True, top_logprobs=2)
    assert [0, 1] == [choice.index for choice in two.choices]
    assert {"length"} == {choice.finish_reason for choice in two.choices}
    token = two.choices[0].logprobs.content[0]  # type: ignore[union-attr, index]
    assert (bytes(token.bytes or []).decode(), 2) == (token.token, len(token.top_logprobs))
    seeded = [
        create(model="smollm2", messages=messages, seed=7, temperature=1.5, max_tokens=8).choices[0].message.content
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    stopped = create(model="smollm2", messages=messages, stop=[" Paris"]).choices[0]
    assert "Paris" not in (stopped.message.content or "")
    assert "stop" == stopped.finish_reason
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    shaped = create(model="smollm2", messages=messages, response_format=form).choices[0].message.content
    assert ["city"] == list(json.loads(shaped or ""))


def test_an_unsupported_parameter_is_an_error(client: openai.OpenAI) -> None:
    """A parameter without support in the model is rejected and not ignored."""
    with pytest.raises(openai.BadRequestError, match="not supported by the model") as rejected:
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "Hi"}], verbosity="low")
    assert "verbosity" == rejected.value.param
