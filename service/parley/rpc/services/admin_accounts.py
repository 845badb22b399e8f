"""The `Accounts` service, for administrators."""

from parley.admin.v1 import accounts_pb2 as messages
from parley.admin.v1 import accounts_pb2_grpc as services
from parley.core.administration import Accounts, AccountSettings, Rules
from parley.rpc import admin_messages
from parley.rpc.call import origin
from parley.rpc.call_handler import Context
from parley.rpc.paging import page_size

_FIELDS = ("plan", "limits")


class AccountsServicer(services.AccountsServicer):
    """Serves the accounts of the store."""

    def __init__(self, accounts: Accounts, rules: Rules) -> None:
        self._accounts = accounts
        self._rules = rules

    async def ListAccounts(
        self, request: messages.ListAccountsRequest, context: Context
    ) -> messages.ListAccountsResponse:
        """Lists accounts in the order of their names."""
        found, token = await self._accounts.page(page_size=page_size(request), page_token=request.page_token or None)
        return messages.ListAccountsResponse(accounts=map(admin_messages.account, found), next_page_token=token)

    async def GetAccount(self, request: messages.GetAccountRequest, context: Context) -> messages.Account:
        """Reads one account."""
        return admin_messages.account(await self._accounts.get(request.name))

    async def CreateAccount(self, request: messages.CreateAccountRequest, context: Context) -> messages.Account:
        """Creates an account without keys."""
        new = request.account
        settings = AccountSettings(new.name, new.plan or None, new.limits)
        return admin_messages.account(await self._accounts.create(settings, origin()))

    async def UpdateAccount(self, request: messages.UpdateAccountRequest, context: Context) -> messages.Account:
        """Changes fields of an account."""
        changes = admin_messages.changes(request.account, request.update_mask, _FIELDS)
        return admin_messages.account(await self._accounts.update(request.account.name, origin(), **changes))

    async def SuspendAccount(self, request: messages.SuspendAccountRequest, context: Context) -> messages.Account:
        """Suspends an account."""
        return admin_messages.account(await self._accounts.suspend(request.name, origin()))

    async def ResumeAccount(self, request: messages.ResumeAccountRequest, context: Context) -> messages.Account:
        """Ends the suspension of an account."""
        return admin_messages.account(await self._accounts.resume(request.name, origin()))

    async def ListPlans(self, request: messages.ListPlansRequest, context: Context) -> messages.ListPlansResponse:
        """Lists the plans of the configuration, in the order of their names."""
        default = self._rules.default_plan
        plans = [
            admin_messages.plan(name, plan, is_default=name == default)
            for name, plan in sorted(self._rules.plans.items())
        ]
        return messages.ListPlansResponse(plans=plans)
