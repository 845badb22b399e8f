"""Translates the headers that a deployment sends."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from parley.cli.litellm.source import Remarks, mapping, text, variable
from parley.config.source import FieldPath
from parley.config.upstream_requests import OWN_HEADERS

Hide = Callable[[str, str, FieldPath], str]
"""Returns the environment variable that takes the place of a secret, given the secret, a wanted name and its path."""
_SETTINGS = ("headers", "extra_headers")
_OPENAI_ORGANIZATION = "openai-organization"
_KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .,_:/-]{0,38}[A-Za-z0-9])?")
_SECRET_NAME = re.compile(r"(?i)auth|key|token|secret|passw|cookie|sign|cred")


def have_key(params: Mapping[str, Any]) -> bool:
    """Reports whether a deployment sends a header that keys are in."""
    found = ((name, value) for name, (_, value) in _given(params, ()).items() if name in _KEY_HEADERS)
    return any(_problem(name, value, has_key=False) is None for name, value in found)


def translated(
    params: Mapping[str, Any], path: FieldPath, remarks: Remarks, hide: Hide, *, has_key: bool
) -> dict[str, str]:
    """Returns the headers of a backend. A value in the clear that may be secret becomes a variable.

    Args:
        params: The `litellm_params`.
        path: Their path, for remarks.
        remarks: Collects what cannot be sent.
        hide: Takes a secret out of the configuration.
        has_key: Whether the backend has a key, with a header of its own.
    """
    found = {}
    for name, (place, value) in _given(params, path).items():
        if problem := _problem(name, value, has_key=has_key):
            remarks.add(place, f"{problem}; left out")
        elif variable(value) or _is_harmless(name, str(value)):
            found[name] = text(value)
        else:
            found[name] = f"${{{hide(str(value), _variable(name), place)}}}"
    return found


def _given(params: Mapping[str, Any], path: FieldPath) -> dict[str, tuple[FieldPath, object]]:
    """Returns the path and the value of each header, by its name in lower case. Outer spaces are no part of a value."""
    given: dict[str, tuple[FieldPath, object]] = {}
    if params.get("organization"):
        given[_OPENAI_ORGANIZATION] = ((*path, "organization"), params["organization"])
    for setting in _SETTINGS:
        for name, value in mapping(params.get(setting)).items():
            given[name.lower()] = ((*path, setting, name), value)
    return {name: (where, value.strip() if isinstance(value, str) else value) for name, (where, value) in given.items()}


def _problem(name: str, value: object, *, has_key: bool) -> str | None:
    """Returns why a header cannot be sent; None if it can."""
    if not _NAME.fullmatch(name) or not str(value).isascii() or not str(value).isprintable():
        return "cannot be sent in a header"
    if name in OWN_HEADERS:
        return "is set by Parley itself"
    return "is the header of the key" if has_key and name in _KEY_HEADERS else None


def _is_harmless(name: str, value: str) -> bool:
    """Reports whether a value in the clear can be copied: a few plain words, under a name that means no secret."""
    is_reference = value.startswith("file:")  # in a configuration of Parley
    return not value or (not is_reference and _PLAIN.fullmatch(value) is not None and _SECRET_NAME.search(name) is None)


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
