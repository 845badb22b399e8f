"""Creates backends from their configuration."""

from pathlib import Path

from parley.backends.extra_body import presets
from parley.backends.extra_body.policy import ExtraBodyPolicy
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.backends.llama_cpp.command import socket_path
from parley.backends.openai.backend import OpenAI
from parley.backends.openai.learned_fields import LearnedFields
from parley.config import (
    VENDORS,
    AnthropicBackend,
    AnyLLMBackend,
    BackendConfig,
    ConfigError,
    LlamaCppBackend,
    OpenAIBackend,
    ParleyBackend,
    ReasoningRule,
    vendor_of,
)
from parley.core.ports import Backend


def make_backend(name: str, config: BackendConfig, run_dir: Path) -> Backend:
    """Creates a configured backend, which connects at its first call. Raises ConfigError."""
    try:
        return _make(name, config, run_dir)
    except ConfigError as error:
        raise ConfigError(f"backends.{name}.{error}") from error


def _make(name: str, config: BackendConfig, run_dir: Path) -> Backend:
    match config:
        case LlamaCppBackend():
            return LlamaCpp(
                socket_path(run_dir, name), config.health, ExtraBodyPolicy(presets.LLAMA_CPP, config.extra_body)
            )
        case OpenAIBackend():
            return _openai(config, run_dir / f"fields-{name}.json")
        case AnthropicBackend():
            from parley.backends.anthropic.backend import Anthropic

            prefill = config.prefill != "off"
            return Anthropic(
                config.base_url,
                config.api_key,
                config.max_tokens,
                config.connections,
                prefill=prefill,
                extra_body=ExtraBodyPolicy(presets.ANTHROPIC, config.extra_body),
                settings=config,
            )
        case ParleyBackend():
            from parley.backends.parley.backend import Parley

            return Parley(config)
        case AnyLLMBackend():
            return _any_llm(config)


def _openai(config: OpenAIBackend, learned: Path) -> Backend:
    # The rules of a vendor hold wherever `base_url` leads, for example to a proxy.
    vendor = VENDORS[config.vendor] if config.vendor else vendor_of(config.base_url)
    known = vendor.reasoning if vendor is not None else None
    chosen = config.reasoning
    return OpenAI(
        config.base_url,
        prefill=config.prefill or ("message" if config.vendor else None),
        reasoning=ReasoningRule(chosen.field, chosen.history) if chosen else known,
        learned=LearnedFields(learned),
        connections=config.connections,
        health=config.health,
        extra_body=ExtraBodyPolicy(
            presets.of_vendor(vendor), config.extra_body, vendor.parameters_member if vendor is not None else None
        ),
        settings=config,
        unsupported=config.unsupported,
        listed_prefix=vendor.listed_prefix if vendor is not None else "",
    )


def _any_llm(config: AnyLLMBackend) -> Backend:
    try:
        from parley.backends.any_llm.backend import AnyLLM
    except ModuleNotFoundError as error:
        raise ConfigError(f"kind: {error}; any_llm needs: pip install 'parley-gateway[any-llm]'") from error
    preset = presets.for_url(config.base_url) if config.base_url else presets.for_provider(config.provider)
    policy = ExtraBodyPolicy(preset, config.extra_body)
    return AnyLLM(config.provider, config.api_key, config.base_url, policy, discover=config.discover)
