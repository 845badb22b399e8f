-- The second script. Envoy calls `envoy_on_request` when the body is in, and `envoy_on_response` for every answer, its
-- own included. An answer that is none of an error passes with a few look-ups.

package.path = "lua/?.lua"

local body = require("body")
local cors = require("cors")
local dialects = require("dialects")
local errors = require("errors")

local NOTHING = {}

-- How far a body that is no JSON is looked at for the mistake, in bytes.
local READ = 2 ^ 20

-- What arrival.lua found, and the body's fields that json_to_metadata read.
local function known(handle)
  return handle:streamInfo():dynamicMetadata():get("parley") or NOTHING
end

local function refuse(handle, message, param)
  local found = handle:streamInfo():dynamicMetadata()
  found:set("parley", "refusal", message)
  if param then
    found:set("parley", "refused_param", param)
  end
  handle:respond({ [":status"] = "400" }, "")
end

-- What the transcoder does not know may be a parameter of the backend: OpenAI's SDKs put their `extra_body` into the body.
local function keep_unknown(handle, buffer)
  local changed, misfit, must_be = body.with_extra(buffer:getBytes(0, buffer:length()))
  if misfit then
    refuse(handle, errors.misfit(misfit, must_be))
  elseif changed then
    buffer:setBytes(changed)
  end
end

-- Streams have a path of their own, which no route lists: it cannot be asked for from outside.
function envoy_on_request(handle)
  local request = known(handle)
  if request.too_large then
    return handle:respond({ [":status"] = "413" }, "")
  elseif not handle:metadata():get("completions") then
    return
  end
  local dialect = dialects[request.dialect]
  if request.malformed then
    local buffer = handle:body()
    return refuse(handle, errors.unreadable(buffer and buffer:getBytes(0, math.min(buffer:length(), READ)) or ""))
  elseif type(request.stream) == "string" then
    return refuse(handle, "`stream` must be true or false", "stream")
  end
  local message, param = dialect.check(request)
  if message then
    return refuse(handle, message, param)
  end
  local headers = handle:headers()
  local asked = request.stream == true
  if dialect.streams(headers:get("accept"), request.stream ~= nil, asked) then
    headers:replace(":path", headers:get(":path"):match("^[^?]*") .. ":stream")
    if dialect.events then
      headers:replace("parley-error-form", dialect.events)
    end
  elseif asked then
    headers:replace("parley-form", "whole")
  end
  local buffer = handle:body()
  if buffer then
    keep_unknown(handle, buffer)
  end
end

-- Waiting for the body ends the life of the headers object. There is no body where a worker sends headers before it fails.
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

local function is_well(status, grpc_status)
  return status == "204" or status == "200" and (grpc_status == nil or grpc_status == "0")
end

-- The transcoder leaves empty lists out; callers count on them.
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

function envoy_on_response(handle)
  local headers, request = handle:headers(), known(handle)
  if request.origin then
    cors.allow(headers, request.origin)
  end
  local status, grpc_status = headers:get(":status"), headers:get("grpc-status")
  if is_well(status, grpc_status) then
    if headers:get("content-type") == "text/event-stream" then
      headers:replace("cache-control", "no-cache")
      headers:replace("x-accel-buffering", "no")
    elseif headers:get("content-type") == "application/jsonl" then
      local name = headers:get("x-chat-session-id") or "session"
      headers:replace("content-disposition", ('attachment; filename="%s.jsonl"'):format(name))
    elseif request.list then
      complete_list(handle, request.list)
    end
    return
  end
  local failure = errors.read(headers, request, handle:virtualHost():metadata():get("max_body"))
  local from = handle:metadata()
  failure.place = (from:get("completions") or from:get("in_body")) and "body" or "query"
  local dialect = dialects[request.dialect] or dialects.chipp
  failure.served = not request.unserved
  if not request.no_body then
    write_body(handle, dialect, failure)
  end
  dialect.headers(handle:headers(), failure)
end
