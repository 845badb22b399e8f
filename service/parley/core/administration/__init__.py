"""Changes of keys and accounts, for the admin RPCs and the commands. Each is recorded in the audit log."""

from parley.core.administration.accounts import Accounts, AccountSettings
from parley.core.administration.audit import account_audit
from parley.core.administration.keys import DEFAULT_ACCOUNT, KEEP_SECONDS, Keys, KeySettings, key_state
from parley.core.administration.origin import os_user
from parley.core.administration.rules import LimitChange, Rules

__all__ = [
    "DEFAULT_ACCOUNT",
    "KEEP_SECONDS",
    "AccountSettings",
    "Accounts",
    "KeySettings",
    "Keys",
    "LimitChange",
    "Rules",
    "account_audit",
    "key_state",
    "os_user",
]
