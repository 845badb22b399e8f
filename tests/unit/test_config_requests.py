"""The settings of requests to backends, and the presets of vendors, in the configuration."""

from pathlib import Path

import pytest

from parley.config import ConfigError, OpenAIBackend, vendor_of
from parley.config.loader import parse

CONFIG = "backends:\n  one: {{{settings}}}\nmodels: [{{id: m, targets: [{{backend: one}}]}}]\n"


def backend(settings: str) -> OpenAIBackend:
    """Returns the backend of a configuration."""
    found = parse(CONFIG.format(settings=settings), "f").backends["one"]
    assert isinstance(found, OpenAIBackend)
    return found


GROQ = "vendor: groq, api_key: k-1"
PARLEY = "kind: parley, target: 'h:1'"
ANY_LLM = "kind: any_llm, provider: mistral"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("vendor: grok", 'vendor: is unknown; did you mean "groq"?'),
        ("vendor: 5", "vendor: is unknown; use one of: openai, azure, "),
        ("vender: groq, api_key: k", 'vender: is unknown; did you mean "vendor"?'),
        ("vendor: groq", 'api_key: is required for groq; set it, for example to "${GROQ_API_KEY}"'),
        ("vendor: groq, api_keys: null", "api_key: is required for groq; set it"),
        ("vendor: groq, apikey: secret", 'apikey: is unknown; did you mean "api_key"?'),
        ("vendor: azure, api_key: k, baseurl: 'https://a.test'", 'baseurl: is unknown; did you mean "base_url"?'),
        ("vendor: groq, api_key: null", "api_key: is required for groq; set it"),
        ("vendor: groq, api_key: ''", "api_key: is empty; set it, or remove it"),
        (
            "vendor: azure, api_key: k",
            'base_url: is required for azure; set it, for example to "https://NAME.openai.azure.com"',
        ),
        (
            "vendor: bedrock, api_key: k",
            'base_url: is required for bedrock; set it, for example to "https://bedrock-mantle.REGION.api.aws/v1"',
        ),
        (
            'vendor: azure, api_key: k, base_url: "https://me.openai.azure.com/openai/deployments/x"',
            'base_url: must end before /openai, which `path` has, for example "https://NAME.openai.azure.com"',
        ),
        (f"{GROQ}, kind: anthropic", "kind: the vendor groq has the kind openai; remove one of them"),
        (f"{GROQ}, api_keys: [a, b]", "api_keys: takes the place of `api_key`; remove one of them"),
        ("vendor: groq, api_keys: []", "api_keys: must have at least 1 entry"),
        ("vendor: groq, api_keys: ['a b']", "api_keys[0]: must be one word of printable ASCII, without line breaks"),
        (f"{GROQ}, key_header: 'a b'", 'key_header: must be as "Authorization: Bearer" or "api-key"'),
        (f"{GROQ}, key_header: a, key_parameter: b", "key_parameter: takes the place of `key_header`; remove one of"),
        (f"{GROQ}, headers: {{Host: secret}}", 'headers: "Host" is set by Parley itself; remove it'),
        (f"{GROQ}, headers: {{a b: secret}}", "headers: the names must be of letters, digits and hyphens"),
        (
            f'{GROQ}, headers: {{x: "secret\\n"}}',
            'headers: the value of "x" must be printable ASCII, without line breaks',
        ),
        (f"{GROQ}, headers: {{x: a, X: b}}", 'headers: "X" is set twice; remove one of them'),
        (f"{GROQ}, headers: {{x: 5}}", "headers.x: must be text; put it in quotes"),
        (
            f"{GROQ}, path: chat",
            'path: must be a path without a query, for example "/chat/completions"; only {model} may',
        ),
        (f'{GROQ}, path: "/a?b"', "path: must be a path without a query"),
        (f'{GROQ}, path: "/{{key}}"', "path: must be a path without a query"),
        (f"{GROQ}, proxy: 'socks5://u:secret@p'", "proxy: must be `off` or a URL, for example"),
        (f"{GROQ}, client_key: /a.pem", "client_key: needs `client_certificate`; set it"),
        (f"{GROQ}, forward_headers: [Authorization]", 'forward_headers: "authorization" is never forwarded; remove it'),
        (f"{GROQ}, forward_headers: [parley-model]", 'forward_headers: "parley-model" is never forwarded; remove it'),
        ("vendor: azure, base_url: 'https://a.test', discover: true", "discover: Azure lists models, but calls name"),
        (
            f"{GROQ}, set: {{thinking.type: off}}",
            'set: "thinking.type" is a part of a parameter; name the whole parameter',
        ),
        (f"{GROQ}, key_header: Content-Length", "key_header: is set by Parley itself; name another header"),
        (f"{GROQ}, default: {{a.b: 1}}", 'default: "a.b" is a part of a parameter; name the whole parameter'),
        (f"{GROQ}, drop: [messages.a.b]", 'drop: "messages.a.b" is a part of a parameter; name the whole parameter'),
        (f"{GROQ}, rename: {{seed: a.b}}", 'rename: "a.b" is a part of a parameter; name the whole parameter'),
        (f"{GROQ}, drop: ['']", "drop: the name of a parameter is empty; remove it"),
        (f"{GROQ}, rename: {{model: engine}}", "rename: `model` cannot be changed here; remove it"),
        (f"{GROQ}, drop: [messages.content]", "drop: `messages.content` cannot be changed here; remove it"),
        (
            f"{GROQ}, forward_headers: [x-a], headers: {{X-A: b}}",
            'forward_headers: "x-a" is set by this backend; remove',
        ),
        (f"{PARLEY}, ca: /ca.pem", "ca: needs `tls: true`; set it"),
        (f"{PARLEY}, client_certificate: /a.pem", "client_certificate: needs `tls: true`; set it"),
        (f"{PARLEY}, tls: true, client_key: /a.pem", "client_key: needs `client_certificate`; set it"),
        (f"{PARLEY}, headers: {{grpc-x: secret}}", 'headers: "grpc-x" cannot be gRPC metadata; remove it'),
        (f"{PARLEY}, headers: {{X-Bin: secret}}", 'headers: "x-bin" cannot be gRPC metadata; remove it'),
        (f"{PARLEY}, headers: {{a!: secret}}", 'headers: "a!" cannot be gRPC metadata; remove it'),
        (
            f"{PARLEY}, api_key: k-1, headers: {{Authorization: secret}}",
            'headers: "authorization" is the header of the key; remove it, or the key',
        ),
        (f"{PARLEY}, proxy: off", "proxy: is not a field of the kind parley, but of openai, anthropic; rem"),
        (
            f"{PARLEY}, api_keys: [a, b]",
            "api_keys: is not a field of the kind parley, but of openai, anthropic; rem",
        ),
        (
            f"{ANY_LLM}, headers: {{a: b}}",
            "headers: is not a field of the kind any_llm, but of openai, anthropic, par",
        ),
        (
            f"{ANY_LLM}, ca: /a.pem",
            "ca: is not a field of the kind any_llm, but of openai, anthropic, par",
        ),
        (f"{ANY_LLM}, model_path: /a", "model_path: is not a field of the kind any_llm, but of llama_cpp; remove it"),
    ],
)
def test_an_error_names_the_field(settings: str, line: str) -> None:
    """An error names the field and what is allowed, and repeats no value."""
    with pytest.raises(ConfigError) as caught:
        backend(settings)
    assert str(caught.value).startswith(f"f:2: backends.one.{line}")
    assert "secret" not in str(caught.value)


def test_every_field_of_a_preset_can_be_replaced() -> None:
    """The fields of the file take the place of those of the preset, null included."""
    plain = backend(GROQ)
    changed = backend('vendor: groq, base_url: "http://gw.test/v1", rename: {}, unsupported: [seed], prefill: off')
    assert ("https://api.groq.com/openai/v1", {"max_tokens": "max_completion_tokens"}) == (plain.base_url, plain.rename)
    assert ("http://gw.test/v1", {}, ["seed"], "off") == (
        changed.base_url,
        changed.rename,
        changed.unsupported,
        changed.prefill,
    )
    assert backend("vendor: vllm").health is not None
    assert backend("vendor: vllm, health: null").health is None


def test_secrets_are_not_in_the_representation() -> None:
    """Keys, headers, query parameters and the proxy are left out of `repr`."""
    text = repr(
        backend(
            'vendor: groq, api_keys: [secret-1], headers: {a: secret-2}, query: {b: secret-3}, proxy: "http://u:secret@p"'
        )
    )
    assert "secret" not in text


def test_a_whole_value_may_be_a_file(tmp_path: Path) -> None:
    """`file:PATH` is the content of the file, whose state is kept, in keys and in headers."""
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    config = parse(
        CONFIG.format(settings=f'vendor: groq, api_key: "file:{secret}", headers: {{a: "file:{secret}"}}'), "f"
    )
    found = config.backends["one"]
    assert isinstance(found, OpenAIBackend)
    assert ("from-a-file", {"a": "from-a-file"}) == (found.api_key, found.headers)
    assert {str(secret)} == config.files.keys()
    with pytest.raises(ConfigError) as caught:
        backend(f'vendor: groq, api_key: "file:{tmp_path}/none"')
    assert "backends.one.api_key: " in str(caught.value)


@pytest.mark.parametrize("content", ["key-1", "key-1\n", "key-1\r\n", "key-1\n\n", "\ufeffkey-1\r\n"])
def test_a_file_may_end_with_line_breaks_and_begin_with_a_byte_order_mark(tmp_path: Path, content: str) -> None:
    """Editors and shells add them; they are no part of the value."""
    secret = tmp_path / "secret"
    secret.write_bytes(content.encode())
    found = backend(f'vendor: groq, api_key: "${{file:{secret}}}", headers: {{a: "file:{secret}"}}')
    assert isinstance(found, OpenAIBackend)
    assert ("key-1", {"a": "key-1"}) == (found.api_key, found.headers)


@pytest.mark.parametrize("content", ["", "\n", "\ufeff"])
def test_an_empty_file_is_no_value(tmp_path: Path, content: str) -> None:
    """It is about to be written: a header without its value would fail every call."""
    secret = tmp_path / "secret"
    secret.write_bytes(content.encode())
    with pytest.raises(ConfigError, match=f"backends.one.headers.a: {secret} is empty; write the value into it"):
        backend(f'vendor: groq, api_key: key-1, headers: {{a: "file:{secret}"}}')


def test_certificates_are_watched(tmp_path: Path) -> None:
    """The state of each file of certificates is kept, so that a replaced one is read; a missing one is not."""
    (tmp_path / "ca.pem").write_text("x")
    fields = f'vendor: vllm, ca: "{tmp_path}/ca.pem", client_certificate: "{tmp_path}/none.pem"'
    assert {f"{tmp_path}/ca.pem"} == parse(CONFIG.format(settings=fields), "f").files.keys()


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://API.Groq.com/openai/v1", "groq"),
        ("https://me.openai.azure.com/openai", "azure.ai.openai"),
        ("https://me.services.ai.azure.com/models", "azure.ai.inference"),
        ("https://europe-west1-aiplatform.googleapis.com/v1", "gcp.vertex_ai"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "aws.bedrock"),
        ("https://api.cohere.com/compatibility/v1", "cohere"),
        ("https://groq.com.example.test/v1", None),
        ("http://10.0.0.5:8000/v1", None),
        ("http://[", None),
    ],
)
def test_a_vendor_is_known_by_its_host(url: str, provider: str | None) -> None:
    """A host belongs to a vendor with its subdomains, whatever its case; other hosts to none."""
    vendor = vendor_of(url)
    assert provider == (vendor.provider if vendor is not None else None)
