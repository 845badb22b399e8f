-- Refusals of credentials as responses of the REST listener, which the other scripts complete like errors of the service.

local reasons = require("error_catalogue").reasons
local text = require("text")

local refusals = {}

-- Returns a failure (see credentials.lua) in a form that the dynamic metadata of the request can have.
function refusals.keep(failure)
  return { reason = failure.reason, message = failure.message, retry_after = failure.retry_after }
end

-- Returns the failure that was kept.
function refusals.restore(kept)
  local row = reasons[kept.reason]
  return {
    reason = kept.reason,
    status = row.grpc_status,
    message = kept.message,
    retry_after = kept.retry_after,
    should_retry = row.should_retry,
  }
end

-- Returns the headers of the response.
function refusals.headers(failure)
  return {
    [":status"] = tostring(reasons[failure.reason].status),
    ["parley-error-reason"] = failure.reason,
    ["parley-error-code"] = failure.reason:lower(),
    ["grpc-message"] = failure.message,
    ["retry-after"] = failure.retry_after and ("%d"):format(failure.retry_after),
  }
end

-- Returns the failure of a response with such headers, nil for other responses.
function refusals.read(headers)
  local reason = headers:get("parley-error-reason")
  return reasons[reason]
    and refusals.restore({
      reason = reason,
      message = text.percent_decode(headers:get("grpc-message") or ""),
      retry_after = tonumber(headers:get("retry-after") or ""),
    })
end

return refusals
