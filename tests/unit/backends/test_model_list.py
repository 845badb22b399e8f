"""Tests of the lists of models of vendors. The samples are from their documents."""

from typing import Any

import orjson
import pytest

from parley.backends.model_list import parse
from parley.config import Metadata, Price

SAMPLES: dict[str, tuple[dict[str, Any], Metadata]] = {
    "OpenAI": ({"id": "m", "object": "model", "created": 1, "owned_by": "openai"}, Metadata(owner="openai")),
    "Groq": (
        {"id": "m", "owned_by": "Meta", "active": True, "context_window": 131072, "max_completion_tokens": 32768},
        Metadata(owner="Meta", context_length=131072, max_output=32768),
    ),
    "OpenRouter": (
        {
            "id": "m",
            "name": "Model: M",
            "description": "Good.\n",
            "context_length": 200000,
            "architecture": {"input_modalities": ["text", "image", "smell"], "output_modalities": ["text"]},
            "top_provider": {"context_length": 128000, "max_completion_tokens": None},
            "supported_parameters": ["tools", "temperature"],
            "pricing": {"prompt": "0.00000025", "completion": "0.000002", "input_cache_read": "0.000000025"},
        },
        Metadata(
            name="Model: M",
            description="Good.",
            context_length=128000,
            modalities=["text", "image"],
            output_modalities=["text"],
            tools=True,
            reasoning=False,
            price=Price(prompt=0.25, completion=2, cached_prompt=0.025),
        ),
    ),
    "Mistral": (
        {"id": "m", "max_context_length": 32768, "capabilities": {"function_calling": False, "vision": False}},
        Metadata(context_length=32768, tools=False, modalities=["text"]),
    ),
    "Together": (
        {"id": "m", "organization": "Meta", "pricing": {"input": 0.88, "output": 0, "base": 0}},
        Metadata(owner="Meta", price=Price(prompt=0.88, completion=0)),
    ),
    "a price that varies": ({"id": "m", "pricing": {"prompt": "-1", "completion": "-1"}}, Metadata()),
    "vLLM": ({"id": "m", "owned_by": "vllm", "max_model_len": 4096}, Metadata(owner="vllm", context_length=4096)),
    "llama.cpp": ({"id": "m", "meta": {"n_ctx_train": 8192}}, Metadata(context_length=8192)),
    "Anthropic": ({"id": "m", "type": "model", "display_name": "Claude"}, Metadata(name="Claude")),
    "Fireworks": (
        {"id": "m", "supports_image_input": True, "supports_tools": True, "context_length": 10},
        Metadata(modalities=["text", "image"], tools=True, context_length=10),
    ),
    "numbers as text": (
        {"id": "m", "context_length": "131072", "max_output_tokens": 4096.0, "pricing": {"prompt": None}},
        Metadata(context_length=131072, max_output=4096),
    ),
    "odd entries": (
        {
            "id": "m",
            "architecture": {"input_modalities": [{}, None, "text"]},
            "context_length": "1" * 5000,
            "supported_parameters": [{}],
            "pricing": {"prompt": True, "completion": False},
        },
        Metadata(modalities=["text"]),
    ),
    "wrong types": (
        {
            "id": "m",
            "name": 5,
            "context_length": "big",
            "max_model_len": True,
            "architecture": [],
            "max_output_tokens": -1,
        },
        Metadata(),
    ),
}


@pytest.mark.parametrize("vendor", SAMPLES)
def test_what_a_vendor_says_about_a_model(vendor: str) -> None:
    """Fields that are missing or of the wrong type are not known."""
    sample, expected = SAMPLES[vendor]
    assert {"m": expected} == parse(orjson.dumps({"data": [sample, {"id": 5}, "text"]}))


@pytest.mark.parametrize("body", [[{"id": "m"}], {"models": [{"id": "m"}]}])
def test_lists_of_other_forms(body: object) -> None:
    """Together sends the list itself, Ollama's and Gemini's own APIs name it `models`."""
    assert {"m": Metadata()} == parse(orjson.dumps(body))


def test_a_server_without_models_has_an_empty_list() -> None:
    """Ollama sends null in place of an empty list."""
    assert {} == parse(b'{"object": "list", "data": null}')


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": 5}', b"null"])
def test_a_body_without_a_list_is_an_error(body: bytes) -> None:
    """It says nothing about models, and an earlier list stays."""
    with pytest.raises(ValueError, match="the answer"):
        parse(body)
