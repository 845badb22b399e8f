"""Access tokens of a scripted issuer: the real verifier, HTTP client and keys, with a store in memory."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from parley.auth.callers import Callers
from parley.auth.tokens.access_tokens import AccessTokens
from parley.auth.tokens.verifier import Verifier
from parley.backends.http.documents import HttpDocuments, SharedDocuments
from parley.config import Config
from parley.config.loader import parse
from parley.core.errors import StoreUnavailable
from parley.core.ports import Account, Audit
from tests.issuer import AUDIENCE, ScriptedIssuer


class Accounts:
    """Accounts in memory, which count their reads."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.reads = 0
        self.away = False

    async def find_account(self, name: str) -> Account | None:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return self.accounts.get(name)

    async def add_account(self, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
        is_new = account.name not in self.accounts
        return self.accounts.setdefault(account.name, account), is_new

    def change(self, name: str, **values: Any) -> None:
        """Changes an account, as an operator does."""
        self.accounts[name] = replace(self.accounts[name], **values)


@dataclass
class Clock:
    """A clock that stands still until a test sets it, or follows the time of day."""

    now: float = field(default_factory=time.time)
    is_running: bool = False

    def __call__(self) -> float:
        """Returns Unix seconds."""
        return time.time() if self.is_running else self.now


@dataclass
class Service:
    """Accepts tokens of the issuers of a configuration."""

    folder: Path
    accounts: Accounts = field(default_factory=Accounts)
    clock: Clock = field(default_factory=Clock)

    @asynccontextmanager
    async def accepting(self, *issuers: str, more: str = "") -> AsyncIterator[AccessTokens]:
        """Runs one worker's verifier. Each issuer is its settings in YAML's flow style."""
        config = configuration(*issuers, more=more)
        documents = SharedDocuments(self.folder, HttpDocuments(self.clock), self.clock)
        verifier = Verifier(config.auth.issuers, documents, self.clock)
        async with verifier.running():
            yield AccessTokens(verifier, self.accounts, Callers(config.plans, config.limits), self.clock)


def configuration(*issuers: str, more: str = "") -> Config:
    """Returns a configuration with these issuers."""
    listed = "".join(f"    - {{{issuer}}}\n" for issuer in issuers)
    return parse(
        "backends: {local: {kind: llama_cpp}}\nmodels: [{id: one, targets: [{backend: local}]}]\n"
        f"{more}auth:\n  issuers:\n{listed}",
        "f",
    )


def settings(issuer: ScriptedIssuer, more: str = "") -> str:
    """Returns the settings of an issuer in YAML's flow style."""
    return f'issuer: "{issuer.url}", audience: {AUDIENCE}{more and ", "}{more}'


@pytest.fixture
def issuer() -> Iterator[ScriptedIssuer]:
    """An issuer with one RSA key."""
    with ScriptedIssuer() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service without accounts."""
    return Service(tmp_path)
