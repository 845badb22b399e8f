-- The second script. Envoy calls `envoy_on_request` for every request, and `envoy_on_response` for every response, its own
-- included. A successful response costs only a few lookups.

package.path = "lua/?.lua"

local body = require("body")
local challenges = require("challenges")
local cors = require("cors")
local dialects = require("dialects")
local errors = require("errors")
local expansion = require("expansion")
local refusals = require("refusals")
local text = require("text")

local NOTHING = {}
local COMPLETION = "CreateChatCompletionRequest"

-- Returns the results of arrival.lua.
local function known(handle)
  return handle:streamInfo():dynamicMetadata():get("parley") or NOTHING
end

-- Returns the violations of the body, {field, message, kind} each, and whether the service should not validate the rest.
local function violations(read, kind, dialect, is_gzip)
  if read.failure then
    return { { "", errors.unreadable(read.failure, is_gzip) } }, true
  end
  local own = kind == COMPLETION and dialect.check(read)
  local found = { own or nil }
  for _, fault in ipairs(read.faults) do
    local message, param = errors.field_error(fault[1], fault[2])
    if not own or own[1] ~= param then
      found[#found + 1] = { param, message, fault[3] }
    end
  end
  if read.no_messages and dialect.reports_missing then
    found[#found + 1] = { "messages", errors.NO_MESSAGES, "missing" }
  end
  return found, read.is_unusable or kind ~= COMPLETION
end

-- The most violations that are sent, to limit the size of the header.
local MAX_FAULTS = 20

-- Makes the service reject the call after it has checked the key. The service gets the rest of the body, or an empty one.
local function refuse(handle, buffer, read, found, is_final)
  local sent = {}
  for place = 1, math.min(#found, MAX_FAULTS) do
    sent[place] = { found[place][1], found[place][3] .. ":" .. found[place][2] }
  end
  local headers = handle:headers()
  headers:replace(is_final and "parley-refusal" or "parley-violations", text.form_encode(sent))
  headers:replace("parley-form", "whole")
  if is_final then
    buffer:setBytes("{}")
  elseif read.json then
    buffer:setBytes(read.json)
  end
end

-- Selects the method that writes the JSON or the events of REST. Its path has no route, so that clients cannot request it.
local function choose_method(headers, verb)
  local path, query = headers:get(":path"):match("^([^?]*)(.*)$")
  headers:replace(":path", path .. verb .. query)
end

-- Selects the unary or the streaming method of a completion.
local function choose_form(handle, dialect, accept, stream)
  local headers = handle:headers()
  local streams = dialect.streams(accept, stream ~= nil, stream == true)
  choose_method(headers, streams and ":stream" or ":json")
  if dialect.nulls then
    headers:replace("parley-nulls", "openai")
  end
  if streams then
    if dialect.events then
      headers:replace("parley-error-form", dialect.events)
    end
  elseif stream then
    headers:replace("parley-form", "whole")
  end
end

function envoy_on_request(handle)
  local request, kind = known(handle), handle:metadata():get("body")
  if request.refusal then
    return handle:respond(refusals.headers(request.refusal), "")
  elseif request.too_large then
    return handle:respond({ [":status"] = "413" }, "")
  elseif request.list == "messages" then
    return choose_method(handle:headers(), ":json")
  elseif not kind then
    return
  end
  local headers, dialect = handle:headers(), dialects[request.dialect]
  local accept = headers:get("accept")
  if dialect.requires_model and kind == COMPLETION then
    headers:replace("parley-model", "required")
  end
  local buffer = handle:body()
  local length = buffer and buffer:length() or 0
  if request.max_body and length > request.max_body then
    return handle:respond({ [":status"] = "413" }, "")
  end
  local content = buffer and buffer:getBytes(0, length) or ""
  local excess = expansion.excess(content)
  if excess then
    handle:streamInfo():dynamicMetadata():set("parley", "unfit", excess)
    return handle:respond({ [":status"] = "413" }, "")
  end
  local read = body.read(content, kind)
  if request.gzip and content == "" then
    read.failure = "empty"
  end
  local found, is_final = violations(read, kind, dialect, request.gzip)
  if found[1] then
    return refuse(handle, buffer or handle:body(true), read, found, is_final)
  elseif kind == COMPLETION then
    choose_form(handle, dialect, accept, read.stream)
  end
  if read.json then
    buffer:setBytes(read.json)
  end
end

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

function envoy_on_response(handle)
  local headers, request = handle:headers(), known(handle)
  if request.origin then
    cors.allow(headers, request.origin)
  end
  local status, grpc_status = headers:get(":status"), headers:get("grpc-status")
  if is_success(status, grpc_status) then
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
  local host = handle:virtualHost():metadata()
  local failure = errors.read(headers, request, host:get("max_body"))
  local challenge = challenges.of_response(headers, failure.status)
  if challenge then
    local origin = headers:get("parley-error-origin")
    failure.challenge = challenges.with_metadata(challenge, host:get("resource_metadata"), origin)
  end
  local from = handle:metadata()
  failure.place = from:get("body") and "body" or "query"
  local dialect = dialects[request.dialect] or dialects.chipp
  failure.served = request.dialect and not request.unserved
  if not request.no_body then
    write_body(handle, dialect, failure)
  end
  dialect.headers(handle:headers(), failure)
end
