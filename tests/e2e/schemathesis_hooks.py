"""Loaded by schemathesis itself, which see: tests/e2e/schemathesis.toml."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Leaves most calls without a session: random ones are unknown, and every call with them would end there.

    Likewise without an `Idempotency-Key`: the same few come with other bodies again and again.
    """
    if case.headers and len(str(case.body)) % 8:
        case.headers.pop("X-Chat-Session-ID", None)
        case.headers.pop("Idempotency-Key", None)
    if isinstance(case.body, dict) and isinstance(case.body.get("chatSessionId"), str):
        del case.body["chatSessionId"]
