"""TLS of the listeners, and client certificates."""

from pathlib import Path
from typing import Literal

from parley.config.types import Strict


class Tls(Strict):
    """The certificate of both listeners of `parley up`. Changed files take effect within seconds, without a restart.

    Example:
        tls: {certificate: /etc/parley/tls.pem, key: /etc/parley/tls.key}
    """

    certificate: Path
    """PEM file with the certificate and its intermediate certificates."""
    key: Path
    """PEM file with the private key, without a passphrase."""


class ClientCertificates(Strict):
    """Client certificates on the gRPC listener (mTLS). A call without an API key is that of the certificate's account.

    Example:
        tls: {certificate: /etc/parley/tls.pem, key: /etc/parley/tls.key}
        auth:
          mtls: {ca: /etc/parley/clients.pem, account: san_dns}
    """

    ca: Path
    """PEM file of the certificate authorities that sign the clients' certificates. Read again when it changes."""
    account: Literal["san_dns", "san_uri", "san_email"] = "san_dns"
    """Subject alternative name that names the account: its first DNS name, URI (as in SPIFFE) or email address."""
    required: bool = False
    """Whether a connection without a client certificate is refused."""
