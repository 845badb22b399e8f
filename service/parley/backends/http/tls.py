"""The TLS settings of clients."""

import ssl
from functools import cache

from parley.config import ConfigError, Guard, RemoteBackend


def context_for(settings: RemoteBackend | Guard) -> ssl.SSLContext | None:
    """Returns the TLS settings of a backend or a guard; None for those of every client, which `shared_context` returns.

    Raises:
        ConfigError: If a file cannot be read, or has no certificate or key.
    """
    if settings.ca is None and settings.client_certificate is None:
        return None
    try:
        context = _new_context(str(settings.ca) if settings.ca else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"ca: {settings.ca} cannot be used ({_reason(error)}); name a readable PEM file") from error
    if settings.client_certificate is not None:
        try:
            context.load_cert_chain(settings.client_certificate, settings.client_key, password=_no_password)
        except (OSError, ValueError) as error:
            name = settings.client_certificate
            raise ConfigError(
                f"client_certificate: {name} cannot be used ({_reason(error)}); name a PEM file, and that of its key"
                " without a password"
            ) from error
    return context


@cache
def shared_context() -> ssl.SSLContext:
    """Returns the TLS settings of every client: reading the authorities takes tens of milliseconds."""
    return _new_context(None)


def _new_context(authorities: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authorities)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Refuses an encrypted key, for which OpenSSL would ask on the terminal."""
    raise ValueError("the key has a password")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
