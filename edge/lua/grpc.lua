-- The script of the gRPC listener. Requests: rejects those that are not gRPC, have too large headers or no credential, and decides
-- whether a worker checks the credential before the message is read. Responses: completes the errors that do not come from the
-- service, those of Envoy and of the worker's gRPC library, as the service's own are.

package.path = "lua/?.lua"

local challenges = require("challenges")
local credentials = require("credentials")
local errors = require("grpc_errors")
local failures = require("failures")
local excess = require("headers").excess
local progress = require("progress")
local refusals = require("refusals")
local trust = require("trust")

local WRONG_PORT = "This port speaks gRPC over HTTP/2. Parley's REST API has a port of its own, by default 8080: "
  .. "`parley up` prints both addresses.\n"

-- The size of a message that is read without a check, and of all messages of a call that needs no credential.
local MAX_UNCHECKED = 64 * 1024

local function is_grpc(handle, headers)
  return (headers:get("content-type") or ""):find("^application/grpc") and handle:streamInfo():protocol() == "HTTP/2"
end

-- Rejects a call by its credential, from its headers.
local function refuse(handle, failure)
  local fields = errors.headers(handle, failure)
  local challenge, url = challenges.of_reason(failure.reason), handle:virtualHost():metadata():get("resource_metadata")
  fields["www-authenticate"] = challenge and challenges.with_metadata(challenge, url)
  fields[":status"] = "401"
  handle:respond(fields, failure.message)
end

-- Whether the message is small. Most gRPC libraries do not declare its size.
local function is_small(headers)
  local length = tonumber(headers:get("content-length") or "")
  return length ~= nil and length <= MAX_UNCHECKED
end

-- Admits a call by its credential, or refuses it. A call without one may have the client certificate of its connection, whose
-- name only the edge sets.
local function authenticate(handle, headers)
  local credential = headers:get("authorization") or ""
  local now = handle:timestamp()
  if trust.is_trusted(credential, now) or credential == "" and (headers:get("parley-client-name") or "") ~= "" then
    return
  end
  local failure = credentials.failure(handle, headers)
  if not failure and is_small(headers) then
    return
  elseif not failure and not trust.is_known(credential) then
    failure = credentials.begin_check(handle)
  end
  if failure then
    return refuse(handle, failure)
  elseif trust.needs_check(credential, now) then
    local found = handle:streamInfo():dynamicMetadata()
    found:set("parley", "credential", credential)
    found:set("parley", "check", true)
  end
end

-- Begins to reject a call: at the end of its message another route applies, and `errors.complete` writes the cause.
local function refuse_message(handle, failure)
  handle:streamInfo():dynamicMetadata():set("parley", "refusal", refusals.keep(failure))
  handle:clearRouteCache()
end

-- Counts a message while it arrives, if it is large. Beyond the limits of those in progress the rest is discarded.
local function count_message(handle, caller)
  local size, request, failure = 0, nil, nil
  for chunk in handle:bodyChunks() do
    size = size + chunk:length()
    if size > MAX_UNCHECKED then
      request = request or progress.begin(caller, handle:virtualHost():metadata())
      if not failure then
        failure = progress.grow(request, size, handle:timestamp())
        if failure then
          refuse_message(handle, failure)
        end
      end
      if failure then
        chunk:setBytes("")
      end
    end
  end
end

-- Discards what exceeds the limit. A call of health or reflection is small.
local function limit_body(handle)
  local size = 0
  for chunk in handle:bodyChunks() do
    size = size + chunk:length()
    if size > MAX_UNCHECKED then
      chunk:setBytes("")
    end
  end
end

function envoy_on_request(handle)
  local headers, route = handle:headers(), handle:metadata()
  if not is_grpc(handle, headers) then
    return handle:respond({ [":status"] = "400", ["content-type"] = "text/plain" }, WRONG_PORT)
  end
  local message = excess(headers)
  if message then
    return handle:respond({ [":status"] = "431" }, message)
  elseif route:get("authenticated") then
    local caller = headers:get("authorization") or headers:get("parley-client-name") or ""
    authenticate(handle, headers)
    return count_message(handle, caller)
  elseif route:get("open") then
    return limit_body(handle)
  end
  handle:respond({ [":status"] = "404" }, "")
end

-- A response of the service shows that the check has passed. Other responses of Envoy show nothing about the credential.
local function record_check(handle)
  local request = handle:streamInfo():dynamicMetadata():get("parley")
  if request and request.credential then
    local own, is_accepted = handle:headers():get("parley-error-local"), nil
    if own == nil then
      is_accepted = true
    elseif own:find("ext_authz_denied", 1, true) then
      is_accepted = false
    end
    if is_accepted ~= nil and not trust.is_known(request.credential) then
      failures.end_check(handle, is_accepted)
    end
    trust.record(request.credential, is_accepted, handle:timestamp())
  end
end

function envoy_on_response(handle)
  if trust.is_pending() then
    record_check(handle)
  end
  errors.complete(handle)
end
