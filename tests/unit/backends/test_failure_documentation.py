"""The table of failures in docs/routing-and-failures.md agrees with the code."""

from pathlib import Path

import pytest

from parley.backends.errors import classifier
from parley.core.errors import AddedParameterRejected, LocalResourcesExhausted, ParleyError, UnsupportedParameter
from parley.core.routing.failure_policy import HealthEffect, NextTargets, Retry, policy_for
from tests.unit.backends.responses import error_for, openai_error

PAGE = Path(__file__).parents[3] / "docs" / "routing-and-failures.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8")
    .partition("| failure of the target")[2]
    .partition("\n\n")[0]
    .splitlines()[2:]
]

EXAMPLES: dict[str, ParleyError] = {
    "refuses the connection": classifier.unreachable(error_for(503, "")),
    "resets the connection": error_for(503, ""),
    "429 with `Retry-After` up to 3 s": error_for(429, "", {"Retry-After": "2"}),
    "429 without it": error_for(429, ""),
    "429, 408 or 5xx with a longer": error_for(503, "", {"Retry-After": "60"}),
    "no quota or credit": error_for(402, ""),
    "a request larger than the rate limit": openai_error(413, "Request too large for model `x`"),
    "the conversation is too long": openai_error(400, "maximum context length is 8192"),
    "content policy": openai_error(400, "x", param="temperature"),
    "400, 413, 422 that says neither": openai_error(400, "x"),
    "3xx, 401": error_for(401, ""),
    "403, 404, 410": openai_error(400, "Incorrect API key provided"),
    "any other status": error_for(424, ""),
    "this machine": LocalResourcesExhausted("no file descriptor is left"),
    "the request has passed": error_for(508, {"error": {"code": "loop_detected"}}),
    "a parameter that the caller has not sent": AddedParameterRejected(
        "m", "`defaults.n`", UnsupportedParameter("no `n`")
    ),
}


@pytest.mark.parametrize("begins", EXAMPLES)
def test_a_row_of_the_documentation(begins: str) -> None:
    """Retry, next target and effect on the target's health are as the row says."""
    [(_, again, following, counts)] = [row for row in ROWS if row[0].startswith(begins)]
    row = policy_for(EXAMPLES[begins])
    assert {Retry.NO: "no", Retry.BACKOFF: "twice", Retry.AFTER_DELAY: "once"}[row.retry] == again.split(",")[0]
    assert (row.next is NextTargets.NONE, row.next is NextTargets.FALLBACKS) == (
        following.startswith("no:"),
        following == "only fallbacks",
    )
    expected = {HealthEffect.FAILURE: "yes", HealthEffect.SUSPECT: "if several accounts see it"}.get(
        row.health_effect, "no"
    )
    assert expected == counts.split(", and")[0]
    assert row.hold == ("no other call" in again)
