"""Tests of requests that some candidates cannot answer: they are not tried first."""

import asyncio

import pytest

from parley.config import Metadata
from parley.config.loader import parse
from parley.core.errors import UnsupportedParameter
from parley.core.routing.fit import Demands
from parley.core.routing.router import Router
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.rpc.scripted import ScriptedBackend
from tests.unit.routing.routes import ANYONE

CONFIG = """
backends: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - id: small
    targets: [{backend: a, model: small, accepts: {n: 1, stop: 2, images: 0}}]
    metadata: {context_length: 1000, max_output: 100, tools: false}
    fallbacks: [large]
  - id: large
    targets: [{backend: a, model: large, accepts: {n: 4, stop: 3, tools: 1, images: 1}}]
    metadata: {context_length: 100000, modalities: [text, image]}
  - {id: bare, targets: [{backend: a, model: bare}], fallbacks: [large]}
"""


def _answering(request: CreateChatCompletionRequest, model: str = "small", listed: Metadata | None = None) -> str:
    """Returns the name of the only target that gets the request."""
    backend = ScriptedBackend()
    router = Router(parse(CONFIG, "test.yaml"), {"a": backend})
    if listed is not None:
        router.listed("a", {model: listed})
    execution = router.new_execution(
        router.model(ANYONE, model), request, request.messages, session_id=None, deadline=None
    )
    asyncio.run(execution.complete())
    (call,) = backend.calls
    return call.model


def _request(text: str = "hi", **fields: object) -> CreateChatCompletionRequest:
    request = CreateChatCompletionRequest(**fields)  # type: ignore[arg-type]
    request.messages.add(role="user").content.string_value = text
    return request


def _with_part(kind: str, count: int = 1) -> CreateChatCompletionRequest:
    request = CreateChatCompletionRequest()
    content = request.messages.add(role="user").content.list_value
    for _ in range(count):
        content.values.add().struct_value.update({"type": kind, kind: {"url": "https://example.org/x"}})
    return request


def _with_stops(count: int) -> CreateChatCompletionRequest:
    request = _request()
    for number in range(count):
        request.stop.list_value.values.add(string_value=str(number))
    return request


def _with_tools(count: int) -> CreateChatCompletionRequest:
    request = _request()
    for number in range(count):
        request.tools.add(type="function").function.name = f"tool-{number}"
    return request


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (_request(), "small"),
        (_request("word " * 700), "small"),
        (_request("word " * 900), "large"),
        (_request("word " * 740, max_tokens=90), "large"),
        (_request(max_tokens=100), "small"),
        (_request(max_completion_tokens=101), "large"),
        (_request(n=2), "large"),
        (_with_stops(2), "small"),
        (_with_stops(3), "large"),
        (_with_tools(1), "large"),
        (_with_part("image_url"), "large"),
    ],
)
def test_a_request_goes_to_the_first_candidate_that_it_fits(
    request_: CreateChatCompletionRequest, expected: str
) -> None:
    """Candidates before it are not tried."""
    assert expected == _answering(request_)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (_request(n=5), '`n` must be at most 1 for the model "small"'),
        (_with_stops(4), '`stop` may have at most 2 entries for the model "small"'),
        (_with_tools(2), '`tools` cannot be used with the model "small"; leave them out'),
        (_with_part("image_url", 2), 'Images cannot be used with the model "small"; leave them out'),
    ],
)
def test_a_request_that_no_candidate_accepts_is_rejected(request_: CreateChatCompletionRequest, message: str) -> None:
    """The error names the parameter and the limit, and no target is called."""
    with pytest.raises(UnsupportedParameter) as raised:
        _answering(request_)
    assert message == raised.value.message


def test_content_of_another_modality_is_rejected() -> None:
    """A model with listed modalities accepts no others."""
    with pytest.raises(UnsupportedParameter, match="Content of the type audio is not supported"):
        _answering(_with_part("input_audio"), "large")


def test_a_request_that_fits_no_context_is_tried_nevertheless() -> None:
    """The size of a prompt is an estimate: the target decides."""
    assert "small" == _answering(_request("word " * 100_000))


def test_the_instructions_of_the_model_count() -> None:
    """They are a part of the prompt."""
    long = _request("word " * 700)
    demands = [Demands(long, long.messages, instructions) for instructions in (None, "word " * 200)]
    assert [True, False] == [one.fits(1000) for one in demands]


def test_an_image_is_a_thousand_tokens_whatever_its_size() -> None:
    """The encoded bytes of an image do not indicate its cost."""
    small, large = _with_part("image_url"), _with_part("image_url")
    large.messages[0].content.list_value.values[0].struct_value.update({"image_url": {"url": "x" * 100_000}})
    for request in (small, large):
        demands = Demands(request, request.messages)
        assert (False, True) == (demands.fits(1000), demands.fits(1100))


def test_the_list_of_a_backend_decides_where_the_configuration_is_silent() -> None:
    """What is configured takes precedence over the backend's list."""
    long = _request("word " * 900)
    assert "bare" == _answering(long, "bare")
    assert "large" == _answering(long, "bare", Metadata(context_length=500))
    assert "large" == _answering(long, "small", Metadata(context_length=1_000_000))


VENDORS = """
backends:
  openai: {vendor: openai, api_key: k}
  plain: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - {id: known, targets: [{backend: openai, model: gpt-4o-2024-08-06}], fallbacks: [large]}
  - {id: set, targets: [{backend: openai, model: gpt-4o}], metadata: {context_length: 1M}}
  - {id: other, targets: [{backend: plain, model: gpt-4o}]}
  - {id: "any/*", targets: [{backend: openai, model: "*"}]}
  - {id: large, targets: [{backend: plain, model: large}]}
"""


def test_the_lengths_of_a_vendor_s_well_known_models_are_known() -> None:
    """They complete the configuration and the vendor's list, hold for versions with a date, and decide the target."""
    router = Router(parse(VENDORS, "f"), {"openai": ScriptedBackend(), "plain": ScriptedBackend()})

    def lengths(name: str) -> tuple[int | None, int | None]:
        known = router.metadata(router.model(ANYONE, name))
        return known.context_length, known.max_output

    assert [(128_000, 16_384), (1_000_000, 16_384), (None, None), (400_000, 128_000), (None, None)] == [
        lengths(name) for name in ("known", "set", "other", "any/gpt-5-mini", "any/unknown")
    ]
    router.listed("openai", {"gpt-4o-2024-08-06": Metadata(context_length=5)})
    assert (5, 16_384) == lengths("known")
    request = CreateChatCompletionRequest(model="known")
    request.messages.add(role="user").content.string_value = 100 * "word "
    execution = router.new_execution(
        router.model(ANYONE, "known"), request, request.messages, session_id=None, deadline=None
    )
    asyncio.run(execution.complete())
    assert "large" == execution.model_id
