-- The script of the gRPC listener: rejects requests that are not gRPC, and too large headers, with a readable error.

package.path = "lua/?.lua"

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
    -- RESOURCE_EXHAUSTED, as in gRPC's own libraries.
    return handle:respond({
      [":status"] = "200",
      ["content-type"] = "application/grpc",
      ["grpc-status"] = "8",
      ["grpc-message"] = message,
    }, "")
  end
end
