"""The vendor parameters that a backend passes on by default; `closed` lists what is left out, and why."""

from parley.config import Vendor, vendor_of
from parley.config.vendor import Parameters
from parley.config.vendor_parameters import ANTHROPIC, COMMON, LLAMA_CPP, SELF_HOSTED, named
from parley.config.vendor_rows import OTHERS, VENDORS

__all__ = ["ANTHROPIC", "LLAMA_CPP", "SELF_HOSTED", "for_provider", "for_url", "of_vendor"]


def of_vendor(vendor: Vendor | None) -> Parameters:
    """Returns the parameters of a vendor, or those of self-hosted servers."""
    return SELF_HOSTED if vendor is None or vendor.parameters is None else vendor.parameters


def for_url(base_url: str) -> Parameters:
    """Returns the parameters of an OpenAI-compatible server: its vendor's, or those of self-hosted servers."""
    return of_vendor(vendor_of(base_url))


def for_provider(provider: str) -> Parameters:
    """Returns the parameters of a provider of any-llm-sdk, by its name."""
    known = {"anthropic": ANTHROPIC, "llamacpp": LLAMA_CPP, "vllm": SELF_HOSTED, "ollama": SELF_HOSTED}
    if provider in known:
        return known[provider]
    vendors = (one for one in (*VENDORS.values(), *OTHERS) if any(provider in host for host in one.hosts))
    found = next(vendors, None)
    return named(COMMON) if found is None or found.parameters is None else found.parameters
