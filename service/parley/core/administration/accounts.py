"""Creates, lists and changes accounts."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from parley.config import UNLIMITED
from parley.core.administration.audit import account_audit
from parley.core.administration.rules import LimitChange, Rules, require_name
from parley.core.errors import AccountExists, AccountNotFound
from parley.core.ports import Account, KeyStore, Origin

_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The settings of a new account.

    Attributes:
        name: The name.
        plan: The plan; None for the default plan.
        limits: The account's own limits by name.
    """

    name: str
    plan: str | None = None
    limits: Mapping[str, float | str | None] | None = None


class Accounts:
    """Creates, lists and changes accounts. Every method raises StoreUnavailable if the store cannot be reached.

    Args:
        store: Holds the accounts.
        rules: What an account may name.
        clock: Returns Unix seconds.
    """

    def __init__(self, store: KeyStore, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock

    async def create(self, settings: AccountSettings, origin: Origin) -> Account:
        """Stores a new account.

        Raises:
            AccountExists: There is an account with this name.
            InvalidRequest: A setting is not valid.
        """
        account = Account(
            require_name("name", settings.name),
            self._rules.require_plan(settings.plan) if settings.plan else self._rules.default_plan,
            LimitChange(settings.limits or {}).apply(UNLIMITED),
        )
        audit = account_audit(origin, "CreateAccount", int(self._clock()))
        _, is_new = await self._store.add_account(account, audit)
        if not is_new:
            raise AccountExists(account.name)
        return account

    async def get(self, name: str) -> Account:
        """Returns an account. Raises AccountNotFound."""
        account = await self._store.find_account(name)
        if account is None:
            raise AccountNotFound(name)
        return account

    async def page(self, *, page_size: int, page_token: str | None) -> tuple[list[Account], str | None]:
        """Returns a page of accounts in the order of their names, and the token of the next page.

        Args:
            page_size: The maximum number of accounts.
            page_token: The token of the page; None for the first one.

        Raises:
            InvalidRequest: The token is invalid.
        """
        return await self._store.list_accounts(page_size=page_size, page_token=page_token)

    async def all(self) -> list[Account]:
        """Returns all accounts in the order of their names."""
        return [account async for page in self._pages() for account in page]

    async def update(
        self, name: str, origin: Origin, *, plan: str | None = None, limits: LimitChange | None = None
    ) -> Account:
        """Changes the plan or the limits of an account.

        Args:
            name: The account's name.
            origin: Where the change comes from.
            plan: The new plan; None to keep it.
            limits: The change of the limits; None to keep them.

        Raises:
            AccountNotFound: There is no such account.
            InvalidRequest: A value is not valid.
        """
        checked = None if plan is None else self._rules.require_plan(plan)
        changes = limits or LimitChange()

        def change(account: Account) -> Account:
            return replace(account, plan=checked or account.plan, limits=changes.apply(account.limits))

        return await self._change(name, change, origin, "UpdateAccount")

    async def suspend(self, name: str, origin: Origin) -> Account:
        """Suspends an account; a suspended one keeps its first time of suspension. Raises AccountNotFound."""
        now = int(self._clock())

        def change(account: Account) -> Account:
            return account if account.suspended is not None else replace(account, suspended=now)

        return await self._change(name, change, origin, "SuspendAccount")

    async def resume(self, name: str, origin: Origin) -> Account:
        """Ends the suspension of an account. Raises AccountNotFound."""
        return await self._change(name, lambda account: replace(account, suspended=None), origin, "ResumeAccount")

    async def _change(self, name: str, change: Callable[[Account], Account], origin: Origin, method: str) -> Account:
        audit = account_audit(origin, method, int(self._clock()))
        changed = await self._store.update_account(name, change, audit)
        if changed is None:
            raise AccountNotFound(name)
        return changed

    async def _pages(self) -> AsyncIterator[list[Account]]:
        token: str | None = None
        while True:
            page, token = await self.page(page_size=_PAGE_SIZE, page_token=token)
            yield page
            if token is None:
                return
