"""The commented configuration that `parley init` writes."""

import json
import re
from dataclasses import dataclass

from parley.cli.shared.vendors import Vendor

_TEMPLATE = """\
# The configuration of Parley. Start it with: parley up --config {file}
# docs/configuration.md describes every key. `parley config check {file}` finds mistakes;
# `parley doctor --config {file}` also calls each backend.
# Lines such as `# limits: …` are examples: remove the `# ` to use them.

# Servers that answer. Keys stay out of this file: ${{NAME}} is a variable of the environment, ${{file:/path}} a file.
backends:
  {name}:
{backend}
  # second: {{kind: llama_cpp}}

# Models that requests can name. The targets of a model share its calls by weight; one that fails is left out.
models:
  - id: {id}
    targets: [{target}]
    # The system prompt before every conversation, and parameters for requests that leave them out.
{behaviour}
    # Models that answer when no target can.
    # fallbacks: [backup]
    # Which conversations are kept: all (auto), those with a session id (on_request), or none (off).
    # sessions: on_request
  # - {{id: backup, targets: [{{backend: second}}]}}

# The model of requests without `model`.
default_model: {id}

# Sessions without a turn for this time are deleted. Default: 30d.
# sessions: {{ttl: 7d}}

# Limits of each key and of each account, all its keys together. Default: none.
# limits: {{key: {{requests_per_minute: 60, tokens_per_day: 5M}}, account: {{concurrent: 100}}}}

# Prices of a million tokens, for receipts and `parley usage`.
# prices: {{{price}: {{prompt: 0.25, completion: 2}}}}

# Where sessions and keys are. Default: an SQLite file in the state folder. Several machines share a PostgreSQL.
# store: {{kind: postgres, url: "postgresql://parley:${{PGPASSWORD}}@db.internal/parley"}}

# The certificate, needed as soon as other machines call.
# tls: {{certificate: /etc/parley/tls.pem, key: /etc/parley/tls.key}}
"""
_EXAMPLES = """\
    # instructions: "You are the support assistant of Example Ltd."
    # defaults: {temperature: 0.7, max_tokens: 512}"""
_BUILT_IN = """\
    # The built-in model is so small that it needs these.
    instructions: "You are a helpful assistant. Answer in one short sentence."
    defaults: {temperature: 0, max_tokens: 512}
    history: {max_tokens: 2500}"""
_COMMENTS = {
    "kind": {
        "openai": "any server with OpenAI's chat completions API",
        "anthropic": "Anthropic's Messages API",
        "llama_cpp": "llama.cpp's server, which Parley starts, with the built-in model",
        "any_llm": "a provider of any-llm-sdk: pip install 'parley-gateway[any-llm]'",
    },
}
_PRESET = "its preset; each field of it can be replaced here, and `parley vendors` shows them"
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # not text in YAML
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the configuration depends on.

    Attributes:
        name: The name of the backend.
        vendor: The vendor.
        base_url: The URL of the API; "" for that of the vendor.
        key: The environment variable with the key; "" for no key.
        model: The vendor's name of the model; "" for the built-in model.
        model_id: The id that requests name.
    """

    name: str
    vendor: Vendor
    base_url: str
    key: str
    model: str
    model_id: str


def starter(answers: Answers, file: str) -> str:
    """Returns the text of the configuration, which is to be written to `file`."""
    target = f"{{backend: {_scalar(answers.name)}"
    target += f", model: {_scalar(answers.model)}}}" if answers.model else "}"
    price = f"{answers.name}/{answers.model}" if answers.model else answers.name
    return _TEMPLATE.format(
        file=file,
        name=_scalar(answers.name),
        backend="\n".join(_backend(answers)),
        id=_scalar(answers.model_id),
        target=target,
        price=_scalar(price),
        behaviour=_BUILT_IN if answers.vendor.kind == "llama_cpp" else _EXAMPLES,
    )


def _backend(answers: Answers) -> list[str]:
    entry = answers.vendor.backend(answers.base_url, answers.key)
    lines = []
    for key, value in entry.items():
        comment = _PRESET if key == "vendor" else _COMMENTS.get(key, {}).get(value)
        lines.append(f"    {key}: {_scalar(value)}" + (f"  # {comment}" if comment else ""))
    return lines


def _scalar(value: str) -> str:
    """Returns a text as YAML: plain where that is safe, else in double quotes."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)
