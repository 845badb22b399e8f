-- CORS: the origins of the configuration, and the headers that their scripts may send and read.

local cors = {}

local ALLOWED = {}
for name in ([[
  authorization content-type x-chat-session-id x-correlation-id x-request-id idempotency-key cache-control user-agent
  openai-organization openai-project
  x-grpc-web x-user-agent grpc-timeout connect-protocol-version connect-timeout-ms
]]):gmatch("%S+") do
  ALLOWED[name] = true
end

local EXPOSED = table.concat({
  "x-request-id, x-correlation-id, x-chat-session-id, parley-processing-ms, retry-after, x-should-retry",
  "content-disposition, idempotent-replayed, www-authenticate, x-parley-cache, x-parley-deprecated",
  "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests",
  "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
}, ", ")

function cors.allows(origins, origin)
  for _, allowed in ipairs(origins or {}) do
    if allowed == origin or allowed == "*" then
      return true
    end
  end
  return false
end

-- Browsers send a preflight request before a call.
function cors.is_preflight(headers)
  return headers:get(":method") == "OPTIONS" and headers:get("access-control-request-method") ~= nil
end

-- OpenAI's SDK sends a dozen `x-stainless-…` headers, and adds new ones with each release.
function cors.preflight(headers)
  local names = {}
  for name in (headers:get("access-control-request-headers") or ""):lower():gmatch("[%w-]+") do
    if ALLOWED[name] or name:find("^x%-stainless%-") then
      names[#names + 1] = name
    end
  end
  return {
    [":status"] = "204",
    ["access-control-allow-methods"] = "GET, POST, PATCH, DELETE",
    ["access-control-allow-headers"] = table.concat(names, ", "),
    ["access-control-max-age"] = "600",
  }
end

-- gRPC's status, which gRPC-Web may send in headers, and the details of an error.
local RPC_EXPOSED = EXPOSED .. ", grpc-status, grpc-message, grpc-status-details-bin"

local function allow(headers, origin, exposed)
  headers:replace("access-control-allow-origin", origin)
  headers:replace("access-control-expose-headers", exposed)
  headers:add("vary", "Origin")
end

function cors.allow(headers, origin)
  allow(headers, origin, EXPOSED)
end

-- For gRPC-Web and Connect.
function cors.allow_rpc(headers, origin)
  allow(headers, origin, RPC_EXPOSED)
end

return cors
