"""Checks when certificates expire."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from parley.cli.diagnosis.finding import Finding
from parley.config import Config, HttpBackend

_CHECK = "certificates"
_SOON = timedelta(days=14)
_REMEDY = "renew it; a running Parley reads the new file within seconds"


def check(config: Config) -> Iterator[Finding]:
    """Yields a finding for each file of certificates that can be read; the configuration's check names the others."""
    now = datetime.now(UTC)
    for setting, file in _files(config):
        if (period := _period(file)) is not None:
            yield judge(f"{file} ({setting})", *period, now)


def judge(name: str, begins: datetime, ends: datetime, now: datetime) -> Finding:
    """Returns the finding for a certificate that is valid from `begins` until `ends`."""
    if ends <= now:
        return Finding(_CHECK, "failed", f"{name} expired on {ends:%Y-%m-%d}", _REMEDY)
    if begins > now:
        message = f"{name} is valid from {begins:%Y-%m-%d %H:%M} UTC on"
        return Finding(_CHECK, "failed", message, "check this machine's clock, or wait")
    if ends - now < _SOON:
        return Finding(_CHECK, "warning", f"{name} expires on {ends:%Y-%m-%d}", _REMEDY)
    return Finding(_CHECK, "ok", f"{name} is valid until {ends:%Y-%m-%d}")


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yields each file of certificates with its setting."""
    if config.tls is not None:
        yield "tls.certificate", config.tls.certificate
    for name, mtls in (("auth", config.auth.mtls), ("admin", config.admin.mtls)):
        if mtls is not None:
            yield f"{name}.mtls.ca", mtls.ca
    for name, backend in config.backends.items():
        if isinstance(backend, HttpBackend):
            for setting in ("ca", "client_certificate"):
                if (file := getattr(backend, setting)) is not None:
                    yield f"backends.{name}.{setting}", file


def _period(file: Path) -> tuple[datetime, datetime] | None:
    """Returns the time in which all certificates of a PEM file are valid; None if it cannot be read."""
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return None
    return max(one.not_valid_before_utc for one in chain), min(one.not_valid_after_utc for one in chain)
