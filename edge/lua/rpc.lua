-- The script of gRPC-Web and Connect on the REST listener. It sees requests and responses as gRPC, below the filters that
-- convert them. Envoy's own errors of these protocols are not gRPC: they are written here.

package.path = "lua/?.lua"

local challenges = require("challenges")
local cors = require("cors")
local errors = require("grpc_errors")
local excess = require("headers").excess
local refusals = require("refusals")
local rich_status = require("rich_status")
local text = require("text")

function envoy_on_request(handle)
  local refusal = handle:streamInfo():dynamicMetadata():get("parley").refusal
  if refusal then
    return handle:respond(refusals.headers(refusal), "")
  end
  local message = excess(handle:headers())
  if message then
    handle:respond({ [":status"] = "431" }, message)
  end
end

-- Connect's names for the statuses of the catalogue, and their HTTP statuses.
local CONNECT = {
  [7] = { "permission_denied", "403" },
  [4] = { "deadline_exceeded", "504" },
  [8] = { "resource_exhausted", "429" },
  [12] = { "unimplemented", "501" },
  [14] = { "unavailable", "503" },
  [16] = { "unauthenticated", "401" },
}

-- Returns the JSON of a Connect error; the base64 of a detail has no padding.
local function connect_error(handle, failure)
  local details = {}
  for place, detail in ipairs(rich_status.details(failure)) do
    local value = handle:base64Escape(detail[2]):gsub("=", "")
    details[place] = ('{"type":"%s","value":"%s"}'):format(detail[1], value)
  end
  local code, message = CONNECT[failure.status][1], text.quote(failure.message)
  return ('{"code":"%s","message":%s,"details":[%s]}'):format(code, message, table.concat(details, ","))
end

-- Returns the last message of a stream: the flag 2, and the length in four bytes before the JSON.
local function end_of_stream(json)
  return ("\2\0%s%s%s"):format(string.char(math.floor(#json / 65536)), string.char(math.floor(#json / 256) % 256, #json % 256), json)
end

-- Writes the status, the type and the body in the protocol of the request's content type.
local WRITERS = {
  ["grpc-web"] = function(handle, headers, failure)
    headers:replace(":status", "200")
    headers:replace("content-type", "application/grpc")
    errors.write(handle, headers, failure)
    return ""
  end,
  ["connect+"] = function(handle, headers, failure)
    headers:replace(":status", "200")
    headers:replace("content-type", "application/connect+proto")
    return end_of_stream(('{"error":%s}'):format(connect_error(handle, failure)))
  end,
}

local function write_unary(handle, headers, failure)
  headers:replace(":status", CONNECT[failure.status][2])
  headers:replace("content-type", "application/json")
  return connect_error(handle, failure)
end

-- The headers of a refusal that are replaced by those of the protocol.
local GRPC = { "grpc-status", "grpc-message", "grpc-status-details-bin" }

local function write_challenge(handle, headers)
  local challenge = challenges.of_response(headers)
  if challenge then
    local url = handle:virtualHost():metadata():get("resource_metadata")
    headers:replace("www-authenticate", challenges.with_metadata(challenge, url, headers:get("parley-error-origin")))
  end
end

-- Writes an error of Envoy, unless the catalogue does not have it. The body invalidates the headers object.
local function write_own(handle, own, content_type)
  local headers = handle:headers()
  local refusal = refusals.read(headers)
  if refusal then
    write_challenge(handle, headers)
  end
  for _, name in ipairs(GRPC) do
    headers:remove(name)
  end
  local buffer = handle:body(true)
  local message = buffer:getBytes(0, buffer:length())
  local failure = refusal or errors.find(own, nil, message, handle:virtualHost():metadata():get("max_body"))
  if failure then
    local write = WRITERS[content_type:match("^application/(grpc%-web)") or content_type:match("^application/(connect%+)")]
    buffer:setBytes((write or write_unary)(handle, handle:headers(), failure))
  end
end

-- Prepares an error of gRPC for Envoy's filter for Connect, which copies the message percent-encoded, and the type of a detail
-- with its URL.
local function prepare(handle, fields)
  local message, details = fields:get("grpc-message"), fields:get("grpc-status-details-bin")
  if message and message:find("%", 1, true) then
    fields:replace("grpc-message", (text.percent_decode(message):gsub("%c", " ")))
  end
  if details then
    local short = rich_status.with_short_types(text.base64_decode(details))
    fields:replace("grpc-status-details-bin", handle:base64Escape(short))
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local request, own = handle:streamInfo():dynamicMetadata():get("parley"), headers:get("parley-error-local")
  if request.origin then
    cors.allow_rpc(headers, request.origin)
  end
  -- Envoy's filter for Connect converts no status without a body, as that of a failed check of a credential.
  if own and (headers:get("grpc-status") == nil or not request.rpc:find("^application/grpc")) then
    return write_own(handle, own, request.rpc)
  end
  errors.complete(handle)
  if not request.rpc:find("^application/grpc") then
    prepare(handle, headers)
    for _ in handle:bodyChunks() do
    end
    local trailers = handle:trailers()
    if trailers then
      prepare(handle, trailers)
    end
  end
end
