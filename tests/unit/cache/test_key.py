"""The keys of kept answers: whatever decides the answer changes the key, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from parley.config import Cache, Config, Model
from parley.config.loader import parse
from parley.core.cache.key import CachedCall, ModelIdentity, digest, identities
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

FIELDS = CreateChatCompletionRequest.DESCRIPTOR.fields_by_name
DELIVERY = {"stream", "stream_options", "session_id"}
CONFIG = """
backends:
  vllm:
    kind: openai
    base_url: "http://{host}/v1"
    api_key: {api_key}
    connections: {connections}
    headers: {headers}
    forward_headers: [x-team]
    drop: {drop}
  other: {{kind: openai, base_url: "http://10.0.0.6/v1"}}
guards: {{own: {{patterns: [{pattern}]}}}}
default_guards: [own]
models:
  - id: faq
    targets: [{{backend: {backend}, model: {target}, weight: {weight}}}]
    instructions: {instructions}
    defaults: {{temperature: {temperature}}}
    fallbacks: {fallbacks}
    timeouts: {{total: {total}}}
    cache: {{ttl: {ttl}}}
  - {{id: spare, targets: [{{backend: other}}]}}
"""
VALUES: dict[str, Any] = {
    "host": "10.0.0.5",
    "api_key": "one",
    "connections": 5,
    "headers": "{x-beta: one}",
    "drop": "[seed]",
    "pattern": "XY",
    "backend": "vllm",
    "target": "qwen",
    "weight": 1,
    "instructions": "Be brief.",
    "temperature": 0,
    "fallbacks": "[]",
    "total": "60s",
    "ttl": "1h",
}


def config(**changed: Any) -> Config:
    """Returns the configuration with changed values."""
    return parse(CONFIG.format(**VALUES | changed), "test.yaml")


MODEL: Model = config().models[0]


def request(**fields: Any) -> CreateChatCompletionRequest:
    """Returns a request."""
    return ParseDict(fields, CreateChatCompletionRequest())


def message(text: str, role: str = "user") -> Message:
    """Returns a message."""
    made = Message(role=role)
    made.content.string_value = text
    return made


def key(
    made: CreateChatCompletionRequest,
    messages: list[Message] | None = None,
    account: str = "ada",
    model: Model = MODEL,
    forwarded: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Returns the key of a request."""
    identity = ModelIdentity(b"identity", frozenset({"x-team"}))
    conversation = made.messages if messages is None else messages
    return digest(identity, CachedCall(model, made, conversation, account, None, forwarded))


def set_field(made: Any, field: FieldDescriptor) -> None:
    """Sets a field to something else than its default, a message to one that is present."""
    value = getattr(made, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"].cpp_type
        value["1"] = "1" if kind == FieldDescriptor.CPPTYPE_STRING else 1
    elif field.is_repeated:
        value.add() if field.message_type else value.append("x")
    elif field.message_type is not None:
        value.SetInParent()
    else:
        is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        setattr(made, field.name, "x" if is_text else 1)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_each_field_changes_the_key(name: str) -> None:
    """Each field of a request changes its key, except those of its delivery."""
    changed = CreateChatCompletionRequest()
    set_field(changed, FIELDS[name])
    assert (name not in DELIVERY) == (key(CreateChatCompletionRequest()) != key(changed))


def test_a_zero_is_no_default() -> None:
    """A parameter that is 0 or false is another one than an absent one."""
    for fields in ({"temperature": 0}, {"seed": 0}, {"logprobs": False}, {"user": ""}):
        assert key(request()) != key(request(**fields))


def test_the_order_of_keys_in_a_schema_matters() -> None:
    """The order of keys in a JSON Schema, and its white space, belong to the key."""
    texts = ['{"a":1,"b":2}', '{"b":2,"a":1}', '{"a": 1,"b":2}']
    tools = [[{"type": "function", "function": {"name": "f", "parameters_json": text}}] for text in texts]
    assert 3 == len({key(request(tools=one)) for one in tools})


def test_unknown_fields_belong_to_the_key() -> None:
    """Fields that Parley does not know belong to the key, of the request and of messages."""
    known, other = message("Hi"), message("Hi")
    other.extra_json = '{"x":1}'
    assert key(request()) != key(request(extra_body={"x": 1}))
    assert key(request(), [known]) != key(request(), [other])


def test_the_account_belongs_to_the_key() -> None:
    """Accounts have keys of their own; with the scope of all accounts they have the same, which is no account's."""
    shared = replace(MODEL, cache=Cache(scope="all"))
    accounts = ("ada", "bob", "all")
    assert 3 == len({key(request(), account=account) for account in accounts})
    common = {key(request(), account=account, model=shared) for account in accounts}
    assert 1 == len(common)
    assert common.isdisjoint({key(request(), account=account) for account in accounts})


def test_forwarded_headers_belong_to_the_key() -> None:
    """A caller's header that the backends of the model receive belongs to the key, and no other header."""
    none, other = key(request()), key(request(), forwarded=[("x-other", "a")])
    assert none == other
    assert 3 == len({none, *[key(request(), forwarded=[("x-team", value)]) for value in "ab"]})


def test_the_model_by_its_id_or_by_default() -> None:
    """A request without a model, and one that names it, have the same key; the name of a wildcard belongs to it."""
    assert key(request()) == key(request(model="faq"))
    assert key(request()) != key(request(model="faq/other"))


_TEXTS = st.text(max_size=3)
_MESSAGES = st.lists(st.builds(message, _TEXTS, st.sampled_from(["user", "assistant"])), max_size=3)
_REQUESTS = st.builds(request, user=_TEXTS, seed=st.integers(0, 2), stop=st.lists(_TEXTS, max_size=2))


@given(_REQUESTS, _MESSAGES, _REQUESTS, _MESSAGES)
def test_keys_are_equal_only_for_equal_requests(
    one: CreateChatCompletionRequest, messages: list[Message], two: CreateChatCompletionRequest, others: list[Message]
) -> None:
    """Two requests have the same key exactly if their fields and their conversations are equal."""
    assert ((one, messages) == (two, others)) == (key(one, messages) == key(two, others))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "10.0.0.9"),
        ("backend", "other"),
        ("target", "llama"),
        ("instructions", "Be long."),
        ("temperature", 0.5),
        ("headers", "{x-beta: two}"),
        ("drop", "[]"),
        ("pattern", "XYZ"),
    ],
)
def test_the_configuration_of_the_answer_belongs_to_the_key(name: str, value: Any) -> None:
    """A change of a model, its guards, its targets or their backends changes the keys."""
    before, after = config(), config(**{name: value})
    assert identities(before).keys() == identities(after).keys() == {"faq"}
    assert identities(before) != identities(after)


@pytest.mark.parametrize(
    ("name", "value"),
    [("api_key", "two"), ("connections", 6), ("weight", 2), ("fallbacks", "[spare]"), ("total", "9s"), ("ttl", "2h")],
)
def test_other_settings_keep_the_keys(name: str, value: Any) -> None:
    """A change of a secret, a limit, a timeout, a weight or a fallback keeps the answers."""
    assert identities(config()) == identities(config(**{name: value}))
