"""Why a call fails, in the terms of the domain.

ParleyError
├── InvalidRequest            a field is missing, of the wrong type or out of range
│   ├── PlanConflict          for administrators
│   └── SessionOfOtherModel
├── UnsupportedParameter      the backend does not support a parameter
├── ModelNotFound             no such model for this caller
│   └── ModelRetired          an alias whose time has ended
├── Unauthenticated           no API key
├── InvalidApiKey             an unknown, expired or revoked API key
│   └── AccessRevoked        while the call was running
├── PlanRequired              a key of a plan without access
├── AccountSuspended          a key of a suspended account
├── ScopeRequired             the key lacks a scope
├── InvalidToken              an access token that is not valid
├── InsufficientScope         an access token without a required scope
├── IssuerUnavailable         the keys of the token's issuer cannot be read
├── KeyNotFound              no key has this id, for administrators
├── KeyRevoked               the key cannot be changed, for administrators
├── AccountNotFound          no account has this name, for administrators
├── AccountExists            an account has this name, for administrators
├── CallCancelled             an administrator has cancelled the running call
├── InvalidAdminKey          no admin key, or an unknown one
├── LimitExceeded
│   ├── RateLimited           the key or its account has used up its limit a minute
│   ├── ConcurrencyLimited    the key or its account has too many running calls
│   ├── QuotaExhausted        the key or its account has used up its tokens or money of a day or a month
│   └── StorageLimitExceeded  the session or its account cannot store more
├── SessionNotFound           no such session for this caller
├── SessionBusy               another turn of the session is running
├── TurnLost                  this worker has lost its lease
├── KeyInUse                  the call with this Idempotency-Key is still running
├── KeyReused                 an earlier, different request had this Idempotency-Key
├── ReplyDeleted              the answer to this Idempotency-Key was deleted with its session
├── DeadlineExceeded          the caller's deadline passed
├── StoreUnavailable          sessions and keys cannot be read or written
│   └── StoreMisconfigured
├── LocalResourcesExhausted   this machine has no descriptors, memory or disk space left
│   └── LocalPortsExhausted
├── ShuttingDown              this worker is stopping
├── GuardRefused              a guard refuses the request
├── GuardUnavailable          a guard failed, and nothing passes without it
└── UpstreamError             a backend failed
    ├── UpstreamRejected      it refuses the request itself
    │   ├── ContextLengthExceeded
    │   └── ContentPolicy
    ├── UpstreamRateLimited   429
    ├── UpstreamQuotaExhausted  402, 429: no credit or quota is left
    ├── UpstreamMisconfigured 401, 403, 404: the operator's key, address or model
    │   └── AddedParameterRejected  a parameter that the operator or Parley has added
    ├── UpstreamUnavailable   refused, reset, 408, 5xx
    │   └── UpstreamUnreadable  an answer that was cut or has another shape
    ├── UpstreamUnrecognized  a status or body that the failure table does not list
    ├── UpstreamTimeout       no answer, or no token, in time
    ├── LoopDetected          the request has passed through too many Parleys
    └── StreamBroken          cut, stalled or unparsable after the first token

A message is for the caller: it names the field or the cause and says what to do. What only the operator may see
(addresses, an upstream's text about the operator's key) goes into `cause`, which is only logged.
"""

from parley.core.errors.access import (
    AccessRevoked,
    AccountSuspended,
    InsufficientScope,
    InvalidApiKey,
    InvalidToken,
    IssuerUnavailable,
    PlanRequired,
    ScopeRequired,
    Unauthenticated,
)
from parley.core.errors.administration import (
    AccountExists,
    AccountNotFound,
    CallCancelled,
    InvalidAdminKey,
    KeyNotFound,
    KeyRevoked,
    PlanConflict,
)
from parley.core.errors.base import ParleyError
from parley.core.errors.guards import GuardRefused, GuardUnavailable
from parley.core.errors.limits import (
    ConcurrencyLimited,
    LimitExceeded,
    QuotaExhausted,
    RateLimited,
    StorageLimitExceeded,
)
from parley.core.errors.request import (
    InvalidRequest,
    ModelNotFound,
    ModelRetired,
    SessionOfOtherModel,
    UnsupportedParameter,
    Violation,
)
from parley.core.errors.service import (
    DeadlineExceeded,
    LocalPortsExhausted,
    LocalResourcesExhausted,
    ShuttingDown,
    StoreMisconfigured,
    StoreUnavailable,
)
from parley.core.errors.sessions import KeyInUse, KeyReused, ReplyDeleted, SessionBusy, SessionNotFound, TurnLost
from parley.core.errors.upstream import (
    AddedParameterRejected,
    ContentPolicy,
    ContextLengthExceeded,
    LoopDetected,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)

__all__ = [
    "AccessRevoked",
    "AccountExists",
    "AccountNotFound",
    "AccountSuspended",
    "AddedParameterRejected",
    "CallCancelled",
    "ConcurrencyLimited",
    "ContentPolicy",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "GuardRefused",
    "GuardUnavailable",
    "InsufficientScope",
    "InvalidAdminKey",
    "InvalidApiKey",
    "InvalidRequest",
    "InvalidToken",
    "IssuerUnavailable",
    "KeyInUse",
    "KeyNotFound",
    "KeyReused",
    "KeyRevoked",
    "LimitExceeded",
    "LocalPortsExhausted",
    "LocalResourcesExhausted",
    "LoopDetected",
    "ModelNotFound",
    "ModelRetired",
    "ParleyError",
    "PlanConflict",
    "PlanRequired",
    "QuotaExhausted",
    "RateLimited",
    "ReplyDeleted",
    "ScopeRequired",
    "SessionBusy",
    "SessionNotFound",
    "SessionOfOtherModel",
    "ShuttingDown",
    "StorageLimitExceeded",
    "StoreMisconfigured",
    "StoreUnavailable",
    "StreamBroken",
    "TurnLost",
    "Unauthenticated",
    "UnsupportedParameter",
    "UpstreamError",
    "UpstreamMisconfigured",
    "UpstreamQuotaExhausted",
    "UpstreamRateLimited",
    "UpstreamRejected",
    "UpstreamTimeout",
    "UpstreamUnavailable",
    "UpstreamUnreadable",
    "UpstreamUnrecognized",
    "Violation",
]
