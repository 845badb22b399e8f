"""The user of the operating system, for the audit log."""

import os
import pwd


def os_user() -> str:
    """Returns the name of the user that runs this process; its number if it has no name, as in some containers."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
