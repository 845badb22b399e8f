-- The form of a credential. A request without a credential, or with one that no worker would accept, is refused from its headers:
-- its body is neither read nor parsed. Whether a credential of the right form is valid, a worker decides.

local failures = require("failures")
local reasons = require("error_catalogue").reasons

local find, match = string.find, string.match

local credentials = {}

-- The longest API key, in bytes. Keys of Parley have 46. The limit of all headers bounds a JWT.
local MAX_KEY_SIZE = 256

-- Headers in which clients of other vendors send the key.
local KEY_HEADERS = { "x-api-key", "api-key", "x-goog-api-key" }

-- An API key has the characters of RFC 6750, 2.1; a JWT is three parts in base64url (RFC 7515, 3.1).
local function has_form(token)
  return #token <= MAX_KEY_SIZE and find(token, "^sk%-[%w._~+/=-]+$") or find(token, "^[%w_-]+%.[%w_-]+%.[%w_-]*$")
end

local function missing(headers)
  for _, name in ipairs(KEY_HEADERS) do
    if (headers:get(name) or "") ~= "" then
      return ("Missing API key; send it as `Authorization: Bearer <key>`, not in `%s`"):format(name)
    end
  end
  return "Missing API key"
end

-- Returns the reason, the message and the fault of a credential, or nil if it has the right form.
local function fault_of(headers)
  local value = headers:get("authorization")
  local token = value and match(value, "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+) *$")
  if token and has_form(token) then
    return nil
  elseif value == nil or value == "" then
    return "MISSING_API_KEY", missing(headers), "missing"
  end
  return "INVALID_API_KEY", "Invalid API key", "malformed"
end

local function failure_of(reason, message, wait)
  if wait then
    reason, message = "RATE_LIMITED", ("Too many calls without a valid credential from this address; try again in %d s"):format(wait)
  end
  local row = reasons[reason]
  return { reason = reason, status = row.grpc_status, message = message, retry_after = wait, should_retry = row.should_retry }
end

-- Returns the failure of a request that needs a credential and has none of the right form, or nil:
--   reason, status  the reason, and the number of its gRPC status
--   message         the message
--   retry_after     the seconds until a retry, nil if the failure has none
--   should_retry    whether the same request may succeed later
-- Each failure counts for the client's address; over its limit the failure is another one. It is logged.
function credentials.failure(handle, headers)
  local reason, message, fault = fault_of(headers)
  if reason == nil then
    return nil
  end
  local wait = failures.record(handle, { reason = reason, message = message, fault = fault })
  return failure_of(reason, message, wait)
end

-- Begins the check of a credential that no worker has accepted yet. Returns the failure if its address is over its limit, or nil.
function credentials.begin_check(handle)
  local wait = failures.begin_check(handle)
  return wait and failure_of(nil, nil, wait)
end

return credentials
