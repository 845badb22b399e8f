"""The shapes of secrets: keys of well-known services, private keys, JSON Web Tokens.

Each is a regular expression of RE2 with a fixed beginning, so that ordinary text rarely has one. The lengths are those
that the services document, or that their keys have had so far.
"""

from typing import NamedTuple


class SecretShape(NamedTuple):
    """A shape of secrets.

    Attributes:
        name: The name, as guards report it.
        pattern: The expression. If it has a group named `secret`, the secret is that group.
        beginning: An expression for the beginning of a long secret whose rest has not arrived; empty if the overlap of
            windows is longer than what the pattern needs.
    """

    name: str
    pattern: str
    beginning: str = ""


_BASE64 = "[A-Za-z0-9_-]"
_PRIVATE_KEY = "-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----"

SHAPES = (
    SecretShape("private_key", rf"(?s){_PRIVATE_KEY}.*?(?:-----END [A-Z0-9 ]{{1,40}}-----|\z)"),
    SecretShape("anthropic_key", rf"\bsk-ant-{_BASE64}{{20,}}"),
    SecretShape("openai_key", rf"\bsk-(?:(?:proj|svcacct|admin|None)-{_BASE64}{{20,}}|[A-Za-z0-9]{{32,}}\b)"),
    SecretShape("openrouter_key", r"\bsk-or-v1-[0-9a-f]{32,}"),
    SecretShape("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    SecretShape(
        "aws_secret_key",
        r"(?i)\baws.{0,20}?(?:secret|key).{0,20}?[\s\"':=](?P<secret>[A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)",
    ),
    SecretShape("github_token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    SecretShape("gitlab_token", rf"\bgl(?:pat|oas|dt|rt|cbt|ptt|ft|soat)-{_BASE64}{{20,}}"),
    SecretShape("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-\d-[A-Za-z0-9-]{10,}"),
    SecretShape("slack_webhook", r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}"),
    SecretShape("google_api_key", rf"\bAIza{_BASE64}{{35}}"),
    SecretShape("google_oauth_token", rf"\bya29\.{_BASE64}{{20,}}"),
    SecretShape("groq_key", r"\bgsk_[A-Za-z0-9]{40,}"),
    SecretShape("huggingface_token", r"\bhf_[A-Za-z0-9]{30,}"),
    SecretShape("stripe_key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|\bwhsec_[A-Za-z0-9+/=]{24,}"),
    SecretShape("sendgrid_key", rf"\bSG\.{_BASE64}{{16,}}\.{_BASE64}{{16,}}"),
    SecretShape("npm_token", r"\bnpm_[A-Za-z0-9]{36,}"),
    SecretShape("pypi_token", rf"\bpypi-AgE{_BASE64}{{16,}}"),
    SecretShape("digitalocean_token", r"\bdo[oprt]_v1_[0-9a-f]{64}"),
    SecretShape(
        "jwt",
        rf"\beyJ{_BASE64}{{10,}}\.eyJ{_BASE64}{{10,}}\.{_BASE64}{{10,}}",
        rf"\beyJ{_BASE64}{{10,}}(?:\.(?:eyJ{_BASE64}*)?(?:\.{_BASE64}*)?)?\z",
    ),
    SecretShape("parley_key", rf"\b(?P<secret>sk-{_BASE64}{{43}})(?:[^A-Za-z0-9_-]|\z)"),
)
