"""Access of administrators over the network."""

from typing import Annotated

from pydantic import Field

from parley.config.types import Strict, matches

_MIN_KEY = 32

AdminKey = Annotated[
    str, matches(rf"[\x21-\x7e]{{{_MIN_KEY},}}", f"must have at least {_MIN_KEY} characters of ASCII, without spaces")
]
"""A secret of an administrator."""


class AdminConfig(Strict):
    """Access to the admin listener of `parley up --admin`. The Unix socket `admin.sock` in the state folder needs none.

    Example:
        admin:
          keys: {ops: "0123456789abcdef0123456789abcdef"} # or "${ADMIN_KEY}"
    """

    keys: dict[str, AdminKey] = Field(default={})
    """Admin keys by name. A call has one as `authorization: Bearer …`; the audit log has its name. `openssl rand -hex
    32` creates one."""
