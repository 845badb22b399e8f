"""Which model and target answer, and what they are asked."""

import asyncio
from collections.abc import Sequence

import pytest
from google.protobuf.struct_pb2 import Value

from parley.config import Config, ConfigError, parse
from parley.core.errors import InvalidRequest, ModelNotFound
from parley.core.ports import Caller, UpstreamCall
from parley.core.routing.router import Router
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.rpc.scripted import ScriptedBackend

ANYONE = Caller("default", "key_1")
CONFIG = """
backends: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - id: plain
    targets: [{backend: a, model: upstream-name}]
  - id: told
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


def _called(
    model: str, request: CreateChatCompletionRequest, messages: Sequence[Message] = (), config: Config | None = None
) -> UpstreamCall:
    """What the model's backend is called with."""
    backend = ScriptedBackend()
    router = _router(config, backend)
    execution = router.new_execution(router.model(ANYONE, model), request, messages, session_id=None, deadline=None)
    asyncio.run(execution.complete())
    return backend.calls[0]


def _asked(model: str, request: CreateChatCompletionRequest, *messages: Message) -> CreateChatCompletionRequest:
    return _called(model, request, messages or request.messages).request


def test_no_model_is_the_default_model() -> None:
    """A request may leave `model` out where the configuration names a default."""
    assert "plain" == _router().model(ANYONE, None).id


def test_no_model_and_no_default_is_an_error() -> None:
    """The message is the documented one."""
    config = _config(CONFIG.replace("default_model: plain", ""))
    with pytest.raises(InvalidRequest, match=r"^`model` is required and must be a string$"):
        _router(config).model(ANYONE, "")


@pytest.mark.parametrize("caller", [ANYONE, Caller("default", "key_2", frozenset({"plain"}))])
def test_an_unknown_model_and_a_forbidden_one_look_alike(caller: Caller) -> None:
    """A key that may not use a model cannot learn that it exists."""
    name = "told" if caller.models else "nosuch"
    with pytest.raises(ModelNotFound, match=f'^Unknown model "{name}"$'):
        _router().model(caller, name)


def test_a_keys_models_are_those_it_may_use() -> None:
    """The list of models is limited as the key is."""
    assert ["told"] == [model.id for model in _router().models(Caller("default", "key_2", frozenset({"told"})))]


def test_the_target_is_asked_by_its_own_name_for_the_model() -> None:
    """The call names the upstream's model; without one, the caller's."""
    for model, expected in (("plain", "upstream-name"), ("told", "told")):
        call = _called(model, CreateChatCompletionRequest())
        assert (expected, model) == (call.model, call.request.model)


def test_instructions_come_before_the_whole_conversation() -> None:
    """The upstream sees what its session has, not what the request says; the caller's request stays as it was."""
    request = CreateChatCompletionRequest(messages=[_user("sent")])
    upstream = _asked("told", request, _user("one"), _user("two"))
    assert ["Be brief.", "one", "two"] == [message.content.string_value for message in upstream.messages]
    assert "system" == upstream.messages[0].role
    assert 1 == len(request.messages)


def test_defaults_fill_in_what_the_request_leaves_out() -> None:
    """A parameter of the request wins, zero included; lists are replaced and never joined."""
    upstream = _asked("told", CreateChatCompletionRequest())
    assert (0, 10, ["END"]) == (
        upstream.temperature,
        upstream.max_tokens,
        [v.string_value for v in upstream.stop.list_value.values],
    )
    assert upstream.HasField("temperature")
    request = CreateChatCompletionRequest(temperature=1.5, max_completion_tokens=7)
    request.stop.list_value.values.add(string_value="MINE")
    upstream = _asked("told", request)
    assert (1.5, False, 7) == (upstream.temperature, upstream.HasField("max_tokens"), upstream.max_completion_tokens)
    assert ["MINE"] == [value.string_value for value in upstream.stop.list_value.values]


@pytest.mark.parametrize(
    ("defaults", "place"),
    [
        ("{nosuch: 1}", "nosuch"),
        ("{temperature: hot}", "temperature"),
        ("{model: x}", "model"),
        ("{continue_final_message: true}", "continue_final_message"),
    ],
)
def test_defaults_that_are_no_request_parameters_are_refused_at_the_start(defaults: str, place: str) -> None:
    """A wrong default is an error of the configuration that names its place, not of the first caller."""
    config = _config(CONFIG.replace('{temperature: 0, max_tokens: 10, stop: ["END"]}', defaults))
    with pytest.raises(ConfigError, match=rf"^models\[1\]\.defaults.*{place}"):
        _router(config)


@pytest.mark.parametrize(
    ("mode", "expected"), [("join", ["Be brief.\n\nBe kind.", "hi"]), ("separate", ["Be brief.", "Be kind.", "hi"])]
)
def test_instructions_and_the_caller_s_system_message(mode: str, expected: list[str]) -> None:
    """They are one message, or two where the model says so."""
    system = Message(role="system", content=Value(string_value="Be kind."))
    own = 'instructions: "Be brief."'
    config = _config(CONFIG.replace(own, f"{own}\n    instructions_mode: {mode}"))
    messages = [system, _user("hi")]
    upstream = _called("told", CreateChatCompletionRequest(messages=messages), messages, config).request
    assert expected == [message.content.string_value for message in upstream.messages]
