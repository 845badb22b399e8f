-- How an error looks. A row for each dialect: `body` makes the JSON of a failure (see errors.lua), `headers` what goes
-- with it. A route names its dialect in its metadata.

local text = require("text")
local quote = text.quote

local function plain_headers(headers, failure)
  headers:replace(":status", tostring(failure.status))
  headers:replace("content-type", "application/json")
  if failure.retry_after then
    headers:replace("retry-after", failure.retry_after)
  end
end

-- OpenAI's SDKs obey `x-should-retry` before anything else.
local function openai_headers(headers, failure)
  plain_headers(headers, failure)
  headers:replace("x-should-retry", failure.retry and "true" or "false")
end

local OPENAI_CODES = { missing_api_key = "invalid_api_key", upstream_rate_limited = "rate_limit_exceeded" }

local function openai_type(status)
  if status == 429 then
    return "rate_limit_error"
  end
  return status >= 500 and "server_error" or "invalid_request_error"
end

local function openai_body(failure)
  return ('{"error":{"message":%s,"type":%s,"param":%s,"code":%s}}'):format(
    quote(failure.message),
    quote(openai_type(failure.status)),
    quote(failure.param),
    quote(OPENAI_CODES[failure.code] or failure.code)
  )
end

local function chipp_body(failure)
  return '{"error":' .. quote(failure.message) .. "}"
end

return {
  openai = { body = openai_body, headers = openai_headers },
  chipp = { body = chipp_body, headers = plain_headers },
}
