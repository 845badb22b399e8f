"""Refusals of changes of keys and accounts."""

from parley.core.errors.base import ParleyError
from parley.core.errors.request import InvalidRequest
from parley.v1 import error_reason_pb2 as reasons


class KeyNotFound(ParleyError):
    """There is no key with this id."""

    reason = reasons.ERROR_REASON_KEY_NOT_FOUND

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f'No key has the id "{key_id}"; list the keys to find it', param="id")


class KeyRevoked(ParleyError):
    """The key is revoked or expired, and cannot be changed so."""

    reason = reasons.ERROR_REASON_KEY_REVOKED

    def __init__(self, key_id: str, state: str = "revoked") -> None:
        remedy = "create another key" if state == "revoked" else "set a later expiry first, or create another key"
        super().__init__(f'The key "{key_id}" is {state}; {remedy}', param="id")


class AccountNotFound(ParleyError):
    """There is no account with this name."""

    reason = reasons.ERROR_REASON_ACCOUNT_NOT_FOUND

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f'No account is named "{name}"; list the accounts, or create it', param="name")


class AccountExists(ParleyError):
    """There is an account with this name."""

    reason = reasons.ERROR_REASON_ACCOUNT_EXISTS

    def __init__(self, name: str) -> None:
        super().__init__(f'An account named "{name}" exists; update it, or choose another name', param="name")


class InvalidAdminKey(ParleyError):
    """A call of the admin listener has no admin key, or an unknown one."""

    reason = reasons.ERROR_REASON_INVALID_ADMIN_KEY

    def __init__(self) -> None:
        super().__init__("Missing or invalid admin key; send it as `authorization: Bearer <admin key>`")


class CallCancelled(ParleyError):
    """An administrator has cancelled the running call."""

    reason = reasons.ERROR_REASON_CALL_CANCELLED

    def __init__(self) -> None:
        super().__init__("An administrator of this service has cancelled the call")


class PlanConflict(InvalidRequest):
    """A new key names another plan than that of its existing account."""

    def __init__(self, account: str, plan: str, wanted: str) -> None:
        self.account, self.plan, self.wanted = account, plan, wanted
        message = f'`plan`: the account "{account}" is on the plan {plan}; update the account to change it'
        super().__init__(message, param="plan")
