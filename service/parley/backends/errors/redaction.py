"""Removes secrets, addresses and paths from upstream messages, recognised by their format.

Text for the log contains no secrets. Text for the caller contains no addresses or paths either.
"""

import re

MAX_LENGTH = 2000
"""Maximum length of a redacted message, in characters."""

REDACTED = "…"
_QUOTED = 60  # characters; longer quotations are removed from the log because they may quote a prompt
_BEYOND = 400  # characters scanned past MAX_LENGTH: a secret may start before the cut

_SECRETS = re.compile(
    r"""
    (?<=://)[^/\s@]+(?=@)                                        # user and password of a URL
    | (?<=[?&#])[^\s"'<>)]+                                      # a URL's query
    | (?<=\bBearer\ )\S+ | (?<=\bBasic\ )\S+
    | (?<![A-Za-z0-9_])(?:sk|pk|rk|gsk|xai|key|hf|ghp|gho|ghs|glpat|xox[abprs]|nvapi|pplx|r8|fw|csk|tgp|dop
      |AKIA|ASIA|AIza|org|proj|acct|ak|req|ya29)[-_.*](?=[\w.*-]*[\d*])[\w.*=-]{4,}     # keys and ids by their prefix
    | (?<![A-Za-z0-9])(?:AKIA|ASIA|AIza|ya29)[\w.-]{8,}
    | (?<![A-Za-z0-9_])(?:(?:sk|pk|xai)-|(?:gsk|hf|ghp)_)[\w.*-]{4,}
    | \beyJ[\w-]+(?:\.[\w-]+){0,2}                                # JSON web tokens
    | [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                 # UUIDs
    | -----BEGIN[^-]*-----[\s\S]*?(?:-----END[^-]*-----|$)
    | \b\w{1,8}\*{3,}\w{0,8}                                      # keys masked by the upstream
    """,
    re.VERBOSE | re.IGNORECASE,
)
# password=…, "api_key": "…"
_NAMED = re.compile(
    r"""((?:pass(?:word|wd|phrase)?|pwd|secret|client_secret|credentials?|api[-_ ]?key|access[-_ ]?key(?:[-_ ]?id)?
    |auth(?:orization)?|access[-_ ]?token|auth[-_ ]?token|signature|sig)
    (?:["'`]?\s*=\s*["'`]?|["'`]?\s*:\s*["'`]|["'`]?\s*:\s*(?=[^\s"'`,;&]*\d)))(?!\s)([^\s"'`,;&<>)}\]]+)""",
    re.VERBOSE | re.IGNORECASE,
)
# Random-looking runs: at least 20 characters with letters and digits, or at least 16 hexadecimal digits.
_LONG = re.compile(
    r"(?<![A-Za-z0-9+/])(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[A-Za-z])(?:[0-9A-Fa-f]{16,}|[A-Za-z0-9+/]{20,}={0,2})"
    r"(?![A-Za-z0-9+/=])"
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)]*", re.IGNORECASE)
_ADDRESS = re.compile(
    r"""
    \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b                          # IPv4
    | \[[0-9a-f:]*:[0-9a-f:]*\](?::\d+)?                          # IPv6 in brackets
    | (?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]+                # e-mail
    | \blocalhost(?::\d+)?\b
    | (?<![\w.-])[a-z0-9][a-z0-9.-]{0,250}\.(?:com|net|org|io|ai|dev|cloud|cn|eu|de|uk|us|app|local|internal|svc|lan
      |corp|intranet|home|cluster)\b(?:\.?\w+)*(?::\d+)?(?:/[^\s"'<>)]*)?
    | (?<![\w.-])(?=[a-z0-9-]+\.)[a-z][a-z0-9.-]{0,250}:\d{2,5}\b      # host:port
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PATH = re.compile(
    r"""
    (?<![\w/.:…\])])(?:~|\.{1,2})?/(?!(?:messages|tools|choices|\d)\b)[\w.@%+-]+(?:/[\w.@%+-]+)+/?
    | \b[A-Z]:\\[^\s"'<>]+ | \\\\[\w.-]+\\[^\s"'<>]+
    """,
    re.VERBOSE,
)
_QUOTATIONS = re.compile(rf"(['\"`])((?:(?!\1).){{{_QUOTED},}})\1", re.DOTALL)


def secrets(text: str, secret: str | None) -> str:
    """Removes everything that looks like a secret, and the backend's own key `secret`."""
    if secret:
        text = text.replace(secret, REDACTED)
    text = _SECRETS.sub(REDACTED, text[: MAX_LENGTH + _BEYOND])
    text = _NAMED.sub(lambda found: found.group(1) + REDACTED, text)
    return _LONG.sub(REDACTED, text)[:MAX_LENGTH]


def for_log(text: str, secret: str | None) -> str:
    """Returns an upstream message for the log: no secrets, no paths, no long quotations (they may quote a prompt)."""
    text = _QUOTATIONS.sub(lambda found: f"{found.group(1)}{REDACTED}{found.group(1)}", secrets(text, secret))
    return _PATH.sub(REDACTED, _URL.sub(_host_only, text))


def for_caller(text: str, secret: str | None) -> str:
    """Returns an upstream message for the caller: no secrets, addresses or paths."""
    text = _URL.sub(REDACTED, secrets(text, secret))
    return _PATH.sub(REDACTED, _ADDRESS.sub(REDACTED, text))


def _host_only(url: re.Match[str]) -> str:
    """Shortens a URL to its scheme and host."""
    scheme, _, rest = url.group().partition("://")
    host, slash, _ = rest.partition("/")
    return f"{scheme}://{host}{slash and '/' + REDACTED}"
