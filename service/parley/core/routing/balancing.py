"""Sorts the targets of a model for one call: by weight, and stable for a session."""

import hashlib
import math
import random
from collections.abc import Sequence

from parley.core.routing.targets import Candidate


def order_by_weight(candidates: Sequence[Candidate], session_id: str | None) -> Sequence[Candidate]:
    """Sorts the candidates of one model by weight: randomly, or for a session in an order that stays the same.

    Sessions use weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): adding or removing a target moves only
    that target's share of the sessions. Without a session the same formula is a weighted random draw without
    replacement (Efraimidis and Spirakis, 2006).

    Args:
        candidates: The candidates of one model.
        session_id: The call's session; None draws randomly.
    """
    if len(candidates) == 1:
        return candidates
    return sorted(candidates, key=lambda candidate: _score(candidate, session_id), reverse=True)


def _score(candidate: Candidate, session_id: str | None) -> float:
    if session_id is None:
        drawn = random.getrandbits(64)  # spreads load; not a secret
    else:
        text = f"{session_id}\0{candidate.target.backend_name}\0{candidate.target.model}"
        drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return -candidate.weight / math.log((drawn + 1) / (2**64 + 2))
