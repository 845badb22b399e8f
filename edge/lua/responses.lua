-- Completes the responses of the REST listener: CORS, the headers of streams, lists without items, and errors in the dialect.
-- A successful response costs only a few lookups.

local challenges = require("challenges")
local cors = require("cors")
local dialects = require("dialects")
local errors = require("errors")
local files = require("files")

local responses = {}

-- Waiting for the body invalidates the headers object. There is no body where a worker sends headers before it fails.
local function write_body(handle, dialect, failure)
  local buffer = handle:body(true)
  if buffer and failure.message == nil then
    errors.explain(failure, buffer:getBytes(0, buffer:length()))
  end
  if failure.served then
    dialect.adapt(failure)
  end
  if buffer then
    buffer:setBytes(dialect.body(failure))
  end
end

local function is_success(status, grpc_status)
  return status == "204" or status == "200" and (grpc_status == nil or grpc_status == "0")
end

-- The transcoder omits empty lists; the API always has them.
local function complete_list(handle, field)
  local buffer = handle:body(true)
  if buffer == nil then
    return
  end
  local json = buffer:getBytes(0, buffer:length())
  if not json:sub(1, 64):find('"' .. field .. '":[', 1, true) then
    local rest = json:sub(2)
    buffer:setBytes(('{"%s":[]%s%s'):format(field, rest == "}" and "" or ",", rest))
  end
end

local function complete_success(handle, headers, list)
  local content_type = headers:get("content-type")
  if content_type == "text/event-stream" then
    headers:replace("cache-control", "no-cache")
    headers:replace("x-accel-buffering", "no")
  elseif content_type == "application/jsonl" then
    -- An id that the caller has chosen may have any printable character.
    local name = (headers:get("x-chat-session-id") or "sessions"):gsub("[^%w._-]", "_")
    headers:replace("content-disposition", ('attachment; filename="%s.jsonl"'):format(name))
  elseif list then
    complete_list(handle, list)
  end
end

local function write_error(handle, headers, request)
  local host, route = handle:virtualHost():metadata(), handle:metadata()
  local failure = errors.read(headers, request, host:get("largest_body"))
  local challenge = challenges.of_response(headers, failure.status)
  if challenge then
    local origin = headers:get("parley-error-origin")
    failure.challenge = challenges.with_metadata(challenge, host:get("resource_metadata"), origin)
  end
  failure.place = route:get("body") and "body" or "query"
  failure.served = request.dialect and not request.unserved
  local dialect = dialects[request.dialect] or dialects.chipp
  if not request.no_body then
    write_body(handle, dialect, failure)
  end
  dialect.headers(handle:headers(), failure)
end

function responses.complete(handle)
  local headers, known = handle:headers(), handle:streamInfo():dynamicMetadata()
  local request = known:get("parley") or {}
  if request.rpc then
    return -- lua/rpc.lua has completed it
  end
  if request.origin then
    cors.allow(headers, request.origin)
  end
  if request.file then
    files.count(handle, headers, not request.no_body)
    if files.is_complete(headers) then
      return
    end
  end
  if is_success(headers:get(":status"), headers:get("grpc-status")) then
    return complete_success(handle, headers, request.list)
  elseif not handle:metadata():get("rpc") then
    request.dialect = (known:get("parley.dialect") or {}).name
    write_error(handle, headers, request)
  end
end

return responses
