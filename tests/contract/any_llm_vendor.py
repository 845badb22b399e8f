"""A provider of any-llm-sdk whose base URL can be set, for the contract suite of backends."""

from dataclasses import replace

from parley.backends.any_llm import AnyLLM
from tests.contract.backends import KEY
from tests.contract.http_vendors import OPENAI

ANY_LLM = replace(OPENAI, name="any_llm", make=lambda root: AnyLLM("openai", KEY, f"{root}/v1"))
"""It is asked only what holds for any vendor. Of what HTTP has, its package keeps to itself how much of an answer is
read, what a broken answer was broken by, and when pieces of a stream came together."""
