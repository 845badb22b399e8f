"""Providers of any-llm-sdk with a configurable base URL, for the contract suite of backends."""

from dataclasses import replace

from parley.backends.any_llm.backend import AnyLLM
from tests.contract.backends import KEY
from tests.contract.http_vendors import ANTHROPIC, OPENAI

ANY_LLM = [
    replace(OPENAI, name="any_llm-openai", make=lambda root: AnyLLM("openai", KEY, f"{root}/v1")),
    replace(ANTHROPIC, name="any_llm-anthropic", make=lambda root: AnyLLM("anthropic", KEY, root)),
]
"""They run only the suite for all vendors: their packages hide details that the suite for HTTP vendors tests, such as
the maximum size of a response, truncation, and which deltas arrived together."""
