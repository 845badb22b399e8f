"""The guards: what checks the texts of requests and answers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Literal

from parley.config.markers import Constraints
from parley.config.types import Duration, Strict, matches

_METADATA_NAME = re.compile(r"[a-z0-9_.-]+")
_METADATA_VALUE = re.compile(r"[ -~]*")
_RESERVED = ("grpc-", ":")
SECRET_OVERLAP = 100
"""Characters of the shapes of secrets that one window must have, so that each is found wherever windows end."""


class Guard(Strict):
    """A guard: a gRPC service (`address`), or the one in the package (`patterns`, `secrets`). See docs/guards.md.

    Example:
        guards:
          pii: {address: "guard.internal:50060", tls: true, deadline: 500ms, on_failure: closed}
          keys: {secrets: true, patterns: ["[A-Z]{2}-[0-9]{6}"], action: redact}
        default_guards: [keys]
        models:
          - id: support
            targets: [{backend: local}]
            guards: [keys, pii]
    """

    address: (
        Annotated[str, matches("[!-~]+", 'must be an address without spaces, for example "guard:50060"')] | None
    ) = None
    """`host:port` or a gRPC target name of a service with the interface `parley.guard.v1.Guard`."""
    tls: bool = False
    """Whether the connection uses TLS and checks the service's certificate."""
    ca: Path | None = None
    """PEM file of the certificate authorities of the service. Default: those of the system."""
    client_certificate: Path | None = None
    """PEM file of the client certificate, which may also have its key."""
    client_key: Path | None = None
    """PEM file of the key of the client certificate. Default: in `client_certificate`."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Metadata of every check, for example `authorization`."""
    deadline: Duration = 1.0
    """Time limit of one check of a service. A check that takes longer has failed."""
    on_failure: Literal["closed", "open"] = "closed"
    """What a failed check costs: the call ends with 503 `GUARD_UNAVAILABLE` (`closed`), or the text passes (`open`)."""
    before: bool = True
    """Whether the guard checks the messages of requests, before a model receives them."""
    after: bool = True
    """Whether the guard checks answers, before the caller receives them."""
    window: Annotated[int, Constraints(ge=1, le=65536)] = 200
    """Characters of a streamed answer that are held back until the guard has checked them together."""
    overlap: Annotated[int, Constraints(ge=0, le=65536)] = 100
    """Characters at the end of a window that are held back further, and checked again with the next one, so that a span
    of this length is found wherever it lies."""
    history: Annotated[int, Constraints(ge=0, le=1000)] = 0
    """Largest number of the session's latest messages that the guard receives with a request, for context; at most
    1 MiB."""
    media: Literal["refuse", "pass"] | None = None
    """Whether images, audio and files, which a guard cannot read, are refused or pass. Default: `refuse` with
    `on_failure: closed`, `pass` with `open`."""
    patterns: list[Annotated[str, Constraints(min_length=1)]] = field(default_factory=list)
    """Regular expressions in the syntax of RE2, which the guard in the package finds."""
    secrets: bool = False
    """Whether the guard in the package finds keys of well-known services, private keys and JSON Web Tokens."""
    action: Literal["redact", "refuse"] = "redact"
    """Whether the guard in the package replaces what it finds, or refuses the text."""
    replacement: str = "[redacted]"
    """What the guard in the package replaces a finding with."""

    @property
    def refuses_media(self) -> bool:
        """Whether images, audio and files are refused."""
        return self.media == "refuse" or (self.media is None and self.on_failure == "closed")


_OF_SERVICE = ("tls", "ca", "client_certificate", "client_key", "headers", "deadline", "history")
_OF_PATTERNS = ("patterns", "secrets", "action", "replacement")
_DEFAULTS = {one.name: getattr(Guard(), one.name) for one in fields(Guard)}


def problems(guards: Mapping[str, Guard]) -> Iterator[str]:
    """Yields what is wrong with the guards, each text with the path of the field."""
    for name, guard in guards.items():
        for key, text in _problems(guard):
            yield f"guards.{name}.{key}: {text}" if key else f"guards.{name}: {text}"


def unknown_guard(names: Sequence[str], guards: Mapping[str, Guard], path: str) -> str | None:
    """Returns what is wrong with a list of guards; None if nothing is."""
    for position, name in enumerate(names):
        if name not in guards:
            known = f"use one of: {', '.join(guards)}" if guards else "define it in `guards`"
            return f'{path}[{position}]: no guard is named "{name}"; {known}'
        if name in names[:position]:
            return f'{path}[{position}]: "{name}" is listed already; remove it'
    return None


def _problems(guard: Guard) -> Iterator[tuple[str, str]]:
    is_service, is_own = guard.address is not None, bool(guard.patterns or guard.secrets)
    if is_service == is_own:
        yield "", "needs either `address`, or `patterns` or `secrets`"
        return
    kind = "patterns and secrets" if is_own else "a service"
    for key in _OF_SERVICE if is_own else _OF_PATTERNS:
        if getattr(guard, key) != _DEFAULTS[key]:
            yield key, f"has no meaning for a guard with {kind}; remove it"
    if not guard.before and not guard.after:
        yield "after", "is false, as `before` is; a guard checks at least one of the two"
    if guard.secrets and guard.overlap < SECRET_OVERLAP:
        yield "overlap", f"must be at least {SECRET_OVERLAP} with `secrets`, or parts of them pass between windows"
    yield from _tls(guard)
    yield from _headers(guard.headers)
    yield from _patterns(guard.patterns)
    if len(guard.replacement) > 1024:  # noqa: PLR2004 - as in guard.proto
        yield "replacement", "must have at most 1,024 characters"


def _tls(guard: Guard) -> Iterator[tuple[str, str]]:
    for key in ("ca", "client_certificate", "client_key"):
        if getattr(guard, key) is not None and not guard.tls:
            yield key, "needs `tls: true`"
    if guard.client_key is not None and guard.client_certificate is None:
        yield "client_key", "needs `client_certificate`; set it"


def _headers(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if not _METADATA_NAME.fullmatch(name) or name.startswith(_RESERVED) or name.endswith("-bin"):
            yield f"headers.{name}", "is not a name of metadata; use lower-case letters, digits, `_`, `-`, `.`"
        elif not _METADATA_VALUE.fullmatch(value):
            yield f"headers.{name}", "must be printable ASCII, without line breaks"


def _patterns(patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    if not patterns:
        return
    import re2  # loaded only where a guard has patterns

    for position, pattern in enumerate(patterns):
        options = re2.Options()
        options.log_errors = False
        try:
            found = re2.compile(pattern, options).search("")
        except re2.error as error:
            cause = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            yield f"patterns[{position}]", f"is not a regular expression of RE2 ({cause}); correct it"
            continue
        if found is not None:
            yield f"patterns[{position}]", "matches the empty text; require at least one character"
