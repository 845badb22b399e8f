-- The REST listener's script. Envoy calls `envoy_on_request` when the body is in, and `envoy_on_response` for every
-- answer, its own included. An answer that is none of an error passes with two look-ups.

package.path = "lua/?.lua"

local dialects = require("dialects")
local errors = require("errors")

math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)"), 16) % 2 ^ 31)

-- Ids go into logs and headers of others: only plain ones do.
local function is_plain(id)
  return id ~= nil and #id <= 128 and id:find("^[%w._-]+$") ~= nil
end

local function new_id()
  local random = math.random
  return ("%08x%08x%08x%08x"):format(random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1))
end

-- The body decides where it says something; else an `Accept` that names event streams and not JSON.
local function wants_stream(headers, body)
  if body and body.stream ~= nil then
    return body.stream == true or body.stream == "true"
  end
  local accept = headers:get("accept")
  return accept ~= nil and accept:find("text/event-stream", 1, true) ~= nil and not accept:find("application/json", 1, true)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local request_id = headers:get("x-request-id")
  if not is_plain(request_id) then
    request_id = new_id()
    headers:replace("x-request-id", request_id)
  end
  if not is_plain(headers:get("x-correlation-id")) then
    headers:replace("x-correlation-id", request_id)
  end
  if headers:get(":method") == "HEAD" then
    handle:streamInfo():dynamicMetadata():set("parley", "no_body", true)
  end
  local path = handle:metadata():get("path")
  if path == nil then
    return
  end
  local body = handle:streamInfo():dynamicMetadata():get("parley")
  if body and body.malformed then
    handle:respond({ [":status"] = "400" }, errors.MALFORMED)
  elseif wants_stream(headers, body) then
    headers:replace(":path", path .. ":stream")
  end
end

-- Waiting for the body ends the life of the headers object. There is no body where a worker sends headers before it fails.
local function write_body(handle, dialect, failure)
  local body = handle:body(true)
  if body == nil then
    return
  end
  if failure.message == nil then
    errors.explain(failure, body:getBytes(0, body:length()))
  end
  body:setBytes(dialect.body(failure))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status, grpc_status = headers:get(":status"), headers:get("grpc-status")
  if status == "200" and (grpc_status == nil or grpc_status == "0") then
    return
  end
  local failure = errors.read(headers, tonumber(status), grpc_status)
  local dialect = dialects[handle:metadata():get("dialect")] or dialects.chipp
  local said = handle:streamInfo():dynamicMetadata():get("parley")
  if not (said and said.no_body) then
    write_body(handle, dialect, failure)
  end
  headers = handle:headers()
  dialect.headers(headers, failure)
  -- A request that was too large for `envoy_on_request` to see.
  if headers:get("x-request-id") and not is_plain(headers:get("x-correlation-id")) then
    headers:replace("x-correlation-id", headers:get("x-request-id"))
  end
end
