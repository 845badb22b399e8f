-- Failures, from responses: the service's own errors from their headers, Envoy's from their status and text. A failure:
--   status        the HTTP status
--   message       the message for the caller
--   param         the field at fault
--   code          the code for programs, nil if there is none
--   type          the type in the openai dialects
--   retry         whether the same request may succeed later
--   challenge     the `www-authenticate` of a refused credential
--   retry_after   the seconds until then
--   invalid       whether the request violates a rule
--   violations    the violations that the service found, {field, message, kind} each
--   kind          the kind of the violation where there is no list of them
--   place         where the fields are, `body` or `query`
--   served        whether a route serves the path
--   overloaded    whether Envoy rejected the request because of its memory

local catalogue = require("error_catalogue")
local json = require("json")
local text = require("text")

local errors = {}

local INVALID, JSON_INVALID = "invalid_request", "json_invalid"

local NO_OBJECT, TOO_DEEP = "The request body must be a JSON object", "The request body is nested too deeply"
-- The worker has the same message for a small body (service/parley/rpc/decoding.py).
local NO_UTF8 = "The request body must be JSON in UTF-8, and not nested too deeply"
local UNREADABLE = {
  [json.TOO_DEEP] = { TOO_DEEP, JSON_INVALID },
  [json.NOT_UTF8] = { "The request body must be JSON in UTF-8", JSON_INVALID },
  [json.NO_OBJECT] = { NO_OBJECT, "model_attributes_type" },
}
local MALFORMED = { "The request body is not valid JSON", JSON_INVALID }
local MALFORMED_GZIP = { "The request body is not valid gzip, or its content is not valid JSON", JSON_INVALID }

-- Returns the message and the kind of fault for a body that body.lua could not parse.
function errors.unreadable(failure, is_gzip)
  return unpack(UNREADABLE[failure] or is_gzip and MALFORMED_GZIP or MALFORMED)
end

-- For a request that Envoy rejects before any script has run.
local NO_HTTP = "Bad request: its first line or a header is not valid HTTP"

-- Returns the row of a failure without a reason. A status that the catalogue does not list has the row of its class.
local UNLISTED = {
  [false] = { message = "Bad request", type = "invalid_request_error", should_retry = false },
  [true] = { message = "Internal Server Error", type = "server_error", should_retry = false },
}

local function entry(status)
  return catalogue.statuses[status] or UNLISTED[status >= 500]
end

local function http_status(status, grpc_status, reason)
  if catalogue.reasons[reason] then
    return catalogue.reasons[reason].status
  end
  -- The worker's gRPC library rejects a message of this size: small JSON numbers are larger in protobuf.
  if reason == nil and grpc_status == "8" then
    return 413
  end
  -- Envoy rejects native gRPC with HTTP status 200 and a gRPC status.
  if status == 200 then
    return grpc_status == "12" and 404 or 415
  end
  return status
end

-- Decodes a percent-encoded header of the service.
local function decoded(header)
  return header and text.percent_decode(header)
end

-- Reads the service's own errors from the headers.
local function read_service(failure, headers)
  failure.message = text.percent_decode(headers:get("grpc-message") or "")
  failure.param = decoded(headers:get("parley-error-param"))
  failure.code = decoded(headers:get("parley-error-code"))
  failure.invalid = headers:get("parley-error-reason") == "INVALID_REQUEST"
  failure.violations = text.form_decode(headers:get("parley-error-violations") or "")
  for _, violation in ipairs(failure.violations) do
    violation[3], violation[2] = violation[2]:match("^([%w_]+):(.*)$")
  end
end

-- The longest part of a request line that is copied into a message, in bytes.
local MAX_LINE_LENGTH = 200

-- Returns the message for a URL that no route serves.
local function unknown_url(line)
  local shown = #line > MAX_LINE_LENGTH and line:sub(1, MAX_LINE_LENGTH) .. "…" or line
  local served = line:lower():find("/api/", 1, true) and "/api/v1/chat/completions, /api/v1/models and /api/v1/sessions"
    or "/v1/chat/completions and /v1/models"
  return ("Unknown request URL: %s; this service serves %s (see /openapi.json)"):format(shown, served)
end

-- Reads Envoy's own errors. The message of a 400 is in the body.
local function read_own(failure, headers, request, largest)
  local own = entry(failure.status)
  failure.code, failure.retry_after = own.code, own.retry_after
  failure.overloaded = (headers:get("parley-error-local") or ""):find(" overload$") ~= nil
  if failure.status ~= 400 then
    failure.message = own.message
  elseif not request.dialect then
    failure.message = NO_HTTP
  end
  failure.message = request.unfit or failure.message
  if request.parameter then
    failure.param, failure.code, failure.kind, failure.invalid = request.parameter, INVALID, "extra_forbidden", true
  end
  if failure.status == 404 and request.unserved then
    failure.message = unknown_url(request.unserved)
  elseif failure.status == 405 then
    failure.message = "Method not allowed; use " .. (headers:get("allow") or "another")
  elseif failure.status == 413 and largest and not request.unfit and not headers:get("grpc-status") then
    failure.message = "The request body is larger than " .. largest
  end
end

-- Returns the failure of a response from its headers and from what is known of the request. `largest` is the limit of a body
-- as text, for example `8 MiB`. If the message is nil, `explain` reads it from the body.
function errors.read(headers, request, largest)
  local reason, grpc_status = headers:get("parley-error-reason"), headers:get("grpc-status")
  local failure = { status = http_status(tonumber(headers:get(":status")), grpc_status, reason) }
  local row = catalogue.reasons[reason] or entry(failure.status)
  failure.type, failure.retry = row.type, row.should_retry
  if reason then
    read_service(failure, headers)
  else
    read_own(failure, headers, request, largest)
  end
  return failure
end

local TYPES = {
  TYPE_STRING = "a string",
  TYPE_BOOL = "true or false",
  TYPE_DOUBLE = "a number",
  TYPE_UINT32 = "a whole number, zero or more",
  TYPE_INT64 = "a whole number",
}

errors.NO_MESSAGES = "`messages` must be a non-empty array"

-- The API documents have one message for any wrong type of these fields.
local DOCUMENTED = {
  model = "`model` is required and must be a string",
  messages = errors.NO_MESSAGES,
}

-- Returns the message for a field that violates the rule, and the field's name.
function errors.field_error(field, rule)
  local documented = rule:find("^must be") and DOCUMENTED[field]
  return documented or ("`%s` %s"):format(field, rule), field
end

-- Each parses one format of the transcoder's messages, and returns true if it has set the failure's message.
local FORMS = {
  -- page_size: invalid value x for type TYPE_UINT32
  function(failure, message)
    local field, kind = message:match("^([%w_.%[%]]+): invalid value .* for type ([%w_./]+)$")
    if field then
      failure.message, failure.param = errors.field_error(field, "must be " .. (TYPES[kind] or "an object"))
      return true
    end
  end,
  -- : invalid value oneof field '_page_size' is already set. Cannot set 'page_size' for type oneof
  function(failure, message)
    local field = message:match("already set%. Cannot set '([%w_]+)'")
    if field then
      failure.message, failure.param = errors.field_error(field, "is given twice")
      return true
    end
  end,
  -- The binding value "mine" of the field session_id is conflicting with the value "other" in the body.
  function(failure, message)
    local field = message:match("^The binding value .* of the field ([%w_]+) is conflicting")
    if field then
      failure.message, failure.param = errors.field_error(field, "differs from that of the path; leave it out")
      return true
    end
  end,
  function(failure, message)
    if message:find("Message too deep", 1, true) then
      failure.message = TOO_DEEP
    elseif message:find("non UTF-8", 1, true) then
      failure.message, failure.kind = NO_UTF8, JSON_INVALID
    elseif message:find("\n.*%^$") then
      failure.message, failure.kind = MALFORMED[1] .. ": " .. message:match("^[^\n]*"), JSON_INVALID
    else
      failure.message = catalogue.statuses[400].message
    end
    return true
  end,
}

-- Replaces the text of Envoy's 400 with the message of the API documents.
function errors.explain(failure, message)
  failure.code, failure.kind, failure.invalid = INVALID, "value_error", true
  for _, form in ipairs(FORMS) do
    if form(failure, message) then
      return
    end
  end
end

return errors
