"""The contract of stores. An implementation is complete when these classes pass on it.

A test module provides the fixtures: `clock`, a `Clock`; `store`, an empty store with that clock; `second`, a store of
another worker on the same database.
"""

from tests.contract.stores.alerts import AlertContract
from tests.contract.stores.cache import CacheContract
from tests.contract.stores.chosen_ids import ChosenIdContract
from tests.contract.stores.claims import ClaimContract
from tests.contract.stores.deletion import DeletionContract
from tests.contract.stores.forks import ForkContract
from tests.contract.stores.imports import ImportContract
from tests.contract.stores.keys import KeyContract
from tests.contract.stores.life import LifeContract
from tests.contract.stores.limits import LimitContract
from tests.contract.stores.long import LongContract
from tests.contract.stores.making import (
    LEASE,
    WHOLE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    end_incomplete,
    hold,
    key,
    message,
    settlement,
    texts,
)
from tests.contract.stores.reaper import ReaperContract
from tests.contract.stores.receipts import ReceiptContract, receipt
from tests.contract.stores.resent import ResentContract
from tests.contract.stores.search import SearchContract
from tests.contract.stores.sessions import SessionContract
from tests.contract.stores.storage import StorageContract
from tests.contract.stores.turns import TurnContract
from tests.contract.stores.usage import UsageContract, counts
from tests.contract.stores.waiting import WaitContract
from tests.contract.stores.windows import WindowContract

__all__ = [
    "LEASE",
    "WHOLE",
    "AlertContract",
    "CacheContract",
    "ChosenIdContract",
    "ClaimContract",
    "Clock",
    "DeletionContract",
    "ForkContract",
    "ImportContract",
    "KeyContract",
    "LifeContract",
    "LimitContract",
    "LongContract",
    "ReaperContract",
    "ReceiptContract",
    "ResentContract",
    "SearchContract",
    "SessionContract",
    "StorageContract",
    "TurnContract",
    "UsageContract",
    "WaitContract",
    "WindowContract",
    "all_messages",
    "begin",
    "charge",
    "complete",
    "converse",
    "counts",
    "end_incomplete",
    "hold",
    "key",
    "message",
    "receipt",
    "settlement",
    "texts",
]
