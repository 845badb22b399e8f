"""Creates keys in a store, as `parley keys create` does."""

from collections.abc import Callable, Sequence
from time import time
from typing import Any

from parley.config import DEFAULT_PLANS
from parley.core.administration import Keys, KeySettings, Rules
from parley.core.messages.ids import uuid7
from parley.core.ports import ApiKey, AuditEvent, KeyStore, Origin

ORIGIN = Origin("user:tester", "cli")


def rules(models: Sequence[str] = ()) -> Rules:
    """Returns rules with these models, and the plans of the default configuration."""
    return Rules(models, DEFAULT_PLANS, "pro")


async def create_key(
    store: KeyStore,
    name: str,
    account: str,
    plan: str | None = None,
    models: Sequence[str] = (),
    *,
    clock: Callable[[], float] = time,
    **settings: Any,
) -> tuple[ApiKey, str]:
    """Creates a key; returns it and its secret."""
    return await Keys(store, rules(models), clock).create(KeySettings(name, account, plan, models, **settings), ORIGIN)


def event(*_: Any) -> AuditEvent:
    """Returns an event of the audit log, for tests that do not read the log; ids are unique."""
    return AuditEvent(uuid7(), 1_700_000_000, "user:tester", "cli", "CreateKey", "key:key_1", {})
