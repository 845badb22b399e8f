"""The certificates of the listeners. Envoy reads them from files that are written anew when they change.

Envoy alone would watch the folders of the files, and miss files that are written in place. It would also load a
certificate whose key has not arrived yet.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parley.supervisor import ticks
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import write_private
from parley.supervisor.process import print_notice

SubjectName = Literal["san_dns", "san_uri", "san_email"]
"""A kind of subject alternative name."""
_POLL_SECONDS = 1.0
_KIND = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
# The listeners' certificate, and the authorities of the clients and of the administrators.
_SERVER, CLIENTS, ADMINS = "server", "clients", "admins"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of the listeners' TLS, and what the gRPC and the admin listener expect of clients.

    Attributes:
        certificate: The PEM file of the certificate chain.
        key: The PEM file of the private key.
        client_ca: The PEM file of the authorities of client certificates; None for no client certificates.
        client_required: Whether the gRPC listener refuses connections without a client certificate.
        client_name: The subject alternative name of a client certificate that names its account.
        admin_ca: The PEM file of the authorities of administrators' certificates; None for no such certificates.
        admin_name: The subject alternative name that names the administrator.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False
    client_name: SubjectName = "san_dns"
    admin_ca: Path | None = None
    admin_name: SubjectName = "san_dns"


def check(files: TlsFiles) -> None:
    """Raises CommandError if a file cannot be used; the message names its setting."""
    for setting, path in (("certificate", files.certificate), ("key", files.key)):
        _require_readable(f"tls.{setting}", path)
    import ssl  # not imported without `tls`

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        pair = f"{files.certificate} and {files.key}"
        message = f"tls: {pair} are not a certificate and its key in PEM, without a passphrase"
        raise CommandError(f"{message} ({getattr(error, 'reason', None) or error})") from error
    for setting, authorities in (("auth.mtls.ca", files.client_ca), ("admin.mtls.ca", files.admin_ca)):
        if authorities is not None:
            _check_authorities(setting, authorities)


def _check_authorities(setting: str, path: Path) -> None:
    _require_readable(setting, path)
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise CommandError(f"{setting}: {path} has no certificate in PEM") from error


def _require_readable(setting: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise CommandError(f"{setting}: {path} cannot be read ({error.strerror}); name a readable file") from error


class Certificates:
    """Publishes the certificates to Envoy.

    Args:
        files: The files.
        folder: Receives the files that Envoy reads. One contains the private key, and only its owner may read it.
    """

    def __init__(self, files: TlsFiles, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._latest: dict[str, str] = {}
        self._failed = ""

    def publish(self) -> None:
        """Writes the secrets that have changed. Raises CommandError, and OSError if a file cannot be written."""
        check(self._files)
        for name, secret in self._secrets().items():
            file, text = _file(self._folder, name), json.dumps({"resources": [secret]})
            if text != self._latest.get(name) or not file.exists():
                write_private(file, text)
                self._latest[name] = text

    async def follow(self) -> None:
        """Publishes changed files for ever. A file that cannot be used is reported once; Envoy keeps what it has."""
        while True:
            await ticks.pause(_POLL_SECONDS)
            before = dict(self._latest)
            try:
                await asyncio.to_thread(self.publish)
            except (CommandError, OSError) as error:
                self._report(str(error))
            else:
                if before != self._latest:
                    print_notice("the certificate files have changed; new connections use them")
                self._failed = ""

    def _report(self, problem: str) -> None:
        if problem != self._failed:
            self._failed = problem
            print_notice(f"{problem}; connections use the previous certificate")

    def _secrets(self) -> dict[str, dict[str, Any]]:
        """Returns the secrets by name."""
        certificate, key = _inline(self._files.certificate), _inline(self._files.key)
        chain = {"certificate_chain": certificate, "private_key": key}
        found: dict[str, dict[str, Any]] = {_SERVER: {"@type": _KIND, "name": _SERVER, "tls_certificate": chain}}
        for name, path in ((CLIENTS, self._files.client_ca), (ADMINS, self._files.admin_ca)):
            if path is not None:
                authorities = {"trusted_ca": _inline(path)}
                found[name] = {"@type": _KIND, "name": name, "validation_context": authorities}
        return found


def publish_names(files: TlsFiles, folder: Path) -> None:
    """Writes secrets that name the files, for an Envoy that follows them itself.

    Envoy reads them again when a file is moved into their folder, as Kubernetes does with a changed Secret.

    Raises:
        CommandError: A file cannot be used.
        OSError: The folder cannot be written.
    """
    check(files)
    pair = {"certificate_chain": _named(files.certificate), "private_key": _named(files.key)}
    found: dict[str, dict[str, Any]] = {_SERVER: {"tls_certificate": pair | _watched(files.certificate)}}
    for name, path in ((CLIENTS, files.client_ca), (ADMINS, files.admin_ca)):
        if path is not None:
            found[name] = {"validation_context": {"trusted_ca": _named(path)} | _watched(path)}
    for name, secret in found.items():
        resource = {"@type": _KIND, "name": name} | secret
        write_private(_file(folder, name), json.dumps({"resources": [resource]}))


def _named(path: Path) -> dict[str, str]:
    return {"filename": str(path.absolute())}


def _watched(path: Path) -> dict[str, Any]:
    return {"watched_directory": {"path": str(path.absolute().parent)}}


def _file(folder: Path, name: str) -> Path:
    return folder / f"tls-{name}.json"


def _inline(path: Path) -> dict[str, str]:
    return {"inline_string": path.read_text(encoding="utf-8")}


def transport_socket(folder: Path, authorities: str | None = None, *, is_required: bool = False) -> dict[str, Any]:
    """Returns the transport socket of a listener.

    Args:
        folder: The folder of `Certificates`.
        authorities: Whose certificates the listener asks for, `CLIENTS` or `ADMINS`; None for none.
        is_required: Whether it refuses connections without a certificate.
    """
    context: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_source(folder, _SERVER)],
    }
    socket: dict[str, Any] = {"@type": _CONTEXT, "common_tls_context": context}
    if authorities is not None:
        context["validation_context_sds_secret_config"] = _source(folder, authorities)
        socket["require_client_certificate"] = is_required
    return {"name": "envoy.transport_sockets.tls", "typed_config": socket}


def _source(folder: Path, name: str) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(_file(folder, name))}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}
