"""The admin keys of a command: those of the configuration, and that of `--admin-key-file`."""

from dataclasses import replace
from pathlib import Path

from parley.config import AdminConfig, Config
from parley.config.file import with_files
from parley.config.validation import validated
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError


def with_admin_key(address: Address | None, file: Path | None, config: Config, *, certificates: bool = True) -> Config:
    """Returns the configuration with the admin key of a file, as the key `admin`.

    Args:
        address: The address of `--admin`, which needs a key; None for none.
        file: The file of `--admin-key-file`; None for none.
        config: The configuration.
        certificates: Whether administrators may have certificates instead of keys.

    Raises:
        CommandError: The file has no admin key, or there is none for the address.
    """
    keys, certificate = dict(config.admin.keys), config.admin.mtls if certificates else None
    try:
        if file is not None:
            keys["admin"] = file.read_text(encoding="utf-8").strip()
        admin: AdminConfig = validated(AdminConfig, {"keys": keys, "mtls": certificate})
    except OSError as error:
        raise CommandError(f"{file} cannot be read ({error.strerror}); name another with --admin-key-file") from error
    except ValueError as error:
        message = f"{file}: an admin key must have at least 32 characters of ASCII, without spaces"
        raise CommandError(message) from error
    if address is not None and not keys and certificate is None:
        ways = "set admin.keys in the configuration, " + ("or admin.mtls, " if certificates else "")
        raise CommandError(f"--admin needs an admin key: {ways}or give --admin-key-file")
    return with_files(replace(config, admin=admin), config.files)
