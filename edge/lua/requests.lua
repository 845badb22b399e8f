-- What the service gets of a request with a body: the rewritten body, the method that answers in the form of REST, and the faults
-- that it reports once it has checked the key.

local body = require("body")
local dialects = require("dialects")
local encoding = require("encoding")
local errors = require("errors")
local expansion = require("expansion")
local text = require("text")

local COMPLETION = "CreateChatCompletionRequest"
-- The most violations that are sent, to limit the size of the header.
local MAX_FAULTS = 20

local requests = {}

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

-- Makes the service reject the call after it has checked the key. The service gets the rest of the body, or an empty one.
local function refuse(headers, buffer, read, found, is_final)
  local sent = {}
  for place = 1, math.min(#found, MAX_FAULTS) do
    sent[place] = { found[place][1], found[place][3] .. ":" .. found[place][2] }
  end
  headers:replace(is_final and "parley-refusal" or "parley-violations", text.form_encode(sent))
  headers:replace("parley-form", "whole")
  if is_final then
    buffer:setBytes("{}")
  elseif read.json then
    buffer:setBytes(read.json)
  end
end

-- Returns the path with a verb. It selects a method for REST, and has no route, so that clients cannot request it.
function requests.with_verb(line, verb)
  local path, query = line:match("^([^?]*)(.*)$")
  return path .. verb .. query
end

function requests.set_path(headers, line)
  if line ~= headers:get(":path") then
    headers:replace(":path", line)
  end
end

-- Selects the unary or the streaming method of a completion.
local function choose_form(headers, path, dialect, stream)
  local streams = dialect.streams(headers, stream ~= nil, stream == true)
  headers:replace(":path", requests.with_verb(path, streams and ":stream" or ":json"))
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

-- Replaces the body with the request as protobuf. By the content type, the service knows it.
local function encode(handle, buffer, content, kind)
  local is_encoded, request = pcall(encoding.write, content, kind)
  if not is_encoded then
    handle:logErr("a request could not be encoded: " .. request)
    return handle:respond({ [":status"] = "500" }, "") -- Envoy would pass the JSON on as protobuf
  end
  handle:headers():replace("content-type", "application/protobuf; message=parley.v1.CreateChatCompletionRequest")
  if buffer then
    buffer:setBytes(request)
  end
end

-- Reads the body, which has arrived, and writes what the service gets.
--   buffer    the body, nil if it is empty
--   kind      its type, a name of schema.lua
--   path      the path, see arrival.lua
--   dialect   the name of the dialect
--   is_gzip   whether the body was compressed
--   encodes   whether the service gets a completion as protobuf, and not as JSON that the transcoder reads
function requests.rewrite(handle, buffer, kind, path, dialect, is_gzip, encodes)
  local content = buffer and buffer:getBytes(0, buffer:length()) or ""
  local excess = expansion.excess(content)
  if excess then
    handle:streamInfo():dynamicMetadata():set("parley", "unfit", excess)
    return handle:respond({ [":status"] = "413" }, "")
  end
  local read = body.read(content, kind)
  if is_gzip and content == "" then
    read.failure = "empty"
  end
  dialect = dialects[dialect]
  local found, is_final = violations(read, kind, dialect, is_gzip)
  buffer = buffer or found[1] and handle:body(true)
  local headers = handle:headers()
  if dialect.requires_model and kind == COMPLETION then
    headers:replace("parley-model", "required")
  end
  if found[1] then
    requests.set_path(headers, path)
    return refuse(headers, buffer, read, found, is_final)
  elseif kind == COMPLETION then
    choose_form(headers, path, dialect, read.stream)
    if encodes then
      return encode(handle, buffer, read.json or content, kind)
    end
  else
    requests.set_path(headers, path)
  end
  if read.json then
    buffer:setBytes(read.json)
  end
end

return requests
