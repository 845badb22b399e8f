-- The script of the gRPC listener. Requests: rejects those that are not gRPC, or have too large headers. Responses: completes
-- the errors that do not come from the service, those of Envoy and of the worker's gRPC library, as the service's own are.

package.path = "lua/?.lua"

local catalogue = require("error_catalogue").grpc
local excess = require("headers").excess
local rich_status = require("rich_status")

local WRONG_PORT = "This port speaks gRPC over HTTP/2. Parley's REST API has a port of its own, by default 8080: "
  .. "`parley up` prints both addresses.\n"

local function is_grpc(handle, headers)
  return (headers:get("content-type") or ""):find("^application/grpc") and handle:streamInfo():protocol() == "HTTP/2"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if not is_grpc(handle, headers) then
    return handle:respond({ [":status"] = "400", ["content-type"] = "text/plain" }, WRONG_PORT)
  end
  local message = excess(headers)
  if message then
    return handle:respond({ [":status"] = "431" }, message)
  end
end

-- The statuses of the worker's gRPC library, which have no reason: a message over its limit, an unknown method.
local BARE = { ["8"] = catalogue[413], ["12"] = catalogue[404] }

-- Returns the row of a failure. `own` is Envoy's HTTP status and the cause, nil for a status from the worker.
local function row_of(own, status)
  local code, cause = (own or ""):match("^(%d+) (.*)$")
  if code == nil then
    return BARE[status]
  elseif code == "503" and cause:find("^upstream_reset_before_response_started{") and not cause:find("connection_failure", 1, true) then
    return catalogue.worker_lost
  end
  return catalogue[tonumber(code)]
end

-- Returns the message of a failure, with the limit of a message, for example `8 MiB`.
local function message_of(row, given, largest)
  if row == catalogue[413] then
    return "The request message is larger than " .. largest
  elseif row == catalogue[431] then
    return given
  end
  return row.message
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status, own = headers:get("grpc-status"), headers:get("parley-error-local")
  if own then
    headers:remove("parley-error-local")
  end
  if status == nil or status == "0" or headers:get("parley-error-reason") then
    return
  end
  local row = row_of(own, status)
  if row == nil then
    return
  end
  local message = message_of(row, headers:get("grpc-message"), handle:virtualHost():metadata():get("max_body"))
  headers:replace("grpc-status", tostring(row.status))
  headers:replace("grpc-message", message)
  headers:replace("grpc-status-details-bin", handle:base64Escape(rich_status(row.status, message, row.reason, row.retry_after)))
  headers:replace("parley-error-reason", row.reason)
  if row.retry_after then
    headers:replace("retry-after", tostring(row.retry_after))
  end
end
