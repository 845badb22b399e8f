"""Redaction of upstream messages for the log and for the caller."""

import pytest

from parley.backends.errors import redaction

KEY = "our-own-secret"
SECRETS = [
    *("sk-or-v1-0123abcd", "sk_live_abcdEFGH1234", "rk_test_abcd1234EFGH", "whsec_AbCd1234efgh", "GOCSPX-abcDEF123_x"),
    *(
        "ASIAIOSFODNN7EXAMPLE",
        "ya29.a0AfH6SMBx",
        "gho_abcdefABCDEF0123",
        "ghs_abcdefABCDEF01",
        "github_pat_11ABCDEFG0abc",
    ),
    *("glpat-abcDEF12_3-xyz", "xoxb-1234567890-abcdef", "xoxp-12-ab", "xapp-1-A012-345-abc", "SG.abcDEF123.ghiJKL456"),
    *("npm_abcdefABCDEF0123456789", "pypi-AgEIcHlwaS5vcmcCJD", "dckr_pat_abcDEF123", "r8_abcdefGHIJ0123"),
    *("pplx-abcdef0123456789", "nvapi-abcDEF-123_xyz", "csk-abcdef0123", "tgp_v1_abcDEF0123-x", "hvs.CAESIabcDEF"),
    *(
        "shpat_0123456789abcdef",
        "dop_v1_0123456789abcdef",
        "lin_api_abcDEF1234",
        "sq0csp-abcDEF-123",
        "ATATT3xFfGF0abc",
    ),
    *("123456789:AAabcdefghijklmnopqrstuvwxyz0123456", "PMAK-0123456789abcdef-0123", "glsa_abcDEF123456"),
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "sk-proj-abcdef0123456789",
    "sk-ant-api03-abcdef",
    "gsk_abcdef0123",
    "xai-abcdef0123",
    "hf_abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyD0123456789abcdefghijklmnopqrstuv",
    "ghp_0123456789abcdef",
    "0123456789abcdef0123456789abcdef",
    "QWxhZGRpbjpvcGVuIHNlc2FtZQ0123456789==",
    "org-abc123def",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "16f2151a-40f4-4a80-8ad0-cae00c27e8dd",
    "xa***in",
    KEY,
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_reaches_neither_the_log_nor_the_caller(secret: str) -> None:
    """Secrets are removed in any surrounding text."""
    for text in (
        f"bad key {secret}.",
        f"key={secret}",
        f'{{"k":"{secret}"}}',
        f"https://u:{secret}@h.example/?k={secret}",
    ):
        for redact in (redaction.for_log, redaction.for_caller):
            assert secret not in redact(text, [KEY]), text


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter",
        'password: "hunter"',
        "PGPASSWORD=hunter",
        "api_key: hunter2",
        "client_secret='hunter'",
        "Authorization: Bearer hunter",
        "https://me:hunter@example.com/v1",
        "postgresql://u:p@ss:hunter@db/x",
        "redis://:hunter@h",
        "Server=db;Password=hunter;",
        "AccountKey=hunter==;",
        "access_token=hunter",
        "token=hunter",
        "refresh_token: 'hunter'",
        "Authorization: Basic hunter",
        "authorization: hunter",
        "Cookie: sid=hunter",
        "x-api-key: hunter2",
        "https://hooks.slack.com/services/hunter",
        "https://example.com/v1?api-key=hunter",
        "https://example.com/v1?code=hunter&x=1",
    ],
)
def test_named_secrets(text: str) -> None:
    """A value named as a secret is removed even if it looks like a word."""
    assert "hunter" not in redaction.for_log(text, ())
    assert "hunter" not in redaction.for_caller(text, ())


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.5:8000/v1",
        "https://me.openai.azure.com/openai/deployments/x",
        "10.0.0.5:8000",
        "vllm-a.internal:8000",
        "localhost:11434",
        "console.groq.com/settings",
        "ops@example.com",
        "/srv/models/llama/weights.gguf",
        "~/models/x.gguf",
        "C:\\models\\x.gguf",
    ],
)
def test_addresses_and_paths_are_not_for_the_caller(address: str) -> None:
    """Addresses and paths are removed from messages for callers."""
    assert "cannot read … now" == redaction.for_caller(f"cannot read {address} now", ())


@pytest.mark.parametrize(
    "text",
    [
        "Invalid value: 'foo'. Supported values are: 'a', 'b', and 'c'.",
        "max_completion_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9120 tokens.",
        "The model `meta-llama/Llama-3.3-70B-Instruct-Turbo` does not support image/png input and/or tools.",
        "claude-3-5-sonnet-20241022 and gpt-4o-2024-08-06: temperature 0.7 or 1e-3, n=3",
        "messages.0.content: field required; /messages/0/content",
        "Use `max_completion_tokens` instead, see key-value pairs; API key: none",
        "password: must be a string",
    ],
)
def test_other_text_is_kept(text: str) -> None:
    """Text without secrets, addresses and paths is unchanged."""
    assert text == redaction.for_caller(text, ())
    assert text == redaction.for_log(text, ())


def test_long_quotations_are_not_logged() -> None:
    """Long quotations are removed from the log, because they may quote a prompt; callers see them."""
    text = f"Invalid message: '{'my secret prompt ' * 9}' is odd"
    assert "Invalid message: '…' is odd" == redaction.for_log(text, ())
    assert text == redaction.for_caller(text, ())


def test_redaction_time_is_bounded() -> None:
    """Redaction of long and adversarial texts is fast."""
    for piece in ("a", "a.", "a/", "/a", "'", "=", "a@", "sk-", "1234567890abcdef", "x: ", "\\", "…", "http://"):
        text = piece * 20_000
        assert len(redaction.for_caller(text, ["k"])) <= redaction.MAX_LENGTH
        assert len(redaction.for_log(text, ["k"])) <= redaction.MAX_LENGTH
