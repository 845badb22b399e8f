-- The script of the gRPC listener. Requests: rejects those that are not gRPC, or have too large headers. Responses: completes
-- the errors that do not come from the service, those of Envoy and of the worker's gRPC library, as the service's own are.

package.path = "lua/?.lua"

local challenges = require("challenges")
local credentials = require("credentials")
local errors = require("grpc_errors")
local excess = require("headers").excess

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
  local failure = handle:metadata():get("authenticated") and credentials.failure(handle, headers)
  if failure then
    local fields = errors.headers(handle, failure)
    fields[":status"] = "401"
    local challenge, url = challenges.of_reason(failure.reason), handle:virtualHost():metadata():get("resource_metadata")
    fields["www-authenticate"] = challenge and challenges.with_metadata(challenge, url)
    return handle:respond(fields, failure.message)
  end
end

envoy_on_response = errors.complete
