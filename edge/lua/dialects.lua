-- The dialects: how streams are requested and how errors look. A row for each dialect:
--   body(failure)                   returns the JSON of an error (errors.lua describes a failure)
--   adapt(failure)                  applies the statuses and messages of the dialect's document, before the other two
--   headers(headers, failure)       sets the headers of an error
--   requires_model                  whether the document requires `model`, even where a default is configured
--   reports_missing                 whether absent `messages` are a fault of their own, besides empty `messages`
--   check(request)                  checks the dialect's own rules: returns {field, message, kind} of a violation, or nil
--   streams(headers, is_set, stream) returns whether to stream; `is_set`: whether the body has a `stream` that is not null
--   nulls                           whether answers have null for absent fields that OpenAI's API always sends and its
--                                   clients' types require; the documents of the other dialects omit them
--   events                          the format of an error within a stream, which the service writes: `text` is
--                                   {"error": message}, `detail` is {"detail": message}, nil is OpenAI's

local fields = require("fields")
local openai_codes = require("error_catalogue").openai_codes
local text = require("text")
local quote = text.quote

-- The longest `retry-after` that OpenAI's SDKs obey, in seconds: for a longer one they would retry at once, in vain.
local MAX_WAIT = 60

local function should_retry(headers, failure)
  local wait = tonumber(headers:get("retry-after") or "0") or 0
  return failure.retry and wait <= MAX_WAIT and "true" or "false"
end

local function plain_headers(headers, failure)
  headers:replace(":status", tostring(failure.status))
  headers:replace("content-type", "application/json")
  if failure.challenge then
    headers:replace("www-authenticate", failure.challenge)
  end
  if failure.retry_after then
    headers:replace("retry-after", failure.retry_after)
  end
  if failure.status == 429 then
    headers:replace("x-should-retry", should_retry(headers, failure))
  end
end

local function plain_body(failure)
  return '{"error":' .. quote(failure.message) .. "}"
end

local function no_check() end

local function as_it_is() end

-- Documents 000 and 001 have 500 as the only server error; 000 has this text. Overload is no error of a served request.
local function only_500(failure)
  if failure.status >= 500 and not failure.overloaded then
    failure.status, failure.message = 500, "Internal Server Error"
  end
end

-- Returns whether an Accept header accepts event streams, JSON, and any type. A weight of 0 excludes a type, and of event
-- streams and JSON, the one with the lower weight does not count (RFC 9110, 12.5.1).
local function accepted(accept)
  local weights = {}
  for entry in (accept or "*/*"):lower():gmatch("[^,]+") do
    local kind = entry:match("^%s*([^;%s]+)")
    if kind then
      weights[kind] = tonumber(entry:match(";%s*q=([%d.]+)") or 1) or 1
    end
  end
  local events = weights["text/event-stream"] or weights["text/*"] or 0
  local json = weights["application/json"] or weights["application/*"] or 0
  return events > 0 and events >= json, json > 0 and json >= events, (weights["*/*"] or 0) > 0
end

-- A `stream` in the body decides; otherwise, an `Accept` with event streams and without JSON.
local function streams(headers, is_set, stream)
  if is_set then
    return stream
  end
  local accept = headers:get("accept")
  if accept == nil or accept == "application/json" or accept == "*/*" then
    return false -- as most clients send it
  end
  local events, json = accepted(accept)
  return events and not json
end

-- ---------------------------------------------------------------------------------------------------------- openai

-- OpenAI's SDKs obey `x-should-retry` before `retry-after` and the status.
local function openai_headers(headers, failure)
  plain_headers(headers, failure)
  headers:replace("x-should-retry", should_retry(headers, failure))
end

local function openai_body(failure)
  return ('{"error":{"message":%s,"type":%s,"param":%s,"code":%s}}'):format(
    quote(failure.message),
    quote(failure.type),
    quote(failure.param),
    quote(openai_codes[failure.code] or failure.code)
  )
end

-- -------------------------------------------------------------------------------------------------------- upchatty

local LOW, HIGH = unpack(fields.CreateChatCompletionRequest.fields.temperature.ranges.upchatty)

local function upchatty_check(request)
  local temperature = tonumber(request.temperature)
  if request.temperature and not (temperature and temperature >= LOW and temperature <= HIGH) then
    return { "temperature", ("`temperature` must be between %d and %d"):format(LOW, HIGH), "value_error" }
  end
end

-- --------------------------------------------------------------------------------------------------------- fastapi

-- `Accept` decides; the body, only where both are accepted.
local function fastapi_streams(headers, _, stream)
  local events, json, any = accepted(headers:get("accept"))
  if any or events == json then
    return stream
  end
  return events
end

local function is_validation(failure)
  return failure.invalid
end

local function fastapi_adapt(failure)
  if is_validation(failure) then
    failure.status = 422
  end
end

-- The names of fields that differ in the document.
local FASTAPI_NAMES = { chatSessionId = "session_id" }

-- `messages[0].role` in the body becomes ["body","messages",0,"role"].
local function location(place, field)
  local parts = { quote(place) }
  for bracket, part in field:gmatch("(%[?)([^.%[%]]+)") do
    local is_index = bracket == "[" and part:find("^%d+$")
    parts[#parts + 1] = is_index and part or quote(FASTAPI_NAMES[part] or part)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function detail(failure, field, message, kind)
  local translated = message:gsub("`(%w+)`", function(name)
    return FASTAPI_NAMES[name] and "`" .. FASTAPI_NAMES[name] .. "`"
  end)
  return ('{"loc":%s,"msg":%s,"type":%s}'):format(location(failure.place, field), quote(translated), quote(kind))
end

local function fastapi_body(failure)
  if not is_validation(failure) then
    return '{"detail":' .. quote(failure.message) .. "}"
  end
  local details = {}
  for index, violation in ipairs(failure.violations or {}) do
    details[index] = detail(failure, unpack(violation))
  end
  if #details == 0 then
    details[1] = detail(failure, failure.param or "", failure.message, failure.kind or "value_error")
  end
  return '{"detail":[' .. table.concat(details, ",") .. "]}"
end

local openai = { adapt = as_it_is, body = openai_body, headers = openai_headers, check = no_check, streams = streams }
local openpipe = { requires_model = true }
for name, part in pairs(openai) do
  openpipe[name] = part
end

-- Of documents 000 and 001.
local function plain(check)
  return {
    requires_model = true,
    adapt = only_500,
    body = plain_body,
    headers = plain_headers,
    check = check,
    streams = streams,
    events = "text",
  }
end
openai.nulls = true

return {
  openai = openai,
  chipp = plain(no_check),
  upchatty = plain(upchatty_check),
  fastapi = {
    reports_missing = true,
    adapt = fastapi_adapt,
    body = fastapi_body,
    headers = plain_headers,
    check = no_check,
    streams = fastapi_streams,
    events = "detail",
  },
  openpipe = openpipe,
}
