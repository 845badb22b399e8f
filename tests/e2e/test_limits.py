"""Rate limits per minute with OpenAI's Python package: headers, RateLimitError, and retries."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import openai
import pytest
from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.e2e import vendor
from tests.processes import Parley, run_here, started
from tests.upstream import ScriptedUpstream

REQUEST: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}]}
REQUESTS = 30


@dataclass
class Limited:
    """A Parley, and an unused key of an unused account."""

    parley: Parley
    key: str


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with two workers, whose keys may make one request in two seconds, and 30 in a burst."""
    file = tmp_path_factory.mktemp("limits") / "parley.yaml"
    file.write_text(
        f"backends:\n  up: {{kind: openai, base_url: '{the_upstream.url}'}}\n"
        "models:\n  - {id: scripted, targets: [{backend: up}]}\n"
        f"limits:\n  key: {{requests_per_minute: {REQUESTS}, tokens_per_minute: 1000000}}\n"
        "  account: {tokens_per_minute: 900000}\n"
    )
    with started("--config", str(file), "--workers", "2") as running:
        yield running


@pytest.fixture
def limited(parley: Parley, request: pytest.FixtureRequest) -> Limited:
    """The Parley, with a new key of a new account."""
    options = ("--account", request.node.name, "--state-dir", str(parley.folder / "state"))
    made = run_here("keys", "create", "--name", "test", "--json", *options)
    return Limited(parley, json.loads(made.stdout)["key"])


def client(limited: Limited, **options: Any) -> openai.OpenAI:
    """The package's client."""
    return openai.OpenAI(base_url=f"{limited.parley.http}/v1", api_key=limited.key, **options)


def exhaust(hasty: openai.OpenAI) -> tuple[int, openai.RateLimitError]:
    """Makes calls until one is rejected; returns the number of answers, and the rejection."""
    for answered in range(10 * REQUESTS):
        try:
            hasty.chat.completions.create(**REQUEST)
        except openai.RateLimitError as error:
            return answered, error
    raise AssertionError("nothing was refused")


def test_every_response_has_the_limits(limited: Limited, upstream: ScriptedUpstream) -> None:
    """`with_raw_response` has OpenAI's headers for unary, streaming and rejected requests."""
    upstream.answer(vendor.complete_answer(), vendor.text("Hello"))
    raw = client(limited).chat.completions.with_raw_response
    answers = [raw.create(**REQUEST).headers, raw.create(**REQUEST, stream=True).headers]
    with pytest.raises(openai.BadRequestError) as rejected:
        raw.create(**REQUEST, temperature=3)
    with pytest.raises(openai.BadRequestError, match="`max_tokens` is too large") as never:
        raw.create(**REQUEST, max_tokens=900_000)
    for headers in (*answers, rejected.value.response.headers, never.value.response.headers):
        assert ("30", "900000") == (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-limit-tokens"])
        assert 26 <= int(headers["x-ratelimit-remaining-requests"]) <= 29
        assert 890_000 < int(headers["x-ratelimit-remaining-tokens"]) <= 900_000
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert headers["x-ratelimit-reset-tokens"].endswith("s")
    assert 2 == len(upstream.requests)


def test_the_limits_are_in_grpc_metadata(limited: Limited, upstream: ScriptedUpstream) -> None:
    """The limits are in the initial metadata of an answer and the trailing metadata of a failure."""
    key = (("authorization", f"Bearer {limited.key}"),)
    request = ParseDict(REQUEST, CreateChatCompletionRequest())
    with grpc.insecure_channel(limited.parley.grpc) as channel:
        chat = ChatCompletionsStub(channel)
        _, call = chat.CreateChatCompletion.with_call(request, metadata=key)
        assert "29" == dict(call.initial_metadata())["x-ratelimit-remaining-requests"]
        with pytest.raises(grpc.RpcError) as rejected:
            chat.CreateChatCompletion(CreateChatCompletionRequest(), metadata=key)
        error: Any = rejected.value
        assert "30" == dict(error.trailing_metadata())["x-ratelimit-limit-requests"]


def test_over_the_limit_is_a_rate_limit_error(limited: Limited, upstream: ScriptedUpstream) -> None:
    """Two workers share one limit; the rejection has the exhausted limit and the retry delay."""
    started = time.monotonic()
    answered, error = exhaust(client(limited, max_retries=0))
    assert REQUESTS <= answered <= REQUESTS + (time.monotonic() - started) * REQUESTS / 60 + 1
    assert answered == len(upstream.requests)
    headers = error.response.headers
    assert (429, "rate_limit_error", "rate_limit_exceeded") == (error.status_code, error.type, error.code)
    assert f"This key may make {REQUESTS} requests a minute, and 0 are left; try again in " in error.message
    assert ("0", "true") == (headers["x-ratelimit-remaining-requests"], headers["x-should-retry"])
    assert 1 <= int(headers["retry-after"]) <= 2


def test_the_package_retries_after_the_delay(limited: Limited, upstream: ScriptedUpstream) -> None:
    """A client with retries waits for `retry-after` and then succeeds."""
    seen: list[int] = []
    patient = client(
        limited,
        max_retries=2,
        http_client=openai.DefaultHttpxClient(
            event_hooks={"response": [lambda response: seen.append(response.status_code)]}
        ),
    )
    exhaust(client(limited, max_retries=0))
    while 429 not in seen:
        assert "Hello there." == patient.chat.completions.create(**REQUEST).choices[0].message.content
    assert [429, 200] == seen[-2:]
