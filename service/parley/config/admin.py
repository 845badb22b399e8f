"""Access of administrators over the network."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from parley.config.markers import Constraints
from parley.config.types import Strict, matches

_MIN_KEY = 32

AdminKey = Annotated[
    str, matches(rf"[\x21-\x7e]{{{_MIN_KEY},}}", f"must have at least {_MIN_KEY} characters of ASCII, without spaces")
]
"""A secret of an administrator."""


class AdminCertificates(Strict):
    """Client certificates on the admin listener (mTLS). A call without an admin key is that of the certificate's name.

    Example:
        tls: {certificate: /etc/parley/tls.pem, key: /etc/parley/tls.key}
        admin:
          mtls: {ca: /etc/parley/admins.pem, names: [ops.example.com]}
    """

    ca: Path
    """PEM file of the certificate authorities that sign the administrators' certificates. Read again when it changes.
    """
    name: Literal["san_dns", "san_uri", "san_email"] = "san_dns"
    """Subject alternative name that names an administrator: the first DNS name, URI (as in SPIFFE) or email address."""
    names: Annotated[list[str], Constraints(min_length=1)]
    """Names of the administrators. Certificates with other names are refused."""


class AdminConfig(Strict):
    """Access to the admin listener, `--admin`. `parley up` also has the Unix socket `admin.sock`, which needs none.

    Example:
        admin:
          keys: {ops: "0123456789abcdef0123456789abcdef"} # or "${ADMIN_KEY}"
    """

    keys: dict[str, AdminKey] = field(default_factory=dict)
    """Admin keys by name. A call has one as `authorization: Bearer …`; the audit log has its name. `openssl rand -hex
    32` creates one."""
    mtls: AdminCertificates | None = None
    """Client certificates of administrators. Default: none."""
