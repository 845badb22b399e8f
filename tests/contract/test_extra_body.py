"""Vendor parameters of callers: each backend passes on its list, and nothing that chooses models, addresses or keys."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parley.backends.extra_body import presets
from parley.backends.extra_body.closed import CLOSED
from parley.backends.extra_body.policy import ExtraBodyPolicy
from parley.backends.factory import make_backend
from parley.backends.openai import request as openai_request
from parley.config import ConfigError, vendor_of
from parley.config.loader import parse
from parley.config.vendor import Parameters
from parley.config.vendor_rows import OTHERS, VENDORS
from parley.core.errors import ParleyError, UnsupportedParameter
from parley.core.messages.extra_fields import dump_bytes
from parley.core.ports import Backend
from tests.contract.backends import call
from tests.upstream import ScriptedUpstream

DANGEROUS = (
    *("models", "api_base", "base_url", "api_key", "fallbacks", "chat_template", "kv_transfer_params", "priority"),
    *("mcp_servers", "plugins", "route", "provider", "transforms", "headers", "extra_headers", "user_id", "slot_id"),
    *("id_slot", "cache_prompt", "lora", "grammar", "guided_regex", "client_args", "custom_llm_provider", "vllm_xargs"),
    *("logits_processors", "echo", "prompt_logprobs", "n_predict", "data_sources", "bootstrap_host", "preset"),
    *("Models", "api-key", "ApiBase", "something_new"),
)
KINDS = {
    "openai": "kind: openai, base_url: {url}",
    "any_llm": "kind: any_llm, provider: openai, api_key: k, base_url: {url}",
    "anthropic": "kind: anthropic, base_url: {url}",
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A server that answers every request."""
    with ScriptedUpstream() as server:
        yield server


def backend(upstream: ScriptedUpstream, folder: Path, kind: str, more: str = "") -> Backend:
    """Returns the backend of a configuration."""
    text = (
        "backends: {b: {"
        + KINDS[kind].format(url=upstream.url)
        + more
        + "}}\nmodels: [{id: m, targets: [{backend: b}]}]"
    )
    return make_backend("b", parse(text, "f").backends["b"], folder)


async def sent(made: Backend, upstream: ScriptedUpstream, extra: dict[str, Any], *, text: bool = False) -> Any:
    """Makes a call; returns the body that the upstream got, or None if it got none."""
    fields: dict[str, Any] = {"extra_body_json": json.dumps(extra)} if text else {"extra_body": extra}
    before = len(upstream.requests)
    try:
        await made.complete(call(**fields))
    except ParleyError:
        if len(upstream.requests) == before:
            raise
    finally:
        await made.close()
    return upstream.requests[-1].json


@pytest.mark.parametrize("kind", KINDS)
async def test_what_chooses_models_addresses_and_the_like_is_not_passed_on(
    upstream: ScriptedUpstream, tmp_path: Path, kind: str
) -> None:
    """Every such parameter, and every unknown one, is rejected by name before anything is sent."""
    for name in DANGEROUS:
        for text in (False, True):
            with pytest.raises(UnsupportedParameter, match=f"`{name}` is not passed on") as rejected:
                await sent(backend(upstream, tmp_path, kind), upstream, {name: "x"}, text=text)
            assert f"extra_body.{name}" == rejected.value.param
    assert [] == upstream.requests


@pytest.mark.parametrize("kind", KINDS)
async def test_parameters_of_the_preset_are_passed_on(upstream: ScriptedUpstream, tmp_path: Path, kind: str) -> None:
    """Sampling parameters reach the upstream unchanged; an unknown one that is null is left out."""
    body = await sent(backend(upstream, tmp_path, kind), upstream, {"top_k": 40, "something": None})
    assert (40, False) == (body["top_k"], "something" in body)


@pytest.mark.parametrize("setting", ["all", "[models, api_base]"])
async def test_the_operator_allows_parameters(upstream: ScriptedUpstream, tmp_path: Path, setting: str) -> None:
    """`all` allows everything, and a list adds names to the preset."""
    extra = {"models": ["x"], "api_base": "http://127.0.0.1", "top_k": 1}
    body = await sent(backend(upstream, tmp_path, "openai", f", extra_body: {setting}"), upstream, extra)
    assert extra.items() <= body.items()


async def test_the_operator_allows_none(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """`off` rejects parameters of the preset too."""
    with pytest.raises(UnsupportedParameter, match="`top_k` is not passed on"):
        await sent(backend(upstream, tmp_path, "openai", ", extra_body: off"), upstream, {"top_k": 1})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"enable_thinking": True, "chat_template": "{{ x }}"}, "chat_template_kwargs.chat_template"),
        ({"tokenize": True}, "chat_template_kwargs.tokenize"),
        ("x", "chat_template_kwargs"),
        ([1], "chat_template_kwargs"),
    ],
)
async def test_members_of_an_object_have_a_list_too(
    upstream: ScriptedUpstream, tmp_path: Path, value: object, path: str
) -> None:
    """Switches of a chat template are allowed, the template itself is not."""
    made = backend(upstream, tmp_path, "openai")
    switch = {"chat_template_kwargs": {"enable_thinking": False}}
    assert switch.items() <= (await sent(made, upstream, switch)).items()
    with pytest.raises(UnsupportedParameter) as rejected:
        await sent(backend(upstream, tmp_path, "openai"), upstream, {"chat_template_kwargs": value}, text=True)
    assert f"extra_body.{path}" == rejected.value.param


async def test_defaults_of_the_model_are_the_operator_s_own(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The list applies to callers only."""
    made, operators = backend(upstream, tmp_path, "openai"), call(extra_body={"priority": 5})
    object.__setattr__(operators, "defaults", ["extra_body"])
    await made.complete(operators)
    await made.close()
    assert 5 == upstream.requests[0].json["priority"]


CLIENTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("http://10.0.0.5:8000/v1", {"enable_thinking": False}, {"enable_thinking": False}),  # langchain-qwq
    ("http://10.0.0.5:8000/v1", {"usage": {"include": True}, "top_k": 20}, {"top_k": 20}),  # opencode, Roo Code
    ("https://api.openai.com/v1", {"include_reasoning": True, "usage": {"include": True}}, {}),  # LibreChat
    ("https://openrouter.ai/api/v1", {"usage": {"include": True}}, {"usage": {"include": True}}),
    (
        "https://generativelanguage.googleapis.com/v1beta/openai",  # Cherry Studio
        {"google": {"thinking_config": {"thinking_budget": 0}}},
        {"extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}},
    ),
]


@pytest.mark.parametrize(("url", "extra", "expected"), CLIENTS)
@pytest.mark.parametrize("text", [False, True])
def test_what_clients_add_to_every_call(
    url: str, extra: dict[str, Any], expected: dict[str, Any], *, text: bool
) -> None:
    """What popular clients add is sent in the form of the vendor; values without an effect are left out."""
    vendor = vendor_of(url)
    policy = ExtraBodyPolicy(presets.of_vendor(vendor), "preset", vendor.parameters_member if vendor else None)
    fields: dict[str, Any] = {"extra_body_json": json.dumps(extra)} if text else {"extra_body": extra}
    sent = json.loads(dump_bytes(openai_request.body(call(**fields), stream=False, policy=policy)))
    known = openai_request.body(call(), stream=False)
    assert expected == {name: value for name, value in sent.items() if name not in known}


@pytest.mark.parametrize("value", [{"include": False}, {"include": True, "x": 1}, True, [1]])
def test_other_values_of_the_same_parameters_are_rejected(value: object) -> None:
    """Only the value that has no effect is left out."""
    with pytest.raises(UnsupportedParameter, match="`usage` is not passed on"):
        openai_request.body(call(extra_body={"usage": value}), stream=False, policy=ExtraBodyPolicy({}))


def test_presets_have_nothing_that_is_closed() -> None:
    """The only exception is the object of which some members are allowed."""
    vendors = [one.parameters or {} for one in (*VENDORS.values(), *OTHERS)]
    found = {name for preset in (presets.SELF_HOSTED, presets.ANTHROPIC, *vendors) for name in preset}
    assert {"chat_template_kwargs"} == found & CLOSED.keys()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1", {}),
        ("https://me.openai.azure.com/openai", {}),
        ("https://europe-west1-aiplatform.googleapis.com/v1", VENDORS["gemini"].parameters),
        ("https://OpenRouter.ai/api/v1", VENDORS["openrouter"].parameters),
        ("http://10.0.0.5:8000/v1", presets.SELF_HOSTED),
    ],
)
def test_the_preset_of_an_address(url: str, expected: Parameters) -> None:
    """Vendors have presets of their own; any other server may be vLLM, SGLang, llama.cpp or Ollama."""
    assert expected == presets.for_url(url)


def test_the_setting_is_checked() -> None:
    """A wrong value names the field."""
    text = "backends: {b: {kind: anthropic, extra_body: 5}}\nmodels: [{id: m, targets: [{backend: b}]}]"
    with pytest.raises(ConfigError, match="extra_body"):
        parse(text, "f")
