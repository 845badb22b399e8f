-- Limits the static files that are sent: the bytes for an address, and for all. A client that does not read them keeps them in
-- memory until a timeout (see the route in envoy.yaml), so these limits bound that memory. Each thread of Envoy counts for itself.

local buckets = require("buckets")
local failures = require("failures")

local files = {}

-- A limit is the sum of what may be sent at once. This part of it may be sent in each further second.
local REFILL = 1 / 20
-- What a request counts until the size of its file is known, with the response.
local PENDING = 128 * 1024

local ALL = "all"
local of_caller, of_all = buckets.new(), buckets.new()

local function states(handle)
  local limits, now = handle:virtualHost():metadata():get("files"), handle:timestamp()
  local client = failures.client(handle:streamInfo():downstreamRemoteAddress())
  local caller = of_caller(client, now, limits.of_caller, limits.of_caller * REFILL)
  return caller, of_all(ALL, now, limits.of_all, limits.of_all * REFILL), limits
end

local function take(caller, all, size)
  caller.tokens, all.tokens = caller.tokens - size, all.tokens - size
end

-- Has the first refusal of an address logged, until it gets a file again.
local function log(handle, caller)
  if caller.is_refused then
    handle:streamInfo():dynamicMetadata():set("parley", "unlogged", true)
  end
  caller.is_refused = true
end

-- Counts a request. Returns a failure (see credentials.lua) if its address has exceeded its limit, or all have exceeded theirs.
function files.refusal(handle)
  local caller, all, limits = states(handle)
  if caller.tokens > 0 and all.tokens > 0 then
    caller.is_refused = false
    take(caller, all, PENDING)
    return nil
  end
  log(handle, caller)
  local excess = math.max(-caller.tokens / limits.of_caller, -all.tokens / limits.of_all)
  return {
    reason = "RATE_LIMITED",
    message = caller.tokens <= 0 and "Too many files were sent to this address; try again later"
      or "Too many files are being sent; try again later",
    retry_after = math.ceil(excess / REFILL) + 1,
  }
end

-- Counts the size of the response instead.
function files.count(handle, headers, has_body)
  local size = has_body and tonumber(headers:get("content-length") or "") or 0
  local caller, all = states(handle)
  take(caller, all, size - PENDING)
end

-- Returns whether a response is complete as the listener `files` has sent it.
function files.is_complete(headers)
  local is_own = headers:get("parley-error-local") == nil
  return is_own and (headers:get("content-type") ~= nil or headers:get(":status") < "400")
end

return files
