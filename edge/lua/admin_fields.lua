-- GENERATED from protos/ by `make gen`: the JSON of the admin API's requests.
--   methods   the type of the request by the path of the method
--   types     by type and name of a field: the type of its object, or `false` for any other value
return {
  methods = {
    ["/parley.admin.v1.Accounts/CreateAccount"] = "CreateAccountRequest",
    ["/parley.admin.v1.Accounts/GetAccount"] = "GetAccountRequest",
    ["/parley.admin.v1.Accounts/ListAccounts"] = "ListAccountsRequest",
    ["/parley.admin.v1.Accounts/ListPlans"] = "ListPlansRequest",
    ["/parley.admin.v1.Accounts/ResumeAccount"] = "ResumeAccountRequest",
    ["/parley.admin.v1.Accounts/SuspendAccount"] = "SuspendAccountRequest",
    ["/parley.admin.v1.Accounts/UpdateAccount"] = "UpdateAccountRequest",
    ["/parley.admin.v1.AuditLog/ListAuditEvents"] = "ListAuditEventsRequest",
    ["/parley.admin.v1.Keys/CreateKey"] = "CreateKeyRequest",
    ["/parley.admin.v1.Keys/GetKey"] = "GetKeyRequest",
    ["/parley.admin.v1.Keys/ListKeys"] = "ListKeysRequest",
    ["/parley.admin.v1.Keys/RevokeKey"] = "RevokeKeyRequest",
    ["/parley.admin.v1.Keys/RotateKey"] = "RotateKeyRequest",
    ["/parley.admin.v1.Keys/UpdateKey"] = "UpdateKeyRequest",
    ["/parley.admin.v1.Operations/CancelCall"] = "CancelCallRequest",
    ["/parley.admin.v1.Operations/CloseTarget"] = "CloseTargetRequest",
    ["/parley.admin.v1.Operations/Drain"] = "DrainRequest",
    ["/parley.admin.v1.Operations/GetLastReload"] = "GetLastReloadRequest",
    ["/parley.admin.v1.Operations/GetLogLevel"] = "GetLogLevelRequest",
    ["/parley.admin.v1.Operations/ListCallLogLines"] = "ListCallLogLinesRequest",
    ["/parley.admin.v1.Operations/ListCalls"] = "ListCallsRequest",
    ["/parley.admin.v1.Operations/ListTargets"] = "ListTargetsRequest",
    ["/parley.admin.v1.Operations/OpenTarget"] = "OpenTargetRequest",
    ["/parley.admin.v1.Operations/Reload"] = "ReloadRequest",
    ["/parley.admin.v1.Operations/SetLogLevel"] = "SetLogLevelRequest",
    ["/parley.admin.v1.Operations/SetTargetWeight"] = "SetTargetWeightRequest",
    ["/parley.admin.v1.Usage/QueryUsage"] = "QueryUsageRequest",
  },
  types = {
    Account = {
      ["limits"] = false,
      ["name"] = false,
      ["plan"] = false,
      ["suspended"] = false,
    },
    CancelCallRequest = {
      ["request_id"] = false,
    },
    CloseTargetRequest = {
      ["name"] = false,
    },
    CreateAccountRequest = {
      ["account"] = "Account",
    },
    CreateKeyRequest = {
      ["key"] = "Key",
      ["plan"] = false,
    },
    DrainRequest = {
    },
    GetAccountRequest = {
      ["name"] = false,
    },
    GetKeyRequest = {
      ["id"] = false,
    },
    GetLastReloadRequest = {
    },
    GetLogLevelRequest = {
    },
    Key = {
      ["account"] = false,
      ["created"] = false,
      ["expires"] = false,
      ["id"] = false,
      ["limits"] = false,
      ["models"] = false,
      ["name"] = false,
      ["previous_expires"] = false,
      ["revoked"] = false,
      ["scopes"] = false,
      ["state"] = false,
    },
    ListAccountsRequest = {
      ["page_size"] = false,
      ["page_token"] = false,
    },
    ListAuditEventsRequest = {
      ["page_size"] = false,
      ["page_token"] = false,
      ["since"] = false,
      ["subject"] = false,
    },
    ListCallLogLinesRequest = {
      ["max_lines"] = false,
      ["request_id"] = false,
    },
    ListCallsRequest = {
      ["account"] = false,
      ["model"] = false,
    },
    ListKeysRequest = {
      ["account"] = false,
      ["page_size"] = false,
      ["page_token"] = false,
    },
    ListPlansRequest = {
    },
    ListTargetsRequest = {
    },
    OpenTargetRequest = {
      ["name"] = false,
    },
    QueryUsageRequest = {
      ["account"] = false,
      ["by"] = false,
      ["key"] = false,
      ["models"] = false,
      ["since"] = false,
      ["until"] = false,
    },
    ReloadRequest = {
    },
    ResumeAccountRequest = {
      ["name"] = false,
    },
    RevokeKeyRequest = {
      ["id"] = false,
    },
    RotateKeyRequest = {
      ["id"] = false,
      ["keep_seconds"] = false,
    },
    SetLogLevelRequest = {
      ["level"] = false,
      ["until"] = false,
    },
    SetTargetWeightRequest = {
      ["name"] = false,
      ["weight"] = false,
    },
    SuspendAccountRequest = {
      ["name"] = false,
    },
    UpdateAccountRequest = {
      ["account"] = "Account",
      ["update_mask"] = false,
    },
    UpdateKeyRequest = {
      ["key"] = "Key",
      ["update_mask"] = false,
    },
  },
}
