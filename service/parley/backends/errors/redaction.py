"""Removes secrets, addresses and paths from upstream messages, recognised by their format.

Text for the log contains no secrets. Text for the caller contains no addresses or paths either.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from parley.logs.secrets import STRUCK, strike

MAX_LENGTH = 2000
"""Maximum length of a redacted message, in characters."""

REDACTED = STRUCK
_QUOTED = 60  # characters; longer quotations are removed from the log because they may quote a prompt
_BEYOND = 400  # characters scanned past MAX_LENGTH: a secret may start before the cut

_CREDENTIAL = re.compile(r"key|token|secret|auth|passw|sig|cookie|credential", re.IGNORECASE)
_SCHEMES = frozenset({"bearer", "basic", "token", "apikey", "api-key", "key"})
_SHORTEST = 4  # characters of a secret; removing shorter texts would destroy the message

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
    (?<![\w/.…\])])(?:~|\.{1,2})?/(?!(?:messages|tools|choices|\d)\b)[\w.@%+-]+(?:/[\w.@%+-]+)+/?
    | \b[A-Z]:\\[^\s"'<>]+ | \\\\[\w.-]+\\[^\s"'<>]+
    """,
    re.VERBOSE,
)
_QUOTATIONS = re.compile(rf"(['\"`])((?:(?!\1).){{{_QUOTED},}})\1", re.DOTALL)


def secret_values(values: Mapping[str, str]) -> Iterator[str]:
    """Yields those of the values of headers or parameters, and of their words, that look like secrets."""
    for name, value in values.items():
        is_credential = _CREDENTIAL.search(name) is not None
        for text in {value, *value.split()}:
            if may_be_secret(text) or (is_credential and len(text) >= _SHORTEST and text.lower() not in _SCHEMES):
                yield text


def may_be_secret(value: str) -> bool:
    """Returns whether a configured value looks like a secret. An ordinary word must not be removed from errors."""
    return len(value) >= 16 or (len(value) >= 8 and any(map(str.isdigit, value)))  # noqa: PLR2004


def secrets(text: str, own: Iterable[str]) -> str:
    """Removes everything that looks like a secret, and the backend's own secrets."""
    for secret in own:
        text = text.replace(secret, REDACTED)
    return strike(text[: MAX_LENGTH + _BEYOND])[:MAX_LENGTH]


def for_log(text: str, own: Iterable[str]) -> str:
    """Returns an upstream message for the log: no secrets, no paths, no long quotations (they may quote a prompt)."""
    text = _QUOTATIONS.sub(lambda found: f"{found.group(1)}{REDACTED}{found.group(1)}", secrets(text, own))
    return _PATH.sub(REDACTED, _URL.sub(_host_only, text))


def for_caller(text: str, own: Iterable[str]) -> str:
    """Returns an upstream message for the caller: no secrets, addresses or paths."""
    text = _URL.sub(REDACTED, secrets(text, own))
    return _PATH.sub(REDACTED, _ADDRESS.sub(REDACTED, text))


def _host_only(url: re.Match[str]) -> str:
    """Shortens a URL to its scheme and host."""
    scheme, _, rest = url.group().partition("://")
    host, slash, _ = rest.partition("/")
    return f"{scheme}://{host}{slash and '/' + REDACTED}"
