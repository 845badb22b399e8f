"""Soft budgets: notifications before limits of days and months are reached."""

import base64
import binascii
from dataclasses import field
from typing import Annotated
from urllib.parse import urlsplit

from parley.config.auth import is_secure_url
from parley.config.markers import After, Constraints
from parley.config.types import Strict

_PREFIX = "whsec_"
_MIN_SECRET_BYTES = 24  # Standard Webhooks, "Signature scheme"
_HOW = "must be `whsec_` and the base64 of at least 24 random bytes; make one with `openssl rand -base64 32`"


def _webhook_url(text: str) -> str:
    """Rejects text that is not an HTTPS URL, or an HTTP URL of this machine. The error never repeats the text."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError('must be a URL, for example "https://example.com/hooks/parley"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or a password; the receiver checks the signature")
    if not is_secure_url(text):
        raise ValueError("must begin with https://, except on this machine")
    return text


def _webhook_secret(text: str) -> str:
    """Rejects text that is not a secret of Standard Webhooks. The error never repeats the text."""
    try:
        decoded = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_HOW) from None
    if not text.startswith(_PREFIX) or len(decoded) < _MIN_SECRET_BYTES:
        raise ValueError(_HOW)
    return text


class Webhook(Strict):
    """The receiver of notifications: a server that accepts Standard Webhooks (https://www.standardwebhooks.com).

    Example:
        budgets:
          webhook: {url: "https://example.com/hooks/parley", secret: "${WEBHOOK_SECRET}"}
    """

    url: Annotated[str, After(_webhook_url)] = field(repr=False)
    """URL that receives a POST for each notification: HTTPS, or HTTP on this machine. Redirects are not followed."""
    secret: Annotated[str, After(_webhook_secret)] = field(repr=False)
    """Secret that signs the notifications: `whsec_` and the base64 of at least 24 random bytes."""

    @property
    def signing_key(self) -> bytes:
        """The bytes of the secret."""
        return base64.b64decode(self.secret.removeprefix(_PREFIX))


class Budgets(Strict):
    """Notifications about accounts and keys that approach a limit of tokens or money of a day or a month.

    Example:
        budgets: {warn_at: [0.5, 0.8, 1.0]}
        limits: {account: {cost_per_month: 1000}}
    """

    warn_at: Annotated[list[Annotated[float, Constraints(gt=0, le=100)]], Constraints(max_length=20)] = field(
        default_factory=lambda: [0.8, 1.0]
    )
    """Shares of a limit. Each is logged once in each period when the usage reaches it."""
    webhook: Webhook | None = None
    """Receiver of the same notifications. Default: none, they are only logged."""
