-- The errors of gRPC that do not come from the service, those of Envoy and of the worker's gRPC library: they get the form of
-- the service's own.

local catalogue = require("error_catalogue").grpc
local refusals = require("refusals")
local rich_status = require("rich_status")

local errors = {}

-- The statuses of the worker's gRPC library, which have no reason: a message over its limit, an unknown method.
local BARE = { ["8"] = catalogue[413], ["12"] = catalogue[404] }

local OVERLOADED = "The service is overloaded; the call did not begin, try again"

-- Returns the row of a failure.
local function row_of(own, status)
  local code, cause = (own or ""):match("^(%d+) (.*)$")
  if code == nil then
    return BARE[status]
  elseif code == "503" and cause:find("^upstream_reset_before_response_started{") and not cause:find("connection_failure", 1, true) then
    return catalogue.worker_lost
  end
  return catalogue[tonumber(code)]
end

-- Returns a failure (see rich_status.lua), or nil if it has no row in the catalogue.
--   own       Envoy's HTTP status and the cause, nil for a status from the worker
--   status    the gRPC status
--   message   the message that the response has
--   largest   the limit of a message, for example `8 MiB`
function errors.find(own, status, message, largest)
  local row = row_of(own, status)
  if row == nil then
    return nil
  elseif row == catalogue[413] then
    message = "The request message is larger than " .. largest
  elseif own and own:find(" overload$") then
    message = OVERLOADED
  elseif row ~= catalogue[431] then
    message = row.message
  end
  return { status = row.status, message = message, reason = row.reason, retry_after = row.retry_after, should_retry = row.should_retry }
end

-- Returns the headers of a failure, as the service writes them, without the message. A gRPC library with a `retryPolicy` obeys
-- the pushback: -1 is no retry (gRFC A6).
function errors.headers(handle, failure)
  local pushback = not failure.should_retry and "-1" or nil
  return {
    ["grpc-status"] = tostring(failure.status),
    ["grpc-status-details-bin"] = handle:base64Escape(rich_status.encode(failure)),
    ["parley-error-reason"] = failure.reason,
    ["retry-after"] = failure.retry_after and tostring(failure.retry_after),
    ["grpc-retry-pushback-ms"] = failure.retry_after and tostring(1000 * failure.retry_after) or pushback,
  }
end

-- Writes the failure.
function errors.write(handle, headers, failure)
  for name, value in pairs(errors.headers(handle, failure)) do
    headers:replace(name, value)
  end
  headers:replace("grpc-message", failure.message)
end

-- Completes a response of gRPC if it is a failure that is not the service's.
function errors.complete(handle)
  local headers = handle:headers()
  local status, own = headers:get("grpc-status"), headers:get("parley-error-local")
  if own then
    headers:remove("parley-error-local")
  end
  if status == nil or status == "0" or headers:get("parley-error-reason") then
    return
  end
  local request = handle:streamInfo():dynamicMetadata():get("parley")
  local failure = request and request.refusal and refusals.restore(request.refusal)
    or errors.find(own, status, headers:get("grpc-message"), handle:virtualHost():metadata():get("max_body"))
  if failure then
    errors.write(handle, headers, failure)
  end
end

return errors
