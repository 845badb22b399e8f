"""`parley import litellm`: real forms of LiteLLM's configuration, translated into ones that Parley accepts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from parley.config.loader import load, parse
from tests.processes import run_here

CONFIGS = Path(__file__).parent / "litellm_configs"
NAMES = sorted(file.name for file in CONFIGS.iterdir())


def translated(text: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Translates the text of a file; returns the data of the result and the lines about what has no counterpart."""
    file = folder / "config.yaml"
    file.write_text(text)
    result = run_here("import", "litellm", str(file))
    assert 0 == result.returncode, result.stderr
    return yaml.safe_load(result.stdout), result.stderr.splitlines()


def example(name: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Translates one of the example files."""
    return translated((CONFIGS / name).read_text(), folder)


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_a_configuration_without_secrets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader accepts the result, and neither it nor the lines have any key or password of the file."""
    file = tmp_path / "parley.yaml"
    result = run_here("import", "litellm", str(CONFIGS / name), "--output", str(file))
    assert 0 == result.returncode, result.stderr
    assert 0o600 == file.stat().st_mode & 0o777
    text = file.read_text()
    assert "secret-word" not in text + result.stdout + result.stderr
    for variable in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(variable, "a-key")
    assert load(file).models


@pytest.mark.parametrize("name", NAMES)
def test_every_remark_has_a_line_and_is_in_the_file(name: str, tmp_path: Path) -> None:
    """Each line on standard error names a line of the file and what to do, and the result has it as a comment."""
    file = tmp_path / "parley.yaml"
    result = run_here("import", "litellm", str(CONFIGS / name), "--output", str(file))
    comments = file.read_text()
    for line in result.stderr.splitlines():
        assert re.match(rf"{name}:\d+: [\w.\[\]*-]+: [\w`\"]", line), line
        assert f"#   {line}\n" in comments


def test_backends_models_and_settings_of_a_proxy(tmp_path: Path) -> None:
    """Azure deployments, aliases, rates as weights, time limits and retries have their counterparts."""
    config, _ = example("proxy.yaml", tmp_path)
    assert {
        "openai": {"vendor": "openai", "api_key": "${OPENAI_API_KEY}"},
        "azure": {
            "vendor": "azure",
            "base_url": "https://example-resource.openai.azure.com",
            "api_key": "${AZURE_API_KEY}",
            "api_version": "2023-05-15",
            "rename": {},
        },
        "sagemaker": {"kind": "any_llm", "provider": "sagemaker"},
        "openai-2": {
            "kind": "openai",
            "base_url": "https://example-endpoint.up.railway.app",
            "api_key": "${OPENAI_API_KEY_2}",
        },
        "anthropic": {"vendor": "anthropic", "api_key": "${ANTHROPIC_API_KEY}"},
    } == config["backends"]
    models = {model.pop("id"): model for model in config["models"]}
    assert ["small-eu", "large", "bench", "fake", "anthropic/*", "my-alias"] == list(models)
    assert [
        {"backend": "openai", "model": "gpt-5-mini"},
        {"backend": "azure", "model": "chat-v-2"},
    ] == models["small-eu"]["targets"]
    assert (["large"], {"attempts": 12}) == (models["small-eu"]["fallbacks"], models["small-eu"]["retries"])
    assert {"first_token": 60, "total": 300} == models["large"]["timeouts"]
    assert {"total": 600} == models["bench"]["timeouts"]
    assert [1000, 250] == [target["weight"] for target in models["fake"]["targets"]]
    assert models["fake"] == models["my-alias"]


def test_what_has_no_counterpart_is_listed(tmp_path: Path) -> None:
    """Other APIs and settings are listed with their lines, in the order of the file."""
    _, lines = example("proxy.yaml", tmp_path)
    assert "config.yaml:6: model_list[0].litellm_params.region_name: targets are not chosen by region" == lines[0]
    found = "\n".join(lines)
    for part in (
        "config.yaml:32: model_list[4].model_info.mode: Parley has chat completions only; the deployment is left out",
        "model_list[5].litellm_params.model: Parley has chat completions only; the deployment is left out",
        "config.yaml:40: model_list[6].litellm_params.api_key: the key is not copied: set it in the environment",
        "as OPENAI_API_KEY_2\n",
        "model_list[9].litellm_params.model: its vendor cannot be found out, or has no chat completions",
        "router_settings.routing_strategy: targets are chosen by weight",
        "general_settings.master_key: keys are made with `parley keys create`",
        "files_settings: Parley has chat completions only",
    ):
        assert part in found
    numbers = [int(line.split(":")[1]) for line in lines]
    assert sorted(numbers) == numbers


WILDCARDS = """
model_list:
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*", order: 2}}
  - {model_name: "*", litellm_params: {model: "openai/*"}}
  - {model_name: "fixed/*", litellm_params: {model: openai/gpt-5}}
  - {model_name: plain, litellm_params: {model: openai/gpt-5}}
  - {model_name: "a*b", litellm_params: {model: "openai/*"}}
  - {model_name: none, litellm_params: {model: "openai/*"}}
router_settings:
  model_group_alias: {other: "anthropic/*"}
  fallbacks: [{plain: ["anthropic/*"]}, {"anthropic/*": [plain, "*"]}]
"""


def test_wildcards_are_models_for_many_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for the `*` is the target's own name of the model. Other forms of wildcards are listed."""
    config, lines = translated(WILDCARDS, tmp_path)
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "a-key")
    assert parse(yaml.safe_dump(config), "f").models
    models = {model["id"]: model for model in config["models"]}
    assert {
        "anthropic/*": [("anthropic", "*")],
        "*": [("openai", "*")],
        "fixed/*": [("openai", "gpt-5")],
        "plain": [("openai", "gpt-5")],
    } == {name: [(one["backend"], one["model"]) for one in model["targets"]] for name, model in models.items()}
    assert (["plain", "*"], None) == (models["anthropic/*"]["fallbacks"], models["plain"].get("fallbacks"))
    assert 2 == sum('needs one "*", at its end' in line for line in lines)
    assert any("model_group_alias.other: names no translated model" in line for line in lines)


def test_keys_in_the_clear_get_variables(tmp_path: Path) -> None:
    """Each key in the clear becomes a variable of its own, and rates beside the parameters count too."""
    config, lines = example("balancer.yaml", tmp_path)
    backends = config["backends"]
    assert ["${OPENAI_API_KEY}", "${OPENAI_API_KEY_2}", "${OPENROUTER_API_KEY}"] == [
        one["api_key"] for one in backends.values()
    ]
    assert [3, 9, 1] == [target["weight"] for target in config["models"][0]["targets"]]
    assert any(
        line.endswith(
            "environment_variables.REDIS_PASSWORD: set it in the environment of Parley; the value is not copied"
        )
        for line in lines
    )


def test_vendors_with_an_address_of_their_own(tmp_path: Path) -> None:
    """A vendor that LiteLLM does not name is reached at its `api_base`, and models may be fallbacks of each other."""
    config, _ = example("regions.yaml", tmp_path)
    assert {"siliconflow", "zhipu"} == config["backends"].keys()
    assert {"backend": "zhipu", "model": "glm-4-flash"} == config["models"][1]["targets"][0]
    assert [["glm-flash"], ["sf-qwen"]] == [model["fallbacks"] for model in config["models"]]
    assert [8, 8] == [model["retries"]["attempts"] for model in config["models"]]


def test_tiers_of_local_and_other_models(tmp_path: Path) -> None:
    """Ollama, vLLM, Anthropic, Gemini and Bedrock; credentials by name, orders, prices and default fallbacks."""
    config, lines = example("tiers.yaml", tmp_path)
    assert {"vendor": "ollama"} == config["backends"]["ollama"]
    assert {"vendor": "vllm", "base_url": "http://gpu.internal:8000/v1"} == config["backends"]["vllm"]
    assert {"vendor": "anthropic", "api_key": "${TEAM_ANTHROPIC_KEY}"} == config["backends"]["anthropic"]
    assert "us.anthropic.claude-haiku-4-5-20251001-v1:0" == config["models"][4]["targets"][0]["model"]
    models = {model["id"]: model for model in config["models"]}
    assert {"temperature": 0.1, "max_tokens": 200} == models["fast-local"]["defaults"]
    assert {"total": 30} == models["fast-local"]["timeouts"]
    for name in ("smart-local", "smart-again"):  # the same target has the same limit everywhere
        assert 8 == models[name]["targets"][0]["max_concurrent"]
    assert ["smart-local", "cloud"] == models["fast-local"]["fallbacks"]
    assert ["cloud.order-2"] == models["cloud"]["fallbacks"]
    assert models["gpt-4"]["targets"] == models["smart-local"]["targets"]
    assert {
        "anthropic/claude-haiku-4-5": {"prompt": 1, "completion": 5},
        "gemini/gemini-2.5-flash": {"prompt": 0, "completion": 0, "cached_prompt": 0.03},
    } == config["prices"]
    assert "fast-local" == config["default_model"]
    found = "\n".join(lines)
    assert "router_settings.unheard_of: is unknown; left out" in found
    assert "an alias cannot be hidden" in found
    assert "litellm_settings.fallbacks: has an entry that is no translated model" in found


OPENAI, OTHER = {"vendor": "openai", "api_key": "${OPENAI_API_KEY}"}, {"kind": "openai", "base_url": "http://v/v1"}
AZURE = {"vendor": "azure", "base_url": "https://a", "api_key": "${A}"}


@pytest.mark.parametrize(
    ("params", "backend", "model"),
    [
        ("{model: gpt-4, api_key: '${MY_KEY}'}", OPENAI | {"api_key": "${MY_KEY}"}, "gpt-4"),
        ("{model: openai/m, api_key: '', api_base: 'http://v/v1/'}", OTHER, "m"),
        ("{model: openai/m, api_key: sk-unused, api_base: 'http://v/v1/chat/completions'}", OTHER, "m"),
        ("{model: openai/m, api_base: 'https://api.openai.com/v1'}", OPENAI, "m"),
        ("{model: os.environ/MODEL, api_base: os.environ/BASE}", OTHER | {"base_url": "${BASE}"}, "${MODEL}"),
        ("{model: m, custom_llm_provider: groq}", {"vendor": "groq", "api_key": "${GROQ_API_KEY}"}, "m"),
        ("{model: together_ai/m}", {"vendor": "together", "api_key": "${TOGETHERAI_API_KEY}"}, "m"),
        (
            "{model: perplexity/sonar}",
            {"kind": "openai", "base_url": "https://api.perplexity.ai", "api_key": "${PERPLEXITYAI_API_KEY}"},
            "sonar",
        ),
        (
            "{model: anthropic/m, api_base: 'http://v', api_key: os.environ/A}",
            {"kind": "anthropic", "base_url": "http://v", "api_key": "${A}"},
            "m",
        ),
        (
            "{model: azure/d, api_base: 'https://a/openai/deployments/d?api-version=1', api_key: os.environ/A}",
            AZURE,
            "d",
        ),
        (
            "{model: azure/d, api_base: 'https://a/', api_version: 2024-12-01-preview, api_key: os.environ/A}",
            AZURE | {"api_version": "2024-12-01-preview"},
            "d",
        ),
        ("{model: azure/d, api_base: 'https://a/openai/v1/', api_version: latest, api_key: os.environ/A}", AZURE, "d"),
        ("{model: ollama/llama3}", {"vendor": "ollama"}, "llama3"),
        (
            "{model: ollama/llama3, api_base: 'http://gpu:11434'}",
            {"vendor": "ollama", "base_url": "http://gpu:11434/v1"},
            "llama3",
        ),
        (
            "{model: openrouter/openai/gpt-5-mini}",
            {"vendor": "openrouter", "api_key": "${OPENROUTER_API_KEY}"},
            "openai/gpt-5-mini",
        ),
    ],
)
def test_forms_of_addresses_and_keys(
    params: str, backend: dict[str, Any], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each form of address, key and model that public files have becomes a backend that the loader accepts."""
    config, _ = translated(f"model_list: [{{model_name: a, litellm_params: {params}}}]\n", tmp_path)
    assert [backend] == list(config["backends"].values())
    assert model == config["models"][0]["targets"][0]["model"]
    for variable in set(re.findall(r"\$\{(\w+)\}", str(config))):
        monkeypatch.setenv(variable, "http://value")
    assert parse(yaml.safe_dump(config), "parley.yaml").models


def test_headers_of_a_deployment(tmp_path: Path) -> None:
    """Headers are copied, except for values that may be secret, and for those that Parley sends itself."""
    text = """\
model_list:
  - model_name: a
    litellm_params:
      model: groq/m
      api_key: os.environ/K
      organization: org-1
      extra_headers: {X-Team: blue, X-Token: secret-word, X-Ref: os.environ/REF, Authorization: secret-word, x-b: "ü"}
      headers: {Host: a, X-Long: "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="}
  - {model_name: b, litellm_params: {model: bedrock/m, extra_headers: {X-Team: blue}}}
"""
    config, lines = translated(text, tmp_path)
    sent = {"openai-organization": "org-1", "x-long": "${X_LONG}", "x-team": "blue", "x-token": "${X_TOKEN}"}
    assert sent | {"x-ref": "${REF}"} == config["backends"]["groq"]["headers"]
    found = "\n".join(lines)
    assert "secret-word" not in f"{config}{found}"
    for part in (
        "extra_headers.X-Token: the value is not copied: set it in the environment as X_TOKEN",
        "extra_headers.Authorization: is the header of the key; left out",
        "extra_headers.x-b: cannot be sent in a header; left out",
        "headers.Host: is set by Parley itself; left out",
        "model_list[1].litellm_params.extra_headers: any-llm-sdk sends no further headers; left out",
    ):
        assert part in found, part


def test_a_key_in_a_header_and_a_word_for_no_key(tmp_path: Path) -> None:
    """A header takes the place of the vendor's key; a vendor whose servers need a key gets its variable."""
    text = """\
model_list:
  - model_name: a
    litellm_params: {model: groq/m, extra_headers: {Authorization: os.environ/GATEWAY, x-team: " blue "}}
  - {model_name: b, litellm_params: {model: groq/n, api_key: none}}
  - {model_name: c, litellm_params: {model: groq/o, api_key: none, api_base: "http://gateway:4000/v1"}}
  - model_name: d
    litellm_params: {model: azure/p, api_base: "https://me.openai.azure.com", api_key: dummy}
  - model_name: e
    litellm_params: {model: os.environ/M, api_base: "http://h/v1", input_cost_per_token: 1, organization: "file:/a"}
"""
    config, lines = translated(text, tmp_path)
    groq, own, gateway, azure, other = config["backends"].values()
    assert {"Authorization": "${GATEWAY}", "x-team": "blue"} == {
        "Authorization": groq["headers"]["authorization"],
        "x-team": groq["headers"]["x-team"],
    }
    assert [None, "${GROQ_API_KEY}", None, "${AZURE_API_KEY}", None] == [
        one.get("api_key") for one in (groq, own, gateway, azure, other)
    ]
    assert {"openai-organization": "${OPENAI_ORGANIZATION}"} == other["headers"]  # no reference to a file
    assert "prices" not in config
    assert ["config.yaml:9: model_list[4].litellm_params.model: its prices need the name itself"] == [
        line.partition(" in place")[0] for line in lines if "prices" in line
    ]
    filled = re.sub(r"\$\{\w+\}", "value", yaml.safe_dump(config))
    assert 5 == len(parse(filled, "parley.yaml").models)


def test_what_is_known_of_a_model(tmp_path: Path) -> None:
    """Lengths and abilities become metadata of the model, dropped parameters those of the target."""
    text = """\
model_list:
  - model_name: a
    litellm_params: {model: groq/m, additional_drop_params: [seed, user, seed, "tools[*].strict", model, 7]}
    model_info: {max_input_tokens: 8000, max_tokens: 1000, supports_vision: true, supports_audio_input: false}
  - model_name: a
    litellm_params: {model: groq/n}
    model_info: {max_input_tokens: "6000", max_output_tokens: 2000, supports_function_calling: true, access_groups: [x]}
  - {model_name: "any/*", litellm_params: {model: "groq/*"}, model_info: {supports_reasoning: true, max_tokens: -1}}
"""
    config, lines = translated(text, tmp_path)
    known = {"context_length": 6000, "max_output": 1000, "modalities": ["text", "image"], "tools": True}
    first, wildcard = config["models"]
    assert (known, {"reasoning": True}) == (first["metadata"], wildcard["metadata"])
    assert [["seed", "user"], None] == [target.get("drop") for target in first["targets"]]
    assert parse(yaml.safe_dump(config).replace("${GROQ_API_KEY}", "key"), "parley.yaml").models
    place = "model_list[0].litellm_params.additional_drop_params"
    assert [
        f"config.yaml:3: {place}: has an entry that is no droppable parameter; left out",
        "config.yaml:7: model_list[1].model_info.access_groups: has no counterpart in `metadata`; left out",
    ] == lines


def test_values_of_wrong_types_are_left_out(tmp_path: Path) -> None:
    """A file that LiteLLM itself would refuse in parts is translated as far as it makes sense."""
    text = """\
model_list:
  - {model_name: a, litellm_params: {model: gpt-5-mini, rpm: x, timeout: [], stream_timeout: -1}}
  - {model_name: b, litellm_params: {model: openai/b, api_base: 7}}
  - {model_name: c, litellm_params: {model: 7}}
  - {model_name: d, litellm_params: {model: openai/d, api_base: "https://user:secret-word@host/v1"}}
  - [1]
litellm_settings: {fallbacks: [7, {a: 7}, {a: [{model: b}]}], num_retries: x}
router_settings: {model_group_alias: {x: [a], y: 7}}
general_settings: 7
"""
    config, lines = translated(text, tmp_path)
    target = {"backend": "openai", "model": "gpt-5-mini"}
    assert [{"id": "a", "targets": [target]}] == config["models"]
    assert "secret-word" not in f"{config}{lines}"
    problem = "its `api_base` is no URL, or has a password; the deployment is left out"
    for line in (3, 5):
        assert f"config.yaml:{line}: model_list[{line - 2}].litellm_params.model: {problem}" in lines


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("models: []\n", "has no `model_list`"),
        ("model_list: [{model_name: a, litellm_params: {model: whisper-1}}]\n", "has no model that can be translated"),
        ("model_list: 7\n", "has no model that can be translated"),
        ("model_list: [\n", "not valid YAML"),
        ("model_list: [7, {litellm_params: [1]}, {model_name: x}]\n", "has no model that can be translated"),
    ],
)
def test_a_file_without_models_is_an_error(text: str, error: str, tmp_path: Path) -> None:
    """A file of another program, a broken one, or one without chat models is one line, and nothing is printed."""
    (tmp_path / "config.yaml").write_text(text)
    result = run_here("import", "litellm", str(tmp_path / "config.yaml"))
    assert (1, "") == (result.returncode, result.stdout)
    assert error in result.stderr


def test_an_existing_file_stays(tmp_path: Path) -> None:
    """The output replaces a file only with --force."""
    file = tmp_path / "parley.yaml"
    file.write_text("mine")
    command = ("import", "litellm", str(CONFIGS / "tiers.yaml"), "--output", str(file))
    refused = run_here(*command)
    assert (1, "mine") == (refused.returncode, file.read_text())
    assert f"{file} exists; name another file, or replace it with --force" in refused.stderr
    assert (0, True) == (run_here(*command, "--force").returncode, "backends:" in file.read_text())
