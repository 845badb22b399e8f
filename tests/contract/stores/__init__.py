"""What every store must do, whichever database it is. A store is done when these classes pass on it.

A test module gives the fixtures: `clock`, a `Clock`; `store`, an empty store that reads it; `second`, another store on
the same database, as another worker process has it.
"""

from tests.contract.stores.keys import KeyContract
from tests.contract.stores.life import LifeContract
from tests.contract.stores.limits import LimitContract
from tests.contract.stores.making import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    give_up,
    key,
    message,
    texts,
)
from tests.contract.stores.sessions import SessionContract
from tests.contract.stores.turns import TurnContract

__all__ = [
    "LEASE",
    "Clock",
    "KeyContract",
    "LifeContract",
    "LimitContract",
    "SessionContract",
    "TurnContract",
    "all_messages",
    "begin",
    "charge",
    "complete",
    "converse",
    "give_up",
    "key",
    "message",
    "texts",
]
