"""Each preset of a vendor is a whole backend: a server as strict as the vendor's documents answers its requests."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from parley.backends.factory import make_backend
from parley.backends.openai.backend import OpenAI
from parley.config import VENDORS, OpenAIBackend
from parley.config.loader import parse
from parley.config.vendor import VendorName
from parley.core.errors import UnsupportedParameter, UpstreamError
from parley.core.ports import Backend, UpstreamCall
from parley.core.ports.parameters import TargetParameters
from tests.contract.backends import call, collect, completion_of
from tests.contract.strict_vendors import KEY, STRICT, serve
from tests.upstream import ScriptedUpstream

Calls = Callable[..., UpstreamCall]
CONFIG = """
backends: {{one: {{vendor: {vendor}, base_url: "{url}"{more}}}}}
models: [{{id: m, targets: [{{backend: one}}]}}]
"""
LOOKUP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CONVERSATION: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hi", "name": "ada"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I look it up.",
            "tool_calls": [
                {
                    "id": "call12345",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": "{}"},
                    "extra_json": '{"extra_content": {"google": {"thought_signature": "c2ln"}}}',
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call12345", "content": "42"},
        {"role": "user", "content": "So?"},
    ],
    "tools": [LOOKUP],
    "temperature": 0.5,
    "stop": ["END"],
}
EVERYTHING: dict[str, Any] = CONVERSATION | {
    "max_tokens": 100,
    "user": "u-1",
    "safety_identifier": "u-1",
    "prompt_cache_key": "k-1",
    "n": 1,
    "logprobs": False,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "tool_choice": "auto",
}
# Anthropic's API has no names, which Parley rejects by themselves.
ANTHROPIC = CONVERSATION | {
    "messages": [{key: one[key] for key in one if key != "name"} for one in CONVERSATION["messages"]],
    "max_tokens": 100,
}


@asynccontextmanager
async def preset(
    vendor: str, upstream: ScriptedUpstream, tmp_path: Path, more: str = ""
) -> AsyncIterator[tuple[Backend, Calls]]:
    """Yields the backend of a preset, with the address of a strict server in place of the vendor's; and its calls."""
    upstream.default = partial(serve, STRICT[vendor])
    prefix = STRICT[vendor].path.removesuffix("/chat/completions").removesuffix("/v1/messages")
    url = upstream.url.removesuffix("/v1") + ("" if vendor == "azure" else prefix)
    if STRICT[vendor].key is not None:
        more += f", api_key: {KEY}"
    config = parse(CONFIG.format(vendor=vendor, url=url, more=more), "f")
    parameters = TargetParameters.of(config.effective(config.models[0].targets[0]))
    backend = make_backend("one", config.backends["one"], tmp_path)
    try:
        yield backend, lambda **fields: replace(call(**fields), parameters=parameters)
    finally:
        await backend.close()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_strict_server_answers(upstream: ScriptedUpstream, tmp_path: Path, vendor: str, streams: bool) -> None:
    """A conversation with roles, names, reasoning, tool calls and the usual parameters is answered."""
    fields = ANTHROPIC if vendor == "anthropic" else EVERYTHING
    async with preset(vendor, upstream, tmp_path) as (backend, made):
        sent = made(**fields)
        if streams:
            answer = completion_of(await collect(backend, sent))
        else:
            answer = await backend.complete(sent)
    assert "Hello." == answer.choices[0].message.content.string_value
    body = upstream.requests[-1].json
    assert 100 == body.get("max_tokens", body.get("max_completion_tokens"))


STRICTER = [name for name, rules in STRICT.items() if rules.refused or rules.fields or rules.query]


@pytest.mark.parametrize("vendor", [name for name in STRICTER if VENDORS[name].kind == "openai"])
async def test_the_same_server_refuses_a_backend_without_the_preset(upstream: ScriptedUpstream, vendor: str) -> None:
    """The strict servers are strict: without its preset, the same request is refused."""
    upstream.default = partial(serve, STRICT[vendor])
    url = upstream.url.removesuffix("/v1") + STRICT[vendor].path.removesuffix("/chat/completions")
    backend = OpenAI(url, KEY)
    with pytest.raises(UpstreamError):
        await backend.complete(call(**EVERYTHING | {"max_completion_tokens": 100, "logit_bias": {"5": 1}}))
    await backend.close()


UNSUPPORTED: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "seed": 7,
    "tool_choice": "required",
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "modalities": ["audio"],
    "verbosity": "low",
    "audio": {"voice": "a", "format": "wav"},
}
CASES = [(name, field) for name, vendor in VENDORS.items() for field in vendor.preset.get("unsupported", ())]


@pytest.mark.parametrize(("vendor", "name"), CASES)
async def test_what_a_vendor_has_not_is_named(
    upstream: ScriptedUpstream, tmp_path: Path, vendor: str, name: str
) -> None:
    """A parameter that the vendor refuses is rejected by its name, before the vendor is called."""
    fields = {name: UNSUPPORTED[name]} | ({"logprobs": True} if name == "top_logprobs" else {})
    async with preset(vendor, upstream, tmp_path) as (backend, made):
        with pytest.raises(UnsupportedParameter) as caught:
            await backend.complete(made(tools=[LOOKUP], **fields))
    assert (caught.value.param in fields, []) == (True, upstream.requests)


async def test_a_field_of_the_file_replaces_that_of_the_preset(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Every field of a preset can be replaced, also by nothing."""
    more = ', key_header: "Authorization: Bearer", path: "/v1/chat", api_version: null'
    async with preset("azure", upstream, tmp_path, more) as (backend, made):
        with pytest.raises(Exception, match="not available"):
            await backend.complete(made())
    request = upstream.requests[0]
    assert ("/v1/chat", f"Bearer {KEY}", None) == (
        request.path,
        request.headers["authorization"],
        request.headers.get("api-key"),
    )


async def test_a_tool_choice_of_none_needs_no_support(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """For a vendor without `tool_choice`, `none` leaves the tools out."""
    async with preset("ollama", upstream, tmp_path) as (backend, made):
        await backend.complete(made(tools=[LOOKUP], tool_choice="none"))
    assert {"tools", "tool_choice"}.isdisjoint(upstream.requests[0].json)


def test_every_vendor_has_a_preset_a_source_and_a_strict_server() -> None:
    """The names of presets are those of the configuration, and each has a public source and a strict server."""
    assert set(get_args(VendorName)) == set(VENDORS) == set(STRICT)
    assert [] == [name for name, vendor in VENDORS.items() if "." not in vendor.source or " " in vendor.source]


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_address_and_a_key_are_a_whole_backend(vendor: str) -> None:
    """A preset needs no field besides the key, except the address where each customer has one of its own."""
    known = VENDORS[vendor].preset.get("base_url")
    more = "" if known else ', base_url: "https://mine.test"'
    text = (
        f"backends: {{one: {{vendor: {vendor}, api_key: k{more}}}}}\nmodels: [{{id: m, targets: [{{backend: one}}]}}]"
    )
    config = parse(text, "f").backends["one"]
    assert (vendor, VENDORS[vendor].kind) == (getattr(config, "vendor", None), config.kind)
    if isinstance(config, OpenAIBackend) and known:
        prefix = urlsplit(known).path
        assert STRICT[vendor].path == f"{prefix}/chat/completions"
