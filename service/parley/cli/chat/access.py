"""The connection of `parley chat`: its key, its TLS, and the messages of its errors."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from parley.cli.shared.terminal import without_control_characters
from parley.supervisor.errors import CommandError
from parley_client import Client, ParleyError, Retry
from parley_client.calls import DEFAULT_TIMEOUT
from parley_client.channel import Tls, is_secure, tls_credentials

_ONCE = Retry(attempts=1)  # a user sees a failure at once, and decides
_SIDE_SECONDS = 10.0
_DELAY = re.compile(r"\d s\b")


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection needs.

    Attributes:
        address: The address of the gRPC listener.
        key: The API key; None for a caller that its certificate identifies.
        tls: As `parley_client.Client` takes it.
        name: The host name that the certificate must have; None for that of the address.
    """

    address: str
    key: str | None
    tls: Tls
    name: str | None = None

    def client(self) -> Client:
        """Returns a client for completions, which may take minutes."""
        return self._client(DEFAULT_TIMEOUT)

    def side_client(self) -> Client:
        """Returns a client for short calls, for example to list models."""
        return self._client(_SIDE_SECONDS)

    def _client(self, seconds: float) -> Client:
        options = {"grpc.ssl_target_name_override": self.name} if self.name else None
        return Client(self.address, key=self.key, tls=self.tls, timeout=seconds, retry=_ONCE, options=options)

    def explain(self, error: ParleyError) -> str:
        """Returns the message of an error, with the remedy where the service was not reached."""
        text = _with_delay(error)
        if error.reason is None and error.code.name == "UNAVAILABLE":
            text = self._explain_unavailable(error.message)
        elif error.code.name == "UNAUTHENTICATED":
            text += "; check PARLEY_API_KEY or --key-file, or create one: `parley keys create --name NAME`"
        return without_control_characters(text)

    def _explain_unavailable(self, message: str) -> str:
        """Returns what to do about an error of the connection, by gRPC's own texts."""
        if "stream" in message.lower():  # `Stream removed`, `RST_STREAM`: a worker or the service has ended
            return f"the connection to {self.address} broke before the answer was complete; send the question again"
        if "health" in message:  # of the client's health checks
            return f"the service at {self.address} is not ready; try again in a moment"
        why = message.rpartition(": ")[2].strip("[]")  # the last of gRPC's list of attempts
        other = "--no-tls" if is_secure(self.address, self.tls) else "--tls"
        return f"nothing answers at {self.address} ({why}); start `parley up`, or give another --address, or {other}"


def _with_delay(error: ParleyError) -> str:
    """Returns the message of an error, with the seconds after which to try again unless it names them."""
    if (error.retry_delay or 0) <= 0 or _DELAY.search(error.message):
        return error.message
    return f"{error.message.removesuffix('; try again later')}; try again in {math.ceil(error.retry_delay or 0)} s"


def address_of(text: str) -> str:
    """Returns the checked address of `--address`. Raises CommandError."""
    scheme, colon, _ = text.partition(":")
    if not colon or scheme in {"", "http", "https"} or not text.isprintable() or " " in text:
        remedy = "give the gRPC listener's HOST:PORT, for example 127.0.0.1:50051"
        raise CommandError(f'--address: "{without_control_characters(text)}" is not an address of gRPC; {remedy}')
    return text


def tls_of(*, tls: bool | None, ca: Path | None, certificate: Path | None, certificate_key: Path | None) -> Tls:
    """Returns the TLS of the options `--tls`, `--ca`, `--cert` and `--cert-key`. Raises CommandError."""
    files = (ca, certificate, certificate_key)
    if not any(files):
        return tls
    if tls is False:
        raise CommandError("--no-tls excludes --ca, --cert and --cert-key; give either")
    if (certificate is None) != (certificate_key is None):
        raise CommandError("--cert and --cert-key belong together; give both")
    ca_text, certificate_text, key_text = (None if file is None else read(file).encode() for file in files)
    return tls_credentials(ca=ca_text, certificate=certificate_text, key=key_text)


def api_key(file: Path | None, *, has_certificate: bool = False) -> str | None:
    """Returns the API key. It is never an argument, because other users can list those. Raises CommandError.

    Args:
        file: A file that contains it; None for the variable PARLEY_API_KEY.
        has_certificate: Whether a client certificate identifies the caller if there is no key; the result is then None.
    """
    place, key = "PARLEY_API_KEY", os.environ.get("PARLEY_API_KEY", "").strip()
    if file is not None:
        place, key = str(file), read(file).strip()
    elif not key:
        if has_certificate:
            return None
        raise CommandError("there is no API key; set PARLEY_API_KEY, or name a file that has one with --key-file")
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise CommandError(f"{place} has no API key; it must hold one and nothing else")
    return key


def read(file: Path) -> str:
    """Returns the text of a file. Raises CommandError."""
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
