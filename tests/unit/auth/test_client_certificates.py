"""Calls that a client certificate authenticates."""

import pytest

from parley.auth.callers import Callers
from parley.auth.client_certificates import ClientCertificates
from parley.config import DEFAULT_PLANS, LimitsConfig
from parley.core.errors import AccountSuspended, PlanRequired, Unauthenticated
from parley.core.ports import Account, Audit, Caller, Credentials

NAMED = Credentials(None, certificate_name="billing.internal")


class Accounts:
    """Accounts in memory. Counts its reads."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.reads = 0

    async def find_account(self, name: str) -> Account | None:
        """Finds an account."""
        self.reads += 1
        return self.accounts.get(name)

    async def add_account(self, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
        """Adds an account unless it exists."""
        is_new = account.name not in self.accounts
        return self.accounts.setdefault(account.name, account), is_new


class Headers:
    """Accepts one header."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of the header."""
        if credentials.authorization == "Bearer sk-1":
            return Caller("ada", "key_1")
        raise Unauthenticated


class Clock:
    """A clock that tests set, in Unix seconds."""

    now = 1000.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now


@pytest.fixture
def accounts() -> Accounts:
    """No accounts."""
    return Accounts()


@pytest.fixture
def clock() -> Clock:
    """The clock."""
    return Clock()


@pytest.fixture
def certificates(accounts: Accounts, clock: Clock) -> ClientCertificates:
    """The authenticator under test."""
    return ClientCertificates(Headers(), accounts, Callers(DEFAULT_PLANS, LimitsConfig()), clock)


async def test_the_first_call_creates_the_account(certificates: ClientCertificates, accounts: Accounts) -> None:
    """The name in the certificate is the account, which is created with the first plan with access."""
    assert Caller("billing.internal", "certificate:billing.internal") == await certificates.authenticate(NAMED)
    assert {"billing.internal": Account("billing.internal", "pro")} == accounts.accounts


async def test_a_header_wins(certificates: ClientCertificates, accounts: Accounts) -> None:
    """A call with a header is that of the header, also where it is invalid."""
    with_key = NAMED._replace(authorization="Bearer sk-1")
    assert "ada" == (await certificates.authenticate(with_key)).account
    with pytest.raises(Unauthenticated):
        await certificates.authenticate(NAMED._replace(authorization="Bearer sk-2"))
    assert {} == accounts.accounts


@pytest.mark.parametrize("authorization", [None, ""])
async def test_neither(certificates: ClientCertificates, authorization: str | None) -> None:
    """A call without a header and without a certificate is not authenticated."""
    with pytest.raises(Unauthenticated):
        await certificates.authenticate(Credentials(authorization))


async def test_a_suspension_takes_effect(certificates: ClientCertificates, accounts: Accounts, clock: Clock) -> None:
    """The account is read again after half a second, also when the clock is set back."""
    for _ in range(9):
        await certificates.authenticate(NAMED)
    assert 1 == accounts.reads
    accounts.accounts["billing.internal"] = Account("billing.internal", "pro", suspended=1)
    await certificates.authenticate(NAMED)
    clock.now -= 1
    with pytest.raises(AccountSuspended):
        await certificates.authenticate(NAMED)
    accounts.accounts["billing.internal"] = Account("billing.internal", "free")
    with pytest.raises(PlanRequired):
        await certificates.authenticate(NAMED)
