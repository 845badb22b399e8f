"""Public example configurations of LiteLLM, translated by hand.

Each has the path of the original in BerriAI/litellm. docs/from-litellm.md lists what Parley cannot say.
"""

import re

import pytest

from parley.config import Config, OpenAIBackend
from parley.config.loader import parse

EXAMPLES = "litellm/proxy/example_config_yaml"
TRANSLATED = {
    f"{EXAMPLES}/azure_config.yaml": """
backends:
  v1:
    vendor: azure
    base_url: "https://openai-gpt-4-test-v-1.openai.azure.com/"
    api_version: "2023-05-15"
    rename: {}
    api_key: "${AZURE_API_KEY}"
  v2: {vendor: azure, base_url: "https://openai-gpt-4-test-v-2.openai.azure.com/", api_key: "${AZURE_API_KEY}"}
models:
  - id: gpt-4-team1
    targets: [{backend: v1, model: chatgpt-v-2}]
    timeouts: {total: 5s, first_token: 500ms}
    retries: {attempts: 5}
  - id: gpt-4-team2
    targets: [{backend: v2, model: gpt-4}]
    timeouts: {total: 5s, first_token: 500ms}
    retries: {attempts: 5}
""",
    f"{EXAMPLES}/load_balancer.yaml": """
backends:
  openai: {vendor: openai, api_keys: ["${OPENAI_KEY_1}", "${OPENAI_KEY_2}"]}
  openrouter: {vendor: openrouter, api_key: "${OPENROUTER_API_KEY}"}
models:
  - id: gpt-3.5-turbo
    targets: [{backend: openai, model: gpt-3.5-turbo, weight: 2}, {backend: openrouter, model: gpt-3.5-turbo}]
  - {id: mistral-7b-instruct, targets: [{backend: openrouter, model: mistralai/mistral-7b-instruct}]}
""",
    f"{EXAMPLES}/aliases_config.yaml": """
backends:
  ollama: {vendor: ollama}
models:
  - {id: text-davinci-003, targets: [{backend: ollama, model: zephyr}]}
  - {id: gpt-4, targets: [{backend: ollama, model: llama2}]}
  - id: gpt-3.5-turbo
    targets: [{backend: ollama, model: llama2}]
    defaults: {temperature: 0.1, max_tokens: 20}
""",
    # Without what docs/from-litellm.md lists.
    "proxy_server_config.yaml": """
backends:
  azure:
    vendor: azure
    base_url: "https://openai-gpt-4-test-v-1.openai.azure.com/"
    api_version: "2023-05-15"
    rename: {}
    api_key: "${AZURE_API_KEY}"
  openai: {vendor: openai, api_key: "${OPENAI_API_KEY}"}
  anthropic: {vendor: anthropic, api_key: "${ANTHROPIC_API_KEY}"}
  groq: {vendor: groq, api_key: "${GROQ_API_KEY}"}
  fake: {kind: openai, base_url: "https://exampleopenaiendpoint-production.up.railway.app/", api_key: my-fake-key}
models:
  - id: gpt-3.5-turbo
    targets: [{backend: azure, model: chatgpt-v-2}]
    fallbacks: [gpt-3.5-turbo-large]
    retries: {attempts: 6}
    timeouts: {total: 600s}
  - id: gpt-3.5-turbo-large
    targets: [{backend: openai, model: gpt-3.5-turbo-1106}]
    timeouts: {total: 300s, first_token: 60s}
  - id: fake-openai-endpoint-3
    targets: [{backend: fake, model: my-fake-model}, {backend: fake, model: my-fake-model-2}]
    timeouts: {first_token: 1ms}
    aliases: [{id: my-special-fake-model-alias-name}]
  - {id: "*", targets: [{backend: openai, model: "*"}]}
  - {id: "anthropic/*", targets: [{backend: anthropic, model: "*"}]}
  - {id: "groq/*", targets: [{backend: groq, model: "*"}]}
""",
}


@pytest.fixture
def translated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of a translation."""
    for name in set(re.findall(r"\${(\w+)}", TRANSLATED[request.param])):
        monkeypatch.setenv(name, f"value-of-{name}")
    return parse(TRANSLATED[request.param], request.param)


MODELS = {
    f"{EXAMPLES}/azure_config.yaml": {"gpt-4-team1": ["v1/chatgpt-v-2"], "gpt-4-team2": ["v2/gpt-4"]},
    f"{EXAMPLES}/load_balancer.yaml": {
        "gpt-3.5-turbo": ["openai/gpt-3.5-turbo", "openrouter/gpt-3.5-turbo"],
        "mistral-7b-instruct": ["openrouter/mistralai/mistral-7b-instruct"],
    },
    f"{EXAMPLES}/aliases_config.yaml": {
        "text-davinci-003": ["ollama/zephyr"],
        "gpt-4": ["ollama/llama2"],
        "gpt-3.5-turbo": ["ollama/llama2"],
    },
    "proxy_server_config.yaml": {
        "gpt-3.5-turbo": ["azure/chatgpt-v-2"],
        "gpt-3.5-turbo-large": ["openai/gpt-3.5-turbo-1106"],
        "fake-openai-endpoint-3": ["fake/my-fake-model", "fake/my-fake-model-2"],
        "*": ["openai/*"],
        "anthropic/*": ["anthropic/*"],
        "groq/*": ["groq/*"],
    },
}


@pytest.mark.parametrize(("translated", "models"), MODELS.items(), indirect=["translated"])
def test_a_translation_has_the_models_of_the_original(translated: Config, models: dict[str, list[str]]) -> None:
    """Each model of the original leads to its deployments."""
    assert models == {model.id: [target.name for target in model.targets] for model in translated.models}


@pytest.mark.parametrize("translated", [f"{EXAMPLES}/azure_config.yaml"], indirect=True)
def test_versions_of_azure_differ_by_backend(translated: Config) -> None:
    """A version in the file replaces that of the preset."""
    backends = [one for one in translated.backends.values() if isinstance(one, OpenAIBackend)]
    assert ["2023-05-15", "2024-10-21"] == [one.parameters["api-version"] for one in backends]


@pytest.mark.parametrize("translated", [f"{EXAMPLES}/load_balancer.yaml"], indirect=True)
def test_several_keys_are_one_backend(translated: Config) -> None:
    """Entries that differ in their key only become one backend with several keys."""
    backend = translated.backends["openai"]
    assert isinstance(backend, OpenAIBackend)
    assert ("value-of-OPENAI_KEY_1", "value-of-OPENAI_KEY_2") == backend.keys
