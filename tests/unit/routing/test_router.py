"""Tests of the router: the model that answers, and the request to its target."""

import asyncio
from collections.abc import Sequence

import pytest
from google.protobuf.struct_pb2 import Value

from parley.config import Config, ConfigError
from parley.config.loader import parse
from parley.core.errors import InvalidRequest, ModelNotFound
from parley.core.ports import Caller, UpstreamCall
from parley.core.routing.router import Router
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.rpc.scripted import ScriptedBackend
from tests.unit.routing.routes import ANYONE

CONFIG = """
backends: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - id: plain
    targets: [{backend: a, model: upstream-name}]
  - id: configured
    targets: [{backend: a}]
    instructions: "Be brief."
    defaults: {temperature: 0, max_tokens: 10, stop: ["END"]}
default_model: plain
"""


def _config(text: str = CONFIG) -> Config:
    return parse(text, "test.yaml")


def _router(config: Config | None = None, backend: ScriptedBackend | None = None) -> Router:
    return Router(config or _config(), {"a": backend or ScriptedBackend()})


def _user(text: str) -> Message:
    message = Message(role="user")
    message.content.string_value = text
    return message


def _upstream_call(
    model: str, request: CreateChatCompletionRequest, messages: Sequence[Message] = (), config: Config | None = None
) -> UpstreamCall:
    """Returns the call that the backend of the model receives."""
    backend = ScriptedBackend()
    router = _router(config, backend)
    execution = router.new_execution(router.model(ANYONE, model), request, messages, session_id=None, deadline=None)
    asyncio.run(execution.complete())
    return backend.calls[0]


def _request(model: str, request: CreateChatCompletionRequest, *messages: Message) -> CreateChatCompletionRequest:
    return _upstream_call(model, request, messages or request.messages).request


def test_a_request_without_a_model_uses_the_default_model() -> None:
    """A request may omit `model` if the configuration has a default model."""
    assert "plain" == _router().model(ANYONE, None).id


def test_a_request_without_a_model_fails_without_a_default() -> None:
    """The error message is the documented one."""
    config = _config(CONFIG.replace("default_model: plain", ""))
    with pytest.raises(InvalidRequest, match=r"^`model` is required and must be a string$"):
        _router(config).model(ANYONE, "")


@pytest.mark.parametrize("caller", [ANYONE, Caller("default", "key_2", frozenset({"plain"}))])
def test_an_unknown_model_and_a_forbidden_one_look_alike(caller: Caller) -> None:
    """A key that may not use a model cannot find out whether the model exists."""
    name = "configured" if caller.models else "nosuch"
    with pytest.raises(ModelNotFound, match=f'^Unknown model "{name}"$'):
        _router().model(caller, name)


def test_the_list_of_models_contains_what_the_key_may_use() -> None:
    """Models that the key may not use are not listed."""
    assert ["configured"] == [
        model.id for model in _router().models(Caller("default", "key_2", frozenset({"configured"})))
    ]


def test_a_target_gets_its_own_name_of_the_model() -> None:
    """The call has the configured upstream name, or else the id of the model."""
    for model, expected in (("plain", "upstream-name"), ("configured", "configured")):
        call = _upstream_call(model, CreateChatCompletionRequest())
        assert (expected, model) == (call.model, call.request.model)


def test_instructions_precede_the_whole_conversation() -> None:
    """The upstream request has the conversation of the session, and the caller's request is not modified."""
    request = CreateChatCompletionRequest(messages=[_user("sent")])
    upstream = _request("configured", request, _user("one"), _user("two"))
    assert ["Be brief.", "one", "two"] == [message.content.string_value for message in upstream.messages]
    assert "system" == upstream.messages[0].role
    assert 1 == len(request.messages)


def test_defaults_set_the_parameters_that_the_request_omits() -> None:
    """A parameter of the request takes precedence, even if it is zero; lists are replaced and never merged."""
    upstream = _request("configured", CreateChatCompletionRequest())
    assert (0, 10, ["END"]) == (
        upstream.temperature,
        upstream.max_tokens,
        [v.string_value for v in upstream.stop.list_value.values],
    )
    assert upstream.HasField("temperature")
    request = CreateChatCompletionRequest(temperature=1.5, max_completion_tokens=7)
    request.stop.list_value.values.add(string_value="MINE")
    upstream = _request("configured", request)
    assert (1.5, False, 7) == (upstream.temperature, upstream.HasField("max_tokens"), upstream.max_completion_tokens)
    assert ["MINE"] == [value.string_value for value in upstream.stop.list_value.values]


@pytest.mark.parametrize(
    ("defaults", "path"),
    [
        ("{nosuch: 1}", "nosuch"),
        ("{temperature: hot}", "temperature"),
        ("{model: x}", "model"),
        ("{continue_final_message: true}", "continue_final_message"),
    ],
)
def test_defaults_that_are_not_request_parameters_fail_at_startup(defaults: str, path: str) -> None:
    """A wrong default is a configuration error that names the path of the default."""
    config = _config(CONFIG.replace('{temperature: 0, max_tokens: 10, stop: ["END"]}', defaults))
    with pytest.raises(ConfigError, match=rf"^models\[1\]\.defaults.*{path}"):
        _router(config)


@pytest.mark.parametrize(
    ("mode", "expected"), [("join", ["Be brief.\n\nBe kind.", "hi"]), ("separate", ["Be brief.", "Be kind.", "hi"])]
)
def test_instructions_and_the_system_message_of_the_caller(mode: str, expected: list[str]) -> None:
    """Instructions and system message are sent as one message, or as two if the model is configured so."""
    system = Message(role="system", content=Value(string_value="Be kind."))
    own = 'instructions: "Be brief."'
    config = _config(CONFIG.replace(own, f"{own}\n    instructions_mode: {mode}"))
    messages = [system, _user("hi")]
    upstream = _upstream_call("configured", CreateChatCompletionRequest(messages=messages), messages, config).request
    assert expected == [message.content.string_value for message in upstream.messages]


@pytest.mark.parametrize(("setting", "seconds"), [("", 0), ("coalesce: off", 0), ("coalesce: 50ms", 0.05)])
def test_the_backend_receives_the_time_of_coalesce(setting: str, seconds: float) -> None:
    """`coalesce` of the model is passed to the backend in seconds; 0 without it."""
    config = _config(CONFIG.replace("model: upstream-name}]", f"model: upstream-name}}]\n    {setting}"))
    assert seconds == _upstream_call("plain", CreateChatCompletionRequest(), config=config).coalesce
