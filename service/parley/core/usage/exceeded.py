"""The errors of calls that exceed a limit, and the state of limits."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from parley.core.errors import ConcurrencyLimited, InvalidRequest, ParleyError, QuotaExhausted, RateLimited
from parley.core.ports import Charge, Reservation
from parley.core.ports.limits import CONCURRENT, COST_KINDS, REQUESTS, TOKEN_KINDS, TOKENS
from parley.core.usage.admission import RateLimitStatus
from parley.core.usage.charges import Demand
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_ROUNDING = 1e-6
_DAY_SECONDS = 86_400


def require_possible(request: CreateChatCompletionRequest, charges: Sequence[Charge], demand: Demand) -> None:
    """Raises InvalidRequest if a request needs more than a limit ever allows: waiting would not help."""
    excessive = [one for one in charges if one.kind in TOKEN_KINDS and one.amount > one.limit]
    if excessive:
        raise _too_many_tokens(request, min(excessive, key=lambda one: one.limit), demand)
    for one in charges:
        if one.kind in COST_KINDS and one.amount > one.limit:
            limit = f"more than the {_number(one.limit)} a {_period(one)} of this {_subject_name(one)}"
            message = f"The request may cost {one.amount:.4g}, {limit}; send less, or ask for less in `max_tokens`"
            raise InvalidRequest(message, param="max_tokens" if demand.output else "messages")


def exhausted(charges: Sequence[Charge], reservation: Reservation) -> list[tuple[Charge, float]]:
    """Returns the charges that exceed their limits, each with what remains of the limit."""
    pairs = zip(charges, reservation.remaining, strict=True)
    return [(charge, remaining) for charge, remaining in pairs if charge.amount and charge.amount > remaining]


def rejection(charges: Sequence[Charge], reservation: Reservation) -> ParleyError:
    """Returns the error that names the exhausted limit with the longest wait."""
    exceeding = exhausted(charges, reservation)
    waits = [(_wait(charge, remaining, reservation.now), charge, remaining) for charge, remaining in exceeding]
    wait, charge, remaining = max(waits, key=lambda each: each[0])
    seconds = max(1, math.ceil(round(wait, 9)))
    may = f"This {_subject_name(charge)} may"
    if charge.kind == CONCURRENT:
        running = f"{_number(charge.limit - remaining)} are running; try again when one has finished"
        return ConcurrencyLimited(
            f"{may} run {_number(charge.limit)} calls at once, and {running}", subject=charge.subject, limit=charge.kind
        )
    if charge.kind in {REQUESTS, TOKENS}:
        what = _made(charge, remaining) if charge.kind == REQUESTS else _used(charge, remaining)
        message, limit = f"{may} {what}; try again in {seconds} s", f"{charge.kind}_per_minute"
        return RateLimited(message, seconds, subject=charge.subject, limit=limit)
    what = _spent(charge, remaining) if charge.kind in COST_KINDS else _used(charge, remaining)
    following = f"the next {_period(charge)} begins in {seconds} s"
    return QuotaExhausted(f"{may} {what}; {following}", seconds, subject=charge.subject, limit=charge.kind)


def _made(charge: Charge, remaining: float) -> str:
    return f"make {_number(charge.limit)} requests a minute, and {whole_units(remaining)} are left"


def _used(charge: Charge, remaining: float) -> str:
    left = f"{whole_units(remaining)} are left, this request may need {_number(charge.amount)}"
    return f"use {_number(charge.limit)} tokens a {_period(charge)}: {left}"


def _spent(charge: Charge, remaining: float) -> str:
    left = f"{max(0.0, remaining):.4g} is left, this request may cost {charge.amount:.4g}"
    return f"spend {_number(charge.limit)} a {_period(charge)}: {left}"


def statuses(charges: Sequence[Charge], reservation: Reservation) -> list[RateLimitStatus]:
    """Returns the state of the limits per minute."""
    found = []
    for kind in (REQUESTS, TOKENS):
        pairs = zip(charges, reservation.remaining, strict=True)
        of_kind = [(remaining, charge.limit) for charge, remaining in pairs if charge.kind == kind]
        if of_kind:
            remaining, limit = min(of_kind)
            found.append(RateLimitStatus(kind, int(limit), whole_units(remaining), (limit - remaining) * 60 / limit))
    return found


def whole_units(remaining: float) -> int:
    """Returns a remainder rounded down, at least 0."""
    return max(0, math.floor(remaining + _ROUNDING))


def _too_many_tokens(request: CreateChatCompletionRequest, charge: Charge, demand: Demand) -> InvalidRequest:
    limit = f"more than the {_number(charge.limit)} tokens a {_period(charge)} of this {_subject_name(charge)}"
    if demand.prompt > charge.limit:
        message = f"`messages` are too long: about {demand.prompt} tokens, {limit}; send less"
        return InvalidRequest(message, param="messages")
    prompt = demand.prompt + demand.history
    if prompt > charge.limit or not demand.output:
        message = f"The history of this session is too long: with it, the prompt has about {prompt} tokens, {limit}"
        return InvalidRequest(f"{message}; begin a new session", param="chatSessionId")
    name = "max_completion_tokens" if request.HasField("max_completion_tokens") else "max_tokens"
    needed = f"with a prompt of about {prompt}, {_number(charge.amount)} tokens may be needed"
    return InvalidRequest(f"`{name}` is too large: {needed}, {limit}; ask for less", param=name)


def _wait(charge: Charge, remaining: float, now: float) -> float:
    """Returns the seconds until an exhausted limit may admit the charge."""
    if charge.kind == CONCURRENT:
        return 1.0
    if charge.kind in {REQUESTS, TOKENS}:
        return (charge.amount - remaining) * 60 / charge.limit
    if _period(charge) == "day":
        return _DAY_SECONDS - now % _DAY_SECONDS
    date = datetime.fromtimestamp(now, UTC)
    following = datetime(date.year + date.month // 12, date.month % 12 + 1, 1, tzinfo=UTC)
    return following.timestamp() - now


def _period(charge: Charge) -> str:
    return charge.kind.rpartition("_per_")[2] if "_per_" in charge.kind else "minute"


def _number(amount: float) -> str:
    return f"{amount:.10g}"


def _subject_name(charge: Charge) -> str:
    return charge.subject.partition(":")[0]
